_base_ = [
    __import__('mmfishnet').config_path(
        'mmseg::upernet/upernet_r50_4xb2-80k_cityscapes-512x1024.py'),
    '../_base_/backbones/r50_mmseg.py'
]

model = dict(pretrained=None, backbone=_base_.backbone)

_base_ = [
    __import__('mmfishnet').config_path(
        'mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py'),
    '../_base_/backbones/r50_mmseg.py'
]

model = dict(pretrained=None, backbone=_base_.backbone)

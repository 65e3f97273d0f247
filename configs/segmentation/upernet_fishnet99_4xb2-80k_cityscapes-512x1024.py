_base_ = [
    __import__('mmfishnet').config_path(
        'mmseg::upernet/upernet_r50_4xb2-80k_cityscapes-512x1024.py'),
    '../_base_/backbones/fishnet99_mmseg.py'
]

model = dict(
    pretrained=None,
    backbone=dict(_delete_=True, **_base_.backbone),
    decode_head=dict(in_channels=_base_.backbone_channels),
    auxiliary_head=dict(in_channels=_base_.backbone_channels[2]))

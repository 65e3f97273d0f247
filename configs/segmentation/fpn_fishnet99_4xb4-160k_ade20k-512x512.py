_base_ = [
    __import__('mmfishnet').config_path(
        'mmseg::sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512.py'),
    '../_base_/backbones/fishnet99_mmseg.py'
]

model = dict(
    pretrained=None,
    backbone=dict(_delete_=True, **_base_.backbone),
    neck=dict(in_channels=_base_.backbone_channels))

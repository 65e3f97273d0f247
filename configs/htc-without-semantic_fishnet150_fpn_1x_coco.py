# Hybrid Task Cascade for data without maps of stuff: boxes and masks alone.
_base_ = [
    'mmdet::htc/htc-without-semantic_r50_fpn_1x_coco.py',
    './_base_/backbones/fishnet150_mmdet.py'
]

model = dict(
    backbone=dict(_delete_=True, **_base_.backbone),
    neck=dict(in_channels=_base_.backbone_channels))

_base_ = ['./_base_/mask_rcnn_fpn.py', './_base_/backbones/fishnet99.py']

model = dict(
    backbone=dict(_delete_=True, **_base_.backbone),
    neck=dict(in_channels=_base_.backbone_channels))

_base_ = ['./_base_/faster_rcnn_fpn.py', './_base_/backbones/fishnet150.py']

model = dict(
    backbone=dict(_delete_=True, **_base_.backbone),
    neck=dict(in_channels=_base_.backbone_channels))

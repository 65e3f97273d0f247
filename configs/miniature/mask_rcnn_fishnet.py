_base_ = './_base_/mask_rcnn.py'

model = dict(
    backbone=dict(_delete_=True, **_base_.tiny_fishnet, **_base_.frozen),
    neck=dict(in_channels=_base_.tiny_fishnet_channels))

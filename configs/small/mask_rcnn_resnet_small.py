# The ResNet of as many parameters, trained as the FishNet is.
_base_ = './mask_rcnn_fishnet_small.py'

model = dict(
    backbone=dict(
        _delete_=True, **_base_.small_resnet, out_indices=(0, 1, 2, 3)),
    neck=dict(in_channels=_base_.small_resnet_channels))

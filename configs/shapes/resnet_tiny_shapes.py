# The ResNet of as many parameters, pretrained as fishnet_tiny_shapes.py does.
_base_ = './fishnet_tiny_shapes.py'

model = dict(
    backbone=dict(_delete_=True, **_base_.tiny_resnet),
    neck=dict(_delete_=True, type='GlobalAveragePooling'),
    head=dict(in_channels=512))

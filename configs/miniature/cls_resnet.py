_base_ = './_base_/cls.py'

model = dict(
    backbone=dict(_delete_=True, **_base_.tiny_resnet),
    neck=dict(_delete_=True, type='GlobalAveragePooling'),
    head=dict(in_channels=512))

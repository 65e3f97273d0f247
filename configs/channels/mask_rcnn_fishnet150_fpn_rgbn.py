# Four channels of 8 bits, as PNG: colours and near infrared.
_base_ = './_base_/mask_rcnn_fishnet150_fpn.py'

# One number for all channels: MMEngine takes one or three.
model = dict(
    data_preprocessor=dict(mean=[114.5], std=[57.6]),
    backbone=dict(in_channels=4))

image = dict(type='LoadImageFromFile', color_type='unchanged')
train_pipeline = [image, *_base_.train_pipeline[1:]]
test_pipeline = [image, *_base_.test_pipeline[1:]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

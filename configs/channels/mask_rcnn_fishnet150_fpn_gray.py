# One channel of 8 bits: grey photographs. Files in colour are turned to grey.
_base_ = './_base_/mask_rcnn_fishnet150_fpn.py'

# Of ImageNet in grey.
model = dict(
    data_preprocessor=dict(mean=[114.5], std=[57.6]),
    backbone=dict(in_channels=1))

image = dict(type='LoadImageFromFile', color_type='grayscale')
train_pipeline = [image, *_base_.train_pipeline[1:]]
test_pipeline = [image, *_base_.test_pipeline[1:]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

# Eight channels of 16 bits, as TIFF (height, width, channels): satellites.
_base_ = './_base_/mask_rcnn_fishnet150_fpn.py'

# One number for all channels: MMEngine takes one or three.
model = dict(
    data_preprocessor=dict(mean=[2000.], std=[2000.]),
    backbone=dict(in_channels=8))

image = dict(
    type='LoadImageFromFile', imdecode_backend='tifffile', to_float32=True)
train_pipeline = [image, *_base_.train_pipeline[1:]]
test_pipeline = [image, *_base_.test_pipeline[1:]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

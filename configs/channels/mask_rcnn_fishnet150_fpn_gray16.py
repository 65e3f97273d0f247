# One channel of 16 bits, as PNG or TIFF: X-rays, depth, microscopes.
_base_ = './_base_/mask_rcnn_fishnet150_fpn.py'

# Those of your images, which seldom use the whole range.
model = dict(
    data_preprocessor=dict(mean=[8000.], std=[8000.]),
    backbone=dict(in_channels=1))

image = dict(type='LoadImageFromFile', color_type='unchanged', to_float32=True)
train_pipeline = [image, *_base_.train_pipeline[1:]]
test_pipeline = [image, *_base_.test_pipeline[1:]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

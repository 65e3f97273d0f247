# Semantic FPN with a small FishNet for a few hundred pictures.
# `tools/dataset_tools/own_data.py` writes a config over it for maps.
_base_ = [
    '../shapes/semantic_fpn_fishnet_shapes.py', '../_base_/backbones/small.py'
]

size = (256, 256)
width = 64
classes = ('background', 'object')
model = dict(
    data_preprocessor=dict(size=size),
    backbone=dict(_delete_=True, **_base_.small_fishnet),
    neck=dict(in_channels=_base_.small_fishnet_channels, out_channels=width),
    decode_head=dict(
        in_channels=[width] * 4, channels=width, num_classes=len(classes)))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='Resize', scale=size, keep_ratio=True),
    dict(
        type='RandomFlip',
        prob=[0.25, 0.25, 0.25],
        direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='PackSegInputs')
]
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=size)
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=2.4e-3))
train_cfg = dict(max_epochs=20, val_interval=5)
auto_scale_lr = dict(base_batch_size=4)

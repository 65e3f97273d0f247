# A small FishNet on drawn shapes: the authors' better recipe, scaled down to
# minutes on two CPU cores. docs/classification.md has the commands.
_base_ = [
    './_base_/fishnet_8xb32-coslr-200e_in1k.py',
    '../_base_/backbones/tiny.py'
]

num_classes = 12
model = dict(
    backbone=dict(**_base_.tiny_fishnet, out_indices=(3, )),
    neck=dict(in_channels=528),
    head=dict(num_classes=num_classes, in_channels=264))
data_preprocessor = dict(num_classes=num_classes)

# A crop of 8 % would leave nothing of a shape's outline.
train_pipeline = _base_.train_pipeline
train_pipeline[1].update(scale=64, crop_ratio_range=(0.85, 1.0))
# The drawn ones are of this size.
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=64, edge='short'),
    dict(type='CenterCrop', crop_size=64),
    dict(type='PackInputs')
]

dataset = dict(
    _delete_=True, type='CustomDataset', data_root='data/shapes_cls')
train_dataloader = dict(
    num_workers=1,
    dataset=dict(**dataset, data_prefix='train', pipeline=train_pipeline))
val_dataloader = dict(
    num_workers=1,
    dataset=dict(**dataset, data_prefix='val', pipeline=test_pipeline))
test_dataloader = dict(
    num_workers=1,
    dataset=dict(**dataset, data_prefix='val', pipeline=test_pipeline))

train_cfg = dict(max_epochs=18)
default_hooks = dict(
    logger=dict(interval=20), checkpoint=dict(max_keep_ckpts=1))
auto_scale_lr = dict(base_batch_size=64)
randomness = dict(seed=0)

# A classifier with a small FishNet for a few hundred pictures.
# `tools/dataset_tools/own_data.py` writes a config over it for folders.
_base_ = [
    '../classification/_base_/fishnet_8xb32_in1k.py',
    '../_base_/backbones/small.py'
]

size = 96
num_classes = 2
model = dict(
    backbone=dict(**_base_.small_fishnet, out_indices=(3, )),
    neck=dict(in_channels=_base_.small_fishnet_channels[3]),
    head=dict(
        num_classes=num_classes,
        in_channels=_base_.small_fishnet_channels[3] // 2,
        topk=(1, )))
data_preprocessor = dict(num_classes=num_classes)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='RandomResizedCrop',
        scale=size,
        crop_ratio_range=(0.5, 1.0)),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=size, edge='short'),
    dict(type='CenterCrop', crop_size=size),
    dict(type='PackInputs')
]
dataset = dict(_delete_=True, type='CustomDataset', data_root='data/custom')
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(**dataset, data_prefix='train', pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=16,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(**dataset, data_prefix='val', pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(topk=(1, ))
test_evaluator = val_evaluator

train_cfg = dict(max_epochs=20, val_interval=5)
optim_wrapper = dict(
    optimizer=dict(
        _delete_=True, type='AdamW', lr=2e-3, weight_decay=0.05,
        foreach=True),
    clip_grad=dict(max_norm=5.0))
# T_max and end are left to the length of the training.
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=100),
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=0.01,
        by_epoch=True,
        convert_to_iter_based=True)
]
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(max_keep_ckpts=2))
auto_scale_lr = dict(base_batch_size=16)
randomness = dict(seed=0)

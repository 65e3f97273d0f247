# Pixels on the embedded data set: Semantic FPN with the small FishNet that
# fishnet_tiny_shapes.py pretrains, in minutes on two CPU cores.
# docs/pixel_level.md has the commands.
_base_ = [
    __import__('mmfishnet').config_path('mmseg::_base_/models/fpn_r50.py'),
    __import__('mmfishnet').config_path('mmseg::_base_/default_runtime.py'),
    '../_base_/backbones/tiny.py', '../_base_/short_schedule.py'
]

classes = ('background', 'ring', 'square', 'triangle', 'star', 'cross',
           'heart')
palette = [[40, 40, 40], [230, 75, 53], [77, 187, 213], [0, 160, 135],
           [243, 190, 60], [132, 110, 190], [240, 120, 170]]
data_root = 'data/shapes/'
size = (128, 128)
width = 32
norm_cfg = dict(type='BN', requires_grad=True)

model = dict(
    pretrained=None,
    data_preprocessor=dict(size=size),
    backbone=dict(
        _delete_=True,
        **_base_.tiny_fishnet,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/fishnet_tiny_shapes/epoch_5.pth')),
    neck=dict(
        in_channels=_base_.tiny_fishnet_channels,
        out_channels=width,
        norm_cfg=norm_cfg),
    decode_head=dict(
        in_channels=[width] * 4,
        channels=width,
        num_classes=len(classes),
        norm_cfg=norm_cfg,
        loss_decode=dict(avg_non_ignore=True)))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='Resize', scale=size, keep_ratio=True),
    dict(
        type='RandomFlip',
        prob=[0.25, 0.25, 0.25],
        direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='RandomRotate', prob=0.5, degree=30),
    dict(type='PackSegInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=size, keep_ratio=True),
    # After Resize: what is scored is the map of the image as it was.
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs')
]
dataset = dict(
    type='BaseSegDataset',
    data_root=data_root,
    metainfo=dict(classes=classes, palette=palette))
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        data_prefix=dict(
            img_path='train2017', seg_map_path='semantic/train2017'),
        pipeline=train_pipeline,
        **dataset))
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        data_prefix=dict(img_path='val2017', seg_map_path='semantic/val2017'),
        pipeline=test_pipeline,
        **dataset))
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator

train_cfg = dict(max_epochs=14, val_interval=14)
optim_wrapper = dict(optimizer=dict(lr=6e-3))
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=10),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'))
log_processor = dict(by_epoch=True)
auto_scale_lr = dict(enable=False, base_batch_size=16)

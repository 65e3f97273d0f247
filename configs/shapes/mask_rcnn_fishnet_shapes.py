# The main job on the embedded data set: Mask R-CNN with a small FishNet,
# pretrained by fishnet_tiny_shapes.py, in minutes on two CPU cores.
# `make demo` draws the data sets and runs both.
_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    'mmdet::_base_/default_runtime.py', '../_base_/backbones/tiny.py'
]

classes = ('ring', 'square', 'triangle', 'star', 'cross', 'heart')
data_root = 'data/shapes/'
size = (128, 128)
width = 64
norm_cfg = dict(type='BN', requires_grad=True)

model = dict(
    backbone=dict(
        _delete_=True,
        **_base_.tiny_fishnet,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/fishnet_tiny_shapes/epoch_5.pth')),
    # Norms after the backbone as well: there is no time to learn without.
    neck=dict(
        in_channels=_base_.tiny_fishnet_channels,
        out_channels=width,
        norm_cfg=norm_cfg),
    rpn_head=dict(in_channels=width, feat_channels=width),
    roi_head=dict(
        bbox_roi_extractor=dict(
            roi_layer=dict(sampling_ratio=2, use_torchvision=True),
            out_channels=width),
        bbox_head=dict(
            in_channels=width,
            fc_out_channels=256,
            num_classes=len(classes),
            reg_class_agnostic=True),
        mask_roi_extractor=dict(
            roi_layer=dict(sampling_ratio=1, use_torchvision=True),
            out_channels=width),
        mask_head=dict(
            num_convs=3,
            in_channels=width,
            conv_out_channels=32,
            norm_cfg=norm_cfg,
            num_classes=len(classes),
            loss_mask=dict(loss_weight=2.0))),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=400, max_per_img=200),
        rcnn=dict(sampler=dict(num=32, pos_fraction=0.5))),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=100)))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=size, keep_ratio=True),
    dict(
        type='RandomFlip',
        prob=[0.25, 0.25, 0.25],
        direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='PackDetInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=size, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                   'scale_factor'))
]
dataset = dict(data_root=data_root, metainfo=dict(classes=classes))
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(pipeline=train_pipeline, **dataset))
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(pipeline=test_pipeline, **dataset))
test_dataloader = val_dataloader
val_evaluator = dict(
    ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator

train_cfg = dict(
    type='EpochBasedTrainLoop', max_epochs=2, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    # One group of parameters, stepped at once: a tenth faster on a CPU.
    optimizer=dict(
        type='AdamW', lr=1.5e-3, weight_decay=0.05, foreach=True),
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
    logger=dict(interval=10),
    checkpoint=dict(max_keep_ckpts=2),
    visualization=dict(score_thr=0.5))
visualizer = dict(type='mmfishnet.InstanceVisualizer')
auto_scale_lr = dict(enable=False, base_batch_size=8)
randomness = dict(seed=0)

# Mask R-CNN with a small FishNet for a few hundred pictures.
# `tools/dataset_tools/own_data.py` writes a config over it for a data set.
_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    'mmdet::_base_/default_runtime.py', '../_base_/backbones/small.py',
    '../_base_/short_schedule.py'
]

width = 64
norm_cfg = dict(type='BN', requires_grad=True)

model = dict(
    backbone=dict(_delete_=True, **_base_.small_fishnet),
    # Norms after the backbone as well: nothing there is pretrained.
    neck=dict(
        in_channels=_base_.small_fishnet_channels,
        out_channels=width,
        norm_cfg=norm_cfg),
    rpn_head=dict(in_channels=width, feat_channels=width),
    roi_head=dict(
        bbox_roi_extractor=dict(
            roi_layer=dict(sampling_ratio=2, use_torchvision=True),
            out_channels=width),
        bbox_head=dict(
            in_channels=width, fc_out_channels=256, reg_class_agnostic=True),
        mask_roi_extractor=dict(
            roi_layer=dict(sampling_ratio=1, use_torchvision=True),
            out_channels=width),
        mask_head=dict(
            num_convs=3,
            in_channels=width,
            conv_out_channels=32,
            norm_cfg=norm_cfg)),
    train_cfg=dict(rpn_proposal=dict(nms_pre=600, max_per_img=200)),
    test_cfg=dict(rpn=dict(nms_pre=600, max_per_img=200)))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(256, 256), keep_ratio=True),
    dict(
        type='RandomFlip',
        prob=[0.25, 0.25, 0.25],
        direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='PackDetInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(256, 256), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                   'scale_factor'))
]
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(max_keep_ckpts=2))
visualizer = dict(type='mmfishnet.InstanceVisualizer')
auto_scale_lr = dict(enable=False, base_batch_size=4)

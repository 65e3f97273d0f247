# The main job on the embedded data set: Mask R-CNN with a small FishNet,
# pretrained by fishnet_tiny_shapes.py, in minutes on two CPU cores.
# `make demo` draws the data sets and runs both.
_base_ = [
    '../small/mask_rcnn_fishnet_small.py', '../_base_/backbones/tiny.py'
]

classes = ('ring', 'square', 'triangle', 'star', 'cross', 'heart')
data_root = 'data/shapes/'
size = (128, 128)

model = dict(
    backbone=dict(
        _delete_=True,
        **_base_.tiny_fishnet,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/fishnet_tiny_shapes/epoch_5.pth')),
    neck=dict(in_channels=_base_.tiny_fishnet_channels),
    roi_head=dict(
        bbox_head=dict(num_classes=len(classes)),
        mask_head=dict(
            num_classes=len(classes), loss_mask=dict(loss_weight=2.0))),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=400),
        rcnn=dict(sampler=dict(num=32, pos_fraction=0.5))),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=100)))

train_pipeline = _base_.train_pipeline
train_pipeline[2].update(scale=size)
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=size)
dataset = dict(data_root=data_root, metainfo=dict(classes=classes))
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, **dataset))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, **dataset))
test_dataloader = val_dataloader
val_evaluator = dict(
    ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator

train_cfg = dict(max_epochs=2, val_interval=1)
optim_wrapper = dict(optimizer=dict(lr=1.5e-3))
default_hooks = dict(visualization=dict(score_thr=0.5))
auto_scale_lr = dict(base_batch_size=8)

# Section 4.4's recipe on drawn shapes, with narrow heads and in a quarter of
# its epochs. What it says about the backbone stays: all batch norms and the
# stem are fixed.
_base_ = [
    '../../_base_/mask_rcnn_fpn.py', '../../_base_/backbones/tiny.py'
]

frozen = dict(
    out_indices=(0, 1, 2, 3),
    frozen_stages=0,
    norm_cfg=dict(type='BN', requires_grad=False),
    norm_eval=True,
    init_cfg=dict(
        type='Pretrained', checkpoint='pretrained.pth', prefix='backbone.'))

classes = ('arrow', 'bolt', 'crescent', 'cross', 'disc', 'heart', 'hexagon',
           'leaf', 'ring', 'square', 'star', 'triangle')
size = (128, 128)
width = 64

model = dict(
    neck=dict(out_channels=width),
    rpn_head=dict(in_channels=width, feat_channels=width),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=width),
        bbox_head=dict(
            in_channels=width, fc_out_channels=256, num_classes=len(classes)),
        mask_roi_extractor=dict(out_channels=width),
        mask_head=dict(
            num_convs=2,
            in_channels=width,
            conv_out_channels=width,
            num_classes=len(classes))),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=400, max_per_img=200),
        rcnn=dict(sampler=dict(num=48))),
    test_cfg=dict(rpn=dict(nms_pre=400, max_per_img=200)))

train_pipeline = _base_.train_pipeline
train_pipeline[2].update(scale=size)
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=size)

dataset = dict(data_root='data/shapes/', metainfo=dict(classes=classes))
loader = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(
    batch_size=4,
    dataset=dict(pipeline=train_pipeline, **dataset),
    **loader)
val_dataloader = dict(
    dataset=dict(pipeline=test_pipeline, **dataset), **loader)
test_dataloader = dict(
    dataset=dict(pipeline=test_pipeline, **dataset), **loader)
ann_file = 'data/shapes/annotations/instances_val2017.json'
val_evaluator = dict(ann_file=ann_file)
test_evaluator = dict(ann_file=ann_file)

# 0.02 for 16 images a step; here they are 4.
optim_wrapper = dict(optimizer=dict(lr=0.005))
train_cfg = dict(max_epochs=8)
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(end=8, milestones=[5, 7])
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))

# Fine-tune FishNet-150 on one's own images, which lie in folders named as
# their classes: data/custom/train/CLASS/*.jpg and data/custom/val/CLASS/*.jpg.
# The pretrained weights are fetched at the first start; any file that
# tools/convert_checkpoint.py reads or writes will do in their place.
_base_ = ['./fishnet150_8xb32_in1k.py', '../_base_/pretrained.py']

num_classes = 10  # how many folders there are
weights = dict(type='Pretrained', checkpoint=_base_.pretrained.fishnet150)
dataset = dict(_delete_=True, type='CustomDataset', data_root='data/custom')

model = dict(
    backbone=dict(init_cfg=weights),
    neck=dict(init_cfg=weights),
    head=dict(num_classes=num_classes, topk=(1, )))
data_preprocessor = dict(num_classes=num_classes)

train_dataloader = dict(
    dataset=dict(
        **dataset, data_prefix='train', pipeline=_base_.train_pipeline))
val_dataloader = dict(
    dataset=dict(**dataset, data_prefix='val', pipeline=_base_.test_pipeline))
test_dataloader = dict(
    dataset=dict(**dataset, data_prefix='val', pipeline=_base_.test_pipeline))
val_evaluator = dict(topk=(1, ))
test_evaluator = dict(topk=(1, ))

# A tenth of the learning rate that 32 images in a step would have, 0.0125,
# would be too little for the new classifier: it starts from nothing.
optim_wrapper = dict(optimizer=dict(lr=0.01))
train_cfg = dict(max_epochs=20)
param_scheduler = dict(milestones=[10, 16])
default_hooks = dict(
    checkpoint=dict(save_best='accuracy/top1', max_keep_ckpts=1))
auto_scale_lr = dict(base_batch_size=32)

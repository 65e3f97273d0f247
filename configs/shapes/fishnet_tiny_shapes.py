# Pretraining for mask_rcnn_fishnet_shapes.py: the classification set of
# drawn shapes, in three minutes on two CPU cores.
_base_ = '../classification/fishnet_shapes.py'

train_cfg = dict(max_epochs=5, val_interval=5)
# Whole objects, as a detector's regions hold them.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='RandomFlip', prob=0.5, direction='vertical'),
    dict(type='PackInputs')
]
train_dataloader = dict(
    num_workers=0, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=0)
test_dataloader = val_dataloader
optim_wrapper = dict(
    optimizer=dict(
        _delete_=True, type='AdamW', lr=4e-3, weight_decay=0.05,
        foreach=True))
# total_steps and end are left to the length of the training.
param_scheduler = dict(
    _delete_=True,
    type='OneCycleLR',
    eta_max=4e-3,
    pct_start=0.15,
    by_epoch=True,
    convert_to_iter_based=True)

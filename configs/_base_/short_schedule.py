# A short training on few pictures, for two cores.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=20, val_interval=5)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    # One group of parameters, stepped at once: a tenth faster on a CPU.
    optimizer=dict(type='AdamW', lr=2.4e-3, weight_decay=0.05, foreach=True),
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
randomness = dict(seed=0)

# Section 4.4 of the paper, where it differs from MMDetection's 1x schedule.
_base_ = [
    'mmdet::_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py'
]

train_cfg = dict(max_epochs=32)

# 16 GPUs with 1 image each
auto_scale_lr = dict(base_batch_size=16)

param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=0.001,
        by_epoch=True,
        begin=0,
        end=1,
        convert_to_iter_based=True),
    dict(
        type='MultiStepLR',
        by_epoch=True,
        begin=0,
        end=32,
        milestones=[20, 28],
        gamma=0.1)
]

# Gradients are clipped in the first two epochs only. The hook is no custom
# one: a config that inherits and has custom_hooks of its own keeps it.
optim_wrapper = dict(clip_grad=dict(max_norm=5.0))
default_hooks = dict(
    clip_grad=dict(type='mmfishnet.ClipGradUntilHook', end=2))

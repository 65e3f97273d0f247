# Copyright (c) mmfishnet authors. All rights reserved.
from unittest.mock import Mock

import pytest
from mmengine.registry import HOOKS

from mmfishnet.engine.training import (
    enable_amp,
    enable_auto_scale_lr,
    enable_early_stop,
)


def test_amp_and_scaling(detection):
    detection.optim_wrapper = dict(type='OptimWrapper')
    enable_amp(detection)
    assert detection.optim_wrapper == dict(
        type='AmpOptimWrapper', loss_scale='dynamic')
    detection.optim_wrapper.type = 'ApexOptimWrapper'
    with pytest.raises(ValueError, match='ApexOptimWrapper'):
        enable_amp(detection)

    with pytest.raises(ValueError, match='auto_scale_lr.base_batch_size'):
        enable_auto_scale_lr(detection)
    detection.auto_scale_lr = dict(base_batch_size=16)
    enable_auto_scale_lr(detection)
    assert detection.auto_scale_lr.enable


def test_early_stopping(detection):
    note = enable_early_stop(detection, 3, None)
    assert 'coco/bbox_mAP' in note
    hook, = detection.custom_hooks
    assert hook == dict(
        type='EarlyStoppingHook',
        monitor='coco/bbox_mAP',
        rule='greater',
        min_delta=1e-4,
        patience=3)
    assert detection.default_hooks.checkpoint.save_best == 'coco/bbox_mAP'
    # A gain of a point of AP is one, an equal value is none.
    stopper, runner = HOOKS.build(hook), Mock()
    runner.train_loop.stop_training = False
    for i, value in enumerate((0.30, 0.31, 0.32, 0.32, 0.32, 0.32)):
        assert not runner.train_loop.stop_training, i
        stopper.after_val_epoch(runner, {'coco/bbox_mAP': value})
    assert runner.train_loop.stop_training
    # What the config says of the same metric holds.
    detection.custom_hooks = [dict(hook, min_delta=0.002, patience=9)]
    enable_early_stop(detection, 3, None)
    assert detection.custom_hooks == [dict(hook, min_delta=0.002)]
    # Again, by the loss: the other hook is replaced.
    enable_early_stop(detection, 2, 'val_loss')
    kinds = [hook.type for hook in detection.custom_hooks]
    assert kinds == ['mmfishnet.ValLossHook', 'EarlyStoppingHook']
    assert detection.default_hooks.checkpoint.rule == 'less'
    detection.val_evaluator = dict(type='Mine')
    del detection.default_hooks.checkpoint['save_best']
    with pytest.raises(ValueError, match='--monitor'):
        enable_early_stop(detection, 2, None)
    detection.val_evaluator = None
    with pytest.raises(ValueError, match='needs validation'):
        enable_early_stop(detection, 2, 'val_loss')

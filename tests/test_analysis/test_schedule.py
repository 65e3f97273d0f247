# Copyright (c) mmfishnet authors. All rights reserved.
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config

import mmfishnet  # noqa: F401
from schedule import draw_schedule, find_epoch_length, simulate

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs' / 'mask_rcnn_fishnet150_fpn.py'


def test_phases(recwarn):
    schedule = simulate(Config.fromfile(CONFIG), epoch_length=10)
    # The schedulers have nothing to warn of.
    assert not [w for w in recwarn if 'optimizer.step' in str(w.message)]
    # The last iteration of the warm-up has the full learning rate.
    assert [(p.begin, p.end) for p in schedule.phases] == [(0, 10), (9, 200),
                                                           (200, 280),
                                                           (280, 320)]
    rates = [(p.first_lr, p.last_lr) for p in schedule.phases]
    assert np.ravel(rates) == pytest.approx(
        [2e-5, 2e-2, 2e-2, 2e-2, 2e-3, 2e-3, 2e-4, 2e-4])


def test_other_configs(tmp_path):
    """By iteration without clipping, and clipping without an end."""
    cfg = Config(dict(
        train_cfg=dict(by_epoch=False, max_iters=40),
        optim_wrapper=dict(
            type='AmpOptimWrapper', optimizer=dict(type='SGD', lr=1.0)),
        param_scheduler=dict(
            type='CosineAnnealingLR', by_epoch=False, T_max=40)))
    schedule = simulate(cfg, epoch_length=10)
    assert np.isnan(schedule.max_norm).all()
    expected = 0.5 * (1 + np.cos(np.pi * np.arange(40) / 40))
    np.testing.assert_allclose(schedule.lr, expected, atol=1e-9)

    cfg = Config(dict(
        train_cfg=dict(max_epochs=2),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1.0),
                           clip_grad=dict(max_norm=35))))
    schedule = simulate(cfg, epoch_length=3)
    assert schedule.max_norm.tolist() == [35] * 6
    assert schedule.lr.tolist() == [1] * 6
    draw_schedule(schedule, tmp_path / 'plain.png', 'plain')
    assert cv2.imread(str(tmp_path / 'plain.png')) is not None
    with pytest.raises(ValueError, match='auto_scale_lr.*--epoch-length'):
        find_epoch_length(cfg)


def test_epoch_length():
    cfg = Config.fromfile(CONFIG)
    # As long as MMDetection's logs say.
    assert find_epoch_length(cfg) == 7330
    # DINO takes images without objects too.
    dino = Config.fromfile(
        CONFIG.parent / 'dino_4scale_fishnet150_12e_coco.py')
    assert find_epoch_length(dino) == 7393
    cfg.train_dataloader.dataset.type = 'CityscapesDataset'
    with pytest.raises(ValueError, match='CityscapesDataset.*--epoch-length'):
        find_epoch_length(cfg)
    with pytest.raises(ValueError, match='epoch_length=0'):
        simulate(cfg, 0)


def test_tool(call_tool, tmp_path):
    out = tmp_path / 'out' / 'schedule.png'
    done = call_tool('analysis_tools/schedule', CONFIG, '--epoch-length',
                     '20', '--out', out)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert 'epochs 0 to 1: learning rate 2e-05 to 0.02' in lines
    assert 'epochs 1 to 20: learning rate 0.02' in lines
    assert 'epochs 20 to 28: learning rate 0.002' in lines
    assert 'epochs 0 to 2: gradients clipped to 5' in lines
    assert cv2.imread(str(out)) is not None
    # The word at the start of a run is said here, too.
    done = call_tool('analysis_tools/schedule', CONFIG, '--epoch-length', '1',
                     '--out', out)
    assert 'warm-up of one step' in done.stdout

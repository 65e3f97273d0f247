"""Processes that load data outlive a scheduler's signal, not the training."""
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmfishnet.datasets import draw_coco

pytest.importorskip('mmdet')

ROOT = Path(__file__).parents[2]


@pytest.fixture
def start(tmp_path):
    """start(*options): a training with persistent workers, in a group."""
    started = []

    def start(*options):
        draw_coco(tmp_path / 'data', 8, 2, size=64)
        process = subprocess.Popen(
            [
                sys.executable, ROOT / 'tools/train.py',
                ROOT / 'configs/shapes/mask_rcnn_fishnet_shapes.py',
                '--data-root', tmp_path / 'data', '--work-dir',
                tmp_path / 'run', '--no-check', '--cfg-options',
                'model.backbone.init_cfg=None', 'default_hooks.logger.'
                'interval=1', *(f'{loader}_dataloader.{option}'
                                for loader in ('train', 'val')
                                for option in ('num_workers=1',
                                               'persistent_workers=True')),
                *options
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.slow
def test_training_ends(start):
    process = start('train_cfg.max_epochs=1')
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0, printed
    assert 'bbox_mAP' in printed


@pytest.mark.slow
def test_signal_to_all(start, tmp_path):
    """As a scheduler sends it: a checkpoint is written, and all end.

    Those that load data for the validation are there from the first one on.
    """
    process = start('train_cfg.max_epochs=1000')
    lines = iter(process.stdout)
    for word in ('Epoch(val)', 'Epoch(train)'):
        assert any(word in line for line in lines)
    os.killpg(process.pid, signal.SIGTERM)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 143, printed
    assert (tmp_path / 'run/stopped.pth').is_file(), printed
    time.sleep(1)
    with pytest.raises(ProcessLookupError):  # no worker is left
        os.killpg(process.pid, 0)

# Copyright (c) mmfishnet authors. All rights reserved.
"""What the options of train.py do to a config, in place."""
from __future__ import annotations

import os
import os.path as osp
from collections.abc import Sequence
from importlib.util import find_spec

from mmengine.config import Config
from mmengine.device import get_device

from ..kinds import type_name

TRACKERS = dict(tensorboard='TensorboardVisBackend', wandb='WandbVisBackend')


def enable_amp(cfg: Config) -> str | None:
    """Switch to automatic mixed precision.

    Without a GPU the training stays in float32: MMEngine's wrapper refuses
    to run there, and MMCV's operators know no bfloat16 on a CPU.

    Args:
        cfg (Config): Config, changed in place.

    Returns:
        str: A line for the log, or None.

    Raises:
        ValueError: If the config's optimizer wrapper is one of another kind.
    """
    name = type_name(cfg.optim_wrapper.get('type', 'OptimWrapper'))
    if name not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise ValueError(
            '--amp puts AmpOptimWrapper in the place of OptimWrapper, but '
            f'optim_wrapper.type of the config is {name}.')
    if get_device() == 'cpu':
        return '--amp has no effect without a GPU: training in float32'
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    return None


def enable_auto_scale_lr(cfg: Config) -> None:
    """Scale the learning rate by the number of images in a step.

    Args:
        cfg (Config): Config, changed in place.

    Raises:
        ValueError: If the config does not say for which batch size its
            learning rate is.
    """
    if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
        raise ValueError(
            '--auto-scale-lr needs to know for which batch size the learning '
            'rate of the config is, and auto_scale_lr.base_batch_size is not '
            'set. Add it, for example by `--cfg-options '
            'auto_scale_lr.base_batch_size=16`.')
    cfg.auto_scale_lr.enable = True


def disable_validation(cfg: Config) -> None:
    """Train without evaluating in between.

    Args:
        cfg (Config): Config, changed in place.
    """
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None


def enable_tracking(cfg: Config, trackers: Sequence[str]) -> None:
    """Send what is logged to TensorBoard or Weights & Biases, too.

    Weights & Biases write to the run's folder and send nothing, unless the
    environment variable ``WANDB_MODE`` says so.

    Args:
        cfg (Config): Config, changed in place.
        trackers (Sequence[str]): Of 'tensorboard' and 'wandb'.

    Raises:
        ValueError: If the package of a tracker is not installed.
    """
    visualizer = cfg.setdefault('visualizer', dict(type='Visualizer'))
    backends = list(visualizer.get('vis_backends') or ())
    missing = ' '.join(name for name in trackers if find_spec(name) is None)
    if missing:
        raise ValueError(f'--track needs what is not installed: pip install '
                         f'{missing}')
    for tracker in trackers:
        backend = dict(type=TRACKERS[tracker])
        if tracker == 'wandb':
            # In the config, which is saved: a test of the run reads it.
            backend['init_kwargs'] = dict(
                project='mmfishnet',
                name=osp.basename(osp.normpath(cfg.work_dir)),
                mode=os.environ.get('WANDB_MODE', 'offline'))
        if backend['type'] not in map(type_name, backends):
            backends.append(backend)
    visualizer.vis_backends = backends

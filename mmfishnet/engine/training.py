# Copyright (c) mmfishnet authors. All rights reserved.
"""What the options of train.py do to a config, in place."""
from __future__ import annotations

import os
import os.path as osp
from collections.abc import Sequence
from importlib.util import find_spec

from mmengine.config import Config, ConfigDict

from ..kinds import type_name

TRACKERS = dict(tensorboard='TensorboardVisBackend', wandb='WandbVisBackend')
# A smaller gain is none. MMEngine's default is 0.1, which few validations
# add to an AP.
GAIN = 1e-4


def enable_amp(cfg: Config) -> None:
    """Switch to automatic mixed precision.

    Args:
        cfg (Config): Config, changed in place.

    Raises:
        ValueError: If the config's optimizer wrapper is one of another kind.
    """
    name = type_name(cfg.optim_wrapper.get('type', 'OptimWrapper'))
    if name not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise ValueError(
            '--amp puts AmpOptimWrapper in the place of OptimWrapper, but '
            f'optim_wrapper.type of the config is {name}.')
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


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


def enable_val_loss(cfg: Config) -> None:
    """Compute the losses of the validation data, too.

    Args:
        cfg (Config): Config, changed in place.

    Raises:
        ValueError: If the config does not validate.
    """
    if not cfg.get('val_dataloader'):
        raise ValueError('--val-loss needs validation data, and the config '
                         'has no val_dataloader.')
    hooks = list(cfg.get('custom_hooks') or ())
    if 'ValLossHook' not in map(type_name, hooks):
        cfg.custom_hooks = [*hooks, dict(type='mmfishnet.ValLossHook')]


def enable_early_stop(cfg: Config, patience: int, monitor: str | None) -> str:
    """End the training when it no longer gets better, and keep the best.

    Args:
        cfg (Config): Config, changed in place.
        patience (int): Validations without a better value.
        monitor (str, optional): Metric, or 'val_loss'. Defaults to None,
            ``save_best`` of the config, or the first metric of its evaluator.

    Returns:
        str: A line for the log.

    Raises:
        ValueError: If the config does not validate, or ``monitor`` is not
            given and not known.
    """
    if not cfg.get('val_evaluator'):
        raise ValueError('--early-stop needs validation, and the config has '
                         'no val_evaluator.')
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    checkpoint = hooks.setdefault('checkpoint',
                                  ConfigDict(type='CheckpointHook'))
    best = checkpoint.get('save_best')
    if isinstance(best, (list, tuple)):
        best = best[0] if best else None
    if monitor is None:
        monitor = main_metric(cfg) if best in (None, 'auto') else best
    if monitor is None:
        raise ValueError('--early-stop: the metric is not known; name it as '
                         'it is logged by --monitor, or --monitor val_loss.')
    if monitor.startswith('val_loss'):
        enable_val_loss(cfg)
    rule = 'less' if 'loss' in monitor else 'greater'
    checkpoint.update(save_best=monitor, rule=rule)
    hooks, said = [], {}
    for hook in cfg.get('custom_hooks') or ():
        if type_name(hook) != 'EarlyStoppingHook':
            hooks.append(hook)
        elif hook.get('monitor') == monitor:
            said = hook  # what is said of the same metric holds
    stop = dict(dict(type='EarlyStoppingHook', min_delta=GAIN), **said)
    stop.update(monitor=monitor, rule=rule, patience=patience)
    cfg.custom_hooks = [*hooks, stop]
    return (f'--early-stop: training ends after {patience} validations '
            f'without a better {monitor}; the best checkpoint is kept')


def main_metric(cfg: Config) -> str | None:
    """Name of the number by which a config's models are compared.

    Args:
        cfg (Config): Config with a ``val_evaluator``.

    Returns:
        str | None: Its first metric, of masks before boxes, as it is logged;
        None if it is of another kind.
    """
    evaluator = cfg.val_evaluator
    metric = evaluator[0] if isinstance(evaluator, (list, tuple)) else (
        evaluator)
    kind, kinds = type_name(metric), metric.get('metric', 'bbox')
    if kind == 'CocoMetric':
        what = 'segm' if 'segm' in kinds else 'bbox'
        return f'{metric.get("prefix", "coco")}/{what}_mAP'
    return dict(
        VOCMetric='pascal_voc/mAP',
        LVISMetric='lvis/segm_AP' if 'segm' in kinds else 'lvis/bbox_AP',
        Accuracy='accuracy/top1',
        IoUMetric='mIoU').get(kind)


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

# Copyright (c) mmfishnet authors. All rights reserved.
"""Learning rate, warm-up and gradient clipping over a run."""
from __future__ import annotations

import math
import os
from dataclasses import dataclass
from itertools import groupby
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.hooks import ParamSchedulerHook
from mmengine.optim import OptimWrapper
from mmengine.registry import (HOOKS, OPTIMIZERS, PARAM_SCHEDULERS,
                               DefaultScope)

# Training images: of COCO train2017 those with annotations.
TRAIN_IMAGES = {'CocoDataset': 117266, 'ImageNet': 1281167}


class Phase(NamedTuple):
    """A time in which the learning rate stands, rises or falls.

    ``begin`` and ``end`` (exclusive) are iterations.
    """

    begin: int
    end: int
    first_lr: float
    last_lr: float


@dataclass
class Schedule:
    """A run, iteration by iteration.

    Attributes:
        lr (np.ndarray): Learning rate, (iterations, ).
        max_norm (np.ndarray): Norm to which gradients are clipped,
            (iterations, ); nan where they are not.
        epoch_length (int): Iterations in an epoch.
    """

    lr: np.ndarray
    max_norm: np.ndarray
    epoch_length: int

    @property
    def phases(self) -> list[Phase]:
        """What the learning rate does, without its single steps."""
        phases, begin = [], 0
        for _, steps in groupby(np.sign(np.diff(self.lr))):
            length = len(list(steps))
            if length > 1:
                end = begin + length
                phases.append(
                    Phase(begin, end + 1, self.lr[begin], self.lr[end]))
            begin += length
        return phases


def epoch_length(cfg: Config) -> int:
    """Iterations in an epoch of the whole data set.

    Args:
        cfg (Config): Config for COCO or ImageNet, with
            ``auto_scale_lr.base_batch_size``: the number of images in an
            iteration, over all GPUs.

    Returns:
        int: The number of iterations.

    Raises:
        ValueError: If the config does not tell.
    """
    name = str(cfg.train_dataloader.dataset.type).split('.')[-1]
    batch_size = cfg.get('auto_scale_lr', {}).get('base_batch_size')
    if name not in TRAIN_IMAGES or batch_size is None:
        raise ValueError(
            'the iterations in an epoch can be told for '
            f'{" and ".join(TRAIN_IMAGES)} with auto_scale_lr.base_batch_size,'
            f' and not for {name} with {batch_size}; give them '
            '(--epoch-length).')
    return math.ceil(TRAIN_IMAGES[name] / batch_size)


def simulate(cfg: Config, epoch_length: int) -> Schedule:
    """Step a config's own schedulers and clipping hook through a run.

    Args:
        cfg (Config): Config of a training.
        epoch_length (int): Iterations in an epoch.

    Returns:
        Schedule: What they did.

    Raises:
        ValueError: If ``epoch_length`` is not positive.
    """
    if epoch_length < 1:
        raise ValueError(f'epoch_length={epoch_length} should be at least 1.')
    max_epochs = cfg.train_cfg.get('max_epochs')
    total = (
        cfg.train_cfg.max_iters
        if max_epochs is None else max_epochs * epoch_length)
    schedulers = cfg.get('param_scheduler') or []
    if isinstance(schedulers, dict):
        schedulers = [schedulers]
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        optimizer = OPTIMIZERS.build(
            dict(cfg.optim_wrapper.optimizer, params=[torch.zeros(1)]))
        # All that the hooks see of a runner.
        runner = SimpleNamespace(
            optim_wrapper=OptimWrapper(
                optimizer, clip_grad=cfg.optim_wrapper.get('clip_grad')))
        # As the runner does, which lets schedulers go on to the end.
        runner.param_schedulers = [
            PARAM_SCHEDULERS.build(
                dict(scheduler),
                default_args=dict(
                    optimizer=runner.optim_wrapper,
                    epoch_length=epoch_length,
                    end=max_epochs if scheduler.get('by_epoch', True) else
                    total)) for scheduler in schedulers
        ]
        hooks = [
            HOOKS.build(hook) for hook in cfg.get('custom_hooks') or []
            if str(hook.type).endswith('ClipGradUntilHook')
        ]
    optimizer.step()  # or the schedulers warn
    for hook in hooks:
        hook.before_train(runner)
    stepper = ParamSchedulerHook()
    lr, max_norm = np.empty(total), np.full(total, np.nan)
    for i in range(total):
        runner.iter, runner.epoch = i, i // epoch_length
        for hook in hooks:
            hook.before_train_iter(runner, i % epoch_length)
        lr[i] = optimizer.param_groups[0]['lr']
        clip = runner.optim_wrapper.clip_grad_kwargs
        if clip:
            # clip_grad may clip each element instead.
            max_norm[i] = clip.get('max_norm', clip.get('clip_value'))
        stepper.after_train_iter(runner, i)
        if (i + 1) % epoch_length == 0:
            stepper.after_train_epoch(runner)
    return Schedule(lr, max_norm, epoch_length)


def plot(schedule: Schedule, path: str | os.PathLike, title: str) -> None:
    """Draw a run, and its beginning in detail where something happens there.

    Args:
        schedule (Schedule): What :func:`simulate` returned.
        path (str | os.PathLike): Image file to be written.
        title (str): Title of the picture.
    """
    epochs = np.arange(len(schedule.lr)) / schedule.epoch_length
    clipped = np.flatnonzero(~np.isnan(schedule.max_norm))
    rising = [p for p in schedule.phases[:1] if p.last_lr > p.first_lr]
    ends = [clipped[-1] + 1] if len(clipped) else []
    ends += [phase.end for phase in rising]
    # Half as much again, so that one sees it end.
    detail = 1.5 * max(ends, default=0) / schedule.epoch_length

    figure = Figure(figsize=(12, 4.5), layout='constrained')
    figure.suptitle(title)
    if 0 < detail < epochs[-1]:
        panels = figure.subplots(1, 2, width_ratios=(2, 1))
        panels[1].set_xlim(0, detail)
        panels[1].set_title(f'the first {detail:g} epochs')
    else:
        panels = [figure.subplots()]
    panels[0].set_title('the whole run, on a logarithmic scale')
    panels[0].set_yscale('log')
    panels[0].set_xlim(0, len(epochs) / schedule.epoch_length)
    for panel in panels:
        panel.plot(epochs, schedule.lr, color='C0', label='learning rate')
        for phase in rising:
            panel.axvspan(
                0,
                phase.end / schedule.epoch_length,
                color='C1',
                alpha=0.25,
                label='warm-up')
        if len(clipped):
            panel.axvspan(
                epochs[clipped[0]],
                (clipped[-1] + 1) / schedule.epoch_length,
                facecolor='none',
                edgecolor='C3',
                hatch='//',
                alpha=0.5,
                label='gradients clipped to '
                f'{schedule.max_norm[clipped[0]]:g}')
        panel.set_xlabel('epoch')
        panel.grid(alpha=0.3)
    panels[0].set_ylabel('learning rate')
    # In a detail of the warm-up zero is a landmark.
    panels[-1].legend(loc='lower right')
    figure.savefig(path, dpi=150)

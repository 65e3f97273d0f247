# Copyright (c) mmfishnet authors. All rights reserved.
"""Draw learning rate, warm-up and gradient clipping of a config's run."""
from __future__ import annotations

import argparse
import math
import os
import os.path as osp
from copy import deepcopy
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from mmengine.config import Config, DictAction
from mmengine.hooks import ParamSchedulerHook
from mmengine.optim import OptimWrapper
from mmengine.registry import (
    DATASETS,
    HOOKS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    DefaultScope,
)

import mmfishnet  # noqa: F401 (configs may inherit from 'mmfishnet::')
from mmfishnet.checks.schedule import check_schedule
from mmfishnet.engine.errors import short_errors
from mmfishnet.kinds import dicts_in, is_a, scope_of, type_name

# Training images: all, and those that have annotations.
TRAIN_IMAGES = {'CocoDataset': (118287, 117266),
                'ImageNet': (1281167, 1281167)}

# More than these, such as a cosine's that falls with each epoch, are not named
# one by one.
MANY_PHASES = 10


def count_images(cfg: Config) -> int:
    """Images in an epoch of a config: those of its data set, which is built
    and asked if its annotations are there, else of COCO train2017 or
    ImageNet."""
    dataset = cfg.train_dataloader.dataset
    files = [osp.join(node.get('data_root') or '', node['ann_file'])
             for node in dicts_in(dataset) if node.get('ann_file')]
    if files and all(map(osp.isfile, files)):
        with DefaultScope.overwrite_default_scope(scope_of(cfg)):
            return len(DATASETS.build(deepcopy(dataset)))
    if type_name(dataset) not in TRAIN_IMAGES:
        raise ValueError(
            f'the training images of {type_name(dataset)} are not here, and '
            f'their number is known for {" and ".join(TRAIN_IMAGES)} only; '
            'give it (--images), or the iterations in an epoch '
            '(--epoch-length).')
    filtered = (dataset.get('filter_cfg') or {}).get('filter_empty_gt')
    return TRAIN_IMAGES[type_name(dataset)][bool(filtered)]


def epoch_steps(images: int, batch_size: int, gpus: int = 1,
                drop_last: bool = False) -> int:
    """Steps in an epoch, as MMEngine's sampler and loader count them: each
    GPU has as many images as the others."""
    steps = math.ceil(images / gpus) / batch_size
    return math.floor(steps) if drop_last else math.ceil(steps)


def find_epoch_length(cfg: Config) -> int:
    """Iterations in an epoch with ``auto_scale_lr.base_batch_size`` images
    each over all GPUs."""
    batch_size = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
    if batch_size is None:
        raise ValueError(
            'the config has no auto_scale_lr.base_batch_size; give the '
            'iterations in an epoch (--epoch-length).')
    return epoch_steps(count_images(cfg), batch_size)


class Phase(NamedTuple):
    """A time in which the learning rate stands, rises or falls: from the
    iteration ``begin`` to ``end`` (exclusive)."""

    begin: int
    end: int
    first_lr: float
    last_lr: float


@dataclass
class Schedule:
    """A run, iteration by iteration."""

    lr: np.ndarray  # learning rate, (iterations, )
    max_norm: np.ndarray  # to which gradients are clipped; nan if they aren't
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

    @property
    def clipped(self) -> tuple[int, int, float] | None:
        """First iteration with clipping, the one after the last, and the
        norm of the first; None without clipping."""
        found = np.flatnonzero(~np.isnan(self.max_norm))
        if not len(found):
            return None
        return found[0], found[-1] + 1, self.max_norm[found[0]]


def simulate(cfg: Config, epoch_length: int) -> Schedule:
    """Step a config's own schedulers and clipping hook through a run, in
    epochs of ``epoch_length`` iterations."""
    if epoch_length < 1:
        raise ValueError(f'epoch_length={epoch_length} should be at least 1.')
    epochs = cfg.train_cfg.get('max_epochs')
    total = cfg.train_cfg.max_iters if epochs is None else (
        epochs * epoch_length)
    schedulers = cfg.get('param_scheduler') or []
    if isinstance(schedulers, dict):
        schedulers = [schedulers]
    hooks = [hook for hook in (*(cfg.get('default_hooks') or {}).values(),
                               *(cfg.get('custom_hooks') or ()))
             if hook and is_a(hook, 'ClipGradUntilHook', HOOKS, scope_of(cfg))]
    with DefaultScope.overwrite_default_scope(scope_of(cfg)):
        optimizer = OPTIMIZERS.build(
            dict(cfg.optim_wrapper.optimizer, params=[torch.zeros(1)]))
        wrapper = OptimWrapper(
            optimizer, clip_grad=cfg.optim_wrapper.get('clip_grad'))
        # As the runner does, which lets schedulers go on to the end.
        schedulers = [
            PARAM_SCHEDULERS.build(
                dict(scheduler),
                default_args=dict(
                    optimizer=wrapper, epoch_length=epoch_length,
                    end=epochs if scheduler.get('by_epoch', True) else total))
            for scheduler in schedulers
        ]
        hooks = [HOOKS.build(hook) for hook in hooks]
    # All that the hooks see of a runner.
    runner = SimpleNamespace(
        optim_wrapper=wrapper, param_schedulers=schedulers)
    wrapper.step()  # or the schedulers warn
    for hook in hooks:
        hook.before_train(runner)
    stepper = ParamSchedulerHook()
    lr, max_norm = np.empty(total), np.full(total, np.nan)
    for i in range(total):
        runner.iter, runner.epoch = i, i // epoch_length
        for hook in hooks:
            hook.before_train_iter(runner, i % epoch_length)
        lr[i] = optimizer.param_groups[0]['lr']
        clip = wrapper.clip_grad_kwargs
        if clip:
            # clip_grad may clip each element instead.
            max_norm[i] = clip.get('max_norm', clip.get('clip_value'))
        stepper.after_train_iter(runner, i)
        if (i + 1) % epoch_length == 0:
            stepper.after_train_epoch(runner)
    return Schedule(lr, max_norm, epoch_length)


def draw_schedule(schedule: Schedule, path: str | os.PathLike,
                  title: str) -> None:
    """Draw a run, and its beginning in detail if something happens there."""
    length, total = schedule.epoch_length, len(schedule.lr)
    phases, clipped = schedule.phases, schedule.clipped
    warm_up = [p for p in phases[:1] if p.last_lr > p.first_lr]
    ends = [phase.end for phase in warm_up] + [c[1] for c in [clipped] if c]
    # Half as much again, so that one sees it end.
    detail = round(1.5 * max((e for e in ends if e < total), default=0))

    figure = Figure(figsize=(12, 4.5), layout='constrained')
    figure.suptitle(title)
    panels = figure.subplots(
        1, 2, width_ratios=(2, 1)) if 0 < detail < total else [
            figure.subplots()]
    for panel, shown in zip(panels, (total, detail)):
        # Within an epoch iterations are easier to read.
        unit, name = (length, 'epoch') if shown >= length else (1, 'iteration')
        steps = np.arange(shown + 1)
        panel.plot(steps / unit, schedule.lr[steps.clip(max=total - 1)],
                   color='C0', label='learning rate')
        for phase in warm_up:
            panel.axvspan(
                0, phase.end / unit, color='C1', alpha=0.25, label='warm-up')
        if clipped:
            panel.axvspan(clipped[0] / unit, clipped[1] / unit, ymax=0.04,
                          color='C3',
                          label=f'gradients clipped to {clipped[2]:g}')
        panel.set(xlim=(0, shown / unit), xlabel=name,
                  title=f'the first {shown / unit:g} {name}s')
        panel.grid(alpha=0.3)
    panels[0].set(title='the whole run, on a logarithmic scale', yscale='log',
                  ylabel='learning rate')
    panels[0].margins(y=0.12)
    level = [p for p in phases if p.first_lr == p.last_lr]
    for phase in level if len(level) <= MANY_PHASES else ():
        # Below, where nothing of a falling line is.
        panels[0].annotate(
            f'{phase.first_lr:.3g}',
            ((phase.begin + phase.end) / 2 / length, phase.first_lr),
            (0, -4), textcoords='offset points', ha='center', va='top')
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc='outside lower center', ncols=len(labels))
    figure.savefig(path, dpi=150)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('config', help='config file')
    add('--epoch-length', type=int, metavar='N',
        help='iterations in an epoch (default: those of the data set, or of '
        'COCO train2017 or ImageNet where it is not there, with the batch '
        'size auto_scale_lr.base_batch_size)')
    add('--out', type=Path, metavar='FILE',
        help='picture (default: CONFIG_schedule.png here)')
    add('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
        help='override settings of the config')
    return parser.parse_args()


def describe_schedule(schedule):
    """Lines on what happens when."""

    def when(begin, end):
        begin, end = (round(i / schedule.epoch_length, 2)
                      for i in (begin, end))
        return f'epochs {begin:g} to {end:g}'

    yield (f'{len(schedule.lr)} iterations, {schedule.epoch_length} in an '
           'epoch')
    phases, end = schedule.phases, 0
    if len(phases) > MANY_PHASES:
        yield (f'{when(phases[0].begin, phases[-1].end)}: learning rate '
               f'{phases[0].first_lr:.3g} to {phases[-1].last_lr:.3g} in '
               f'{len(phases)} phases')
        phases = []
    for phase in phases:
        rates = dict.fromkeys((f'{phase.first_lr:.3g}',
                               f'{phase.last_lr:.3g}'))
        # The last iteration of a warm-up is the first with the full rate.
        yield (f'{when(max(phase.begin, end), phase.end)}: learning rate '
               f'{" to ".join(rates)}')
        end = phase.end
    if schedule.clipped:
        begin, end, norm = schedule.clipped
        yield f'{when(begin, end)}: gradients clipped to {norm:g}'


def main():
    args = parse_args()
    name = Path(args.config).stem
    out = args.out or Path(f'{name}_schedule.png')
    with short_errors(ValueError):
        cfg = Config.fromfile(args.config)
        cfg.merge_from_dict(args.cfg_options or {})
        length = (find_epoch_length(cfg)
                  if args.epoch_length is None else args.epoch_length)
        for problem in check_schedule(cfg, length):
            print(problem)
        schedule = simulate(cfg, length)
    print('\n'.join(describe_schedule(schedule)))
    out.parent.mkdir(parents=True, exist_ok=True)
    draw_schedule(schedule, out, name)
    print(out)


if __name__ == '__main__':
    main()

# Copyright (c) mmfishnet authors. All rights reserved.
"""Draw learning rate, warm-up and gradient clipping of a config's run."""
from __future__ import annotations

import argparse
import math
import os
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
from mmengine.registry import HOOKS, OPTIMIZERS, PARAM_SCHEDULERS, DefaultScope

import mmfishnet  # noqa: F401 (configs may inherit from 'mmfishnet::')
from mmfishnet.checks.schedule import check_schedule

# Training images: of COCO train2017 those with annotations, unless the config
# keeps the others.
TRAIN_IMAGES = {'CocoDataset': 117266, 'ImageNet': 1281167}
ALL_TRAIN_IMAGES = {'CocoDataset': 118287}

# More than these, such as a cosine's that falls with each epoch, are not named
# one by one.
MANY_PHASES = 10


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


def published_images(cfg: Config) -> int | None:
    """Training images of COCO or ImageNet that a config trains on.

    Args:
        cfg (Config): Config of a training.

    Returns:
        int | None: Their number; None for another data set.
    """
    dataset = cfg.train_dataloader.dataset
    name = str(dataset.type).split('.')[-1]
    if (dataset.get('filter_cfg') or {}).get('filter_empty_gt'):
        return TRAIN_IMAGES.get(name)
    return ALL_TRAIN_IMAGES.get(name, TRAIN_IMAGES.get(name))


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
    images = published_images(cfg)
    batch_size = cfg.get('auto_scale_lr', {}).get('base_batch_size')
    if images is None or batch_size is None:
        raise ValueError(
            'the iterations in an epoch can be told for '
            f'{" and ".join(TRAIN_IMAGES)} with auto_scale_lr.base_batch_size,'
            f' and not for {cfg.train_dataloader.dataset.type} with '
            f'{batch_size}; give them (--epoch-length).')
    return math.ceil(images / batch_size)


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
        all_hooks = [
            *(cfg.get('default_hooks') or {}).values(),
            *(cfg.get('custom_hooks') or [])
        ]
        hooks = [
            HOOKS.build(hook) for hook in all_hooks
            if hook and str(hook.type).endswith('ClipGradUntilHook')
        ]
    runner.optim_wrapper.step()  # or the schedulers warn
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
    length, total = schedule.epoch_length, len(schedule.lr)
    clipped = np.flatnonzero(~np.isnan(schedule.max_norm))
    warm_up = [p for p in schedule.phases[:1] if p.last_lr > p.first_lr]
    ends = [phase.end for phase in warm_up]
    if len(clipped):
        ends.append(clipped[-1] + 1)
    # Half as much again, so that one sees it end.
    detail = round(1.5 * max((e for e in ends if e < total), default=0))

    figure = Figure(figsize=(12, 4.5), layout='constrained')
    figure.suptitle(title)
    if 0 < detail < total:
        panels = figure.subplots(1, 2, width_ratios=(2, 1))
    else:
        panels = [figure.subplots()]
    for panel, shown in zip(panels, (total, detail)):
        # Within an epoch iterations are easier to read.
        unit = length if shown >= length else 1
        name = 'epoch' if shown >= length else 'iteration'
        iterations = np.arange(shown + 1).clip(max=total - 1)
        panel.plot(
            np.arange(shown + 1) / unit,
            schedule.lr[iterations],
            color='C0',
            label='learning rate')
        for phase in warm_up:
            panel.axvspan(
                0, phase.end / unit, color='C1', alpha=0.25, label='warm-up')
        if len(clipped):
            panel.axvspan(
                clipped[0] / unit, (clipped[-1] + 1) / unit,
                ymax=0.04,
                color='C3',
                label='gradients clipped to '
                f'{schedule.max_norm[clipped[0]]:g}')
        panel.set_xlim(0, shown / unit)
        panel.set_xlabel(name)
        panel.grid(alpha=0.3)
        if shown < total:
            panel.set_title(f'the first {shown / unit:g} {name}s')
    panels[0].set_title('the whole run, on a logarithmic scale')
    panels[0].set_yscale('log')
    panels[0].set_ylabel('learning rate')
    panels[0].margins(y=0.12)
    level = [p for p in schedule.phases if p.first_lr == p.last_lr]
    for phase in level if len(level) <= MANY_PHASES else ():
        # Below, where nothing of a falling line is; at the end, where short.
        short = phase.end - phase.begin < total / 10
        place = phase.end if short else (phase.begin + phase.end) / 2
        panels[0].annotate(
            f'{phase.first_lr:.3g}', (place / length, phase.first_lr),
            xytext=(-3 if short else 0, -4),
            textcoords='offset points',
            ha='right' if short else 'center',
            va='top')
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc='outside lower center', ncols=len(labels))
    figure.savefig(path, dpi=150)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--epoch-length',
        type=int,
        metavar='N',
        help='iterations in an epoch (default: those of COCO train2017 or '
        'ImageNet with the batch size auto_scale_lr.base_batch_size)')
    parser.add_argument(
        '--out',
        type=Path,
        metavar='FILE',
        help='picture (default: CONFIG_schedule.png here)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings of the config')
    return parser.parse_args()


def main():
    args = parse_args()
    name = Path(args.config).stem
    out = args.out or Path(f'{name}_schedule.png')
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options or {})
    try:
        length = (
            epoch_length(cfg)
            if args.epoch_length is None else args.epoch_length)
        for problem in check_schedule(cfg, length):
            print(problem)
        schedule = simulate(cfg, length)
    except ValueError as error:
        raise SystemExit(f'error: {error}') from None

    def when(begin, end):
        return f'epochs {round(begin / length, 2):g} to ' \
               f'{round(end / length, 2):g}'

    print(f'{len(schedule.lr)} iterations, {length} in an epoch')
    phases, end = schedule.phases, 0
    if len(phases) > MANY_PHASES:
        print(f'{when(phases[0].begin, phases[-1].end)}: learning rate '
              f'{phases[0].first_lr:.3g} to {phases[-1].last_lr:.3g} in '
              f'{len(phases)} phases')
        phases = []
    for phase in phases:
        rates = dict.fromkeys((f'{phase.first_lr:.3g}',
                               f'{phase.last_lr:.3g}'))
        # The last iteration of a warm-up is the first with the full rate.
        print(f'{when(max(phase.begin, end), phase.end)}: learning rate '
              f'{" to ".join(rates)}')
        end = phase.end
    clipped = np.flatnonzero(~np.isnan(schedule.max_norm))
    if len(clipped):
        print(f'{when(clipped[0], clipped[-1] + 1)}: '
              f'gradients clipped to {schedule.max_norm[clipped[0]]:g}')
    out.parent.mkdir(parents=True, exist_ok=True)
    plot(schedule, out, name)
    print(out)


if __name__ == '__main__':
    main()

# Copyright (c) mmfishnet authors. All rights reserved.
"""Schedulers against the length of the training.

A scheduler counts steps, which are epochs or, with by_epoch=False, iterations;
those of the training are known where the data set is.
"""
from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from .problem import Problem, error, warning
from .sources import type_name

SUFFIXES = ('LR', 'Momentum', 'ParamScheduler')
DECAYS = ('MultiStep', 'Step', 'CosineAnnealing', 'Poly', 'OneCycle',
          'Exponential')


@dataclass
class Length:
    """How long a training is.

    Attributes:
        epochs (int, optional): None where it counts iterations.
        epoch (int, optional): Iterations in an epoch; None if unknown.
        iterations (int, optional): All; None if unknown.
    """

    epochs: int | None = None
    epoch: int | None = None
    iterations: int | None = None

    @classmethod
    def of(cls, train_cfg: dict, epoch: int | None) -> Length:
        epochs = train_cfg.get('max_epochs')
        iterations = train_cfg.get('max_iters')
        if epochs is not None and epoch:
            iterations = epochs * epoch
        return cls(epochs, epoch, iterations)


def epoch_length(loader: dict, images: int, processes: int) -> int:
    """Iterations in an epoch.

    Args:
        loader (dict): Config of the training's dataloader.
        images (int): Images of its data set.
        processes (int): Processes that share them.
    """
    batch = loader.get('batch_size', 1)
    each = math.ceil(images / processes)
    return each // batch if loader.get('drop_last') else math.ceil(
        each / batch)


def find_schedulers(cfg) -> Iterator[tuple[str, dict]]:
    """The schedulers of a config with their keys.

    Args:
        cfg: ``param_scheduler``: one, a list, or a dict of these for several
            optimizers.
    """
    def walk(node, key):
        if isinstance(node, (list, tuple)):
            for i, item in enumerate(node):
                yield from walk(item, f'{key}.{i}')
        elif isinstance(node, dict):
            if 'type' in node:
                yield key, node
            else:
                for name, item in node.items():
                    yield from walk(item, f'{key}.{name}')

    return walk(cfg, 'param_scheduler')


def check_schedule(cfg: dict, epoch: int | None) -> Iterator[Problem]:
    """Check each scheduler of a training.

    Args:
        cfg (dict): Config.
        epoch (int, optional): Iterations in an epoch; None if unknown.
    """
    train_cfg = cfg.get('train_cfg')
    if not isinstance(train_cfg, dict) or train_cfg.get('type') not in (
            None, 'EpochBasedTrainLoop', 'IterBasedTrainLoop'):
        return
    length = Length.of(train_cfg, epoch)
    for value in (length.epochs, length.iterations):
        if value is not None and (not isinstance(value, int) or value < 1):
            yield error('train_cfg', f'{value!r} should be a whole number of '
                        'epochs or iterations, above 0')
            return
    schedulers = list(find_schedulers(cfg.get('param_scheduler')))
    begins = [s.get('begin', 0) for _, s in schedulers]
    for key, scheduler in schedulers:
        end = scheduler.get('end')
        goes_on = end is not None and end in begins
        yield from _check(key, scheduler, length, goes_on)


def _check(key: str, cfg: dict, length: Length,
           goes_on: bool) -> Iterator[Problem]:
    """One scheduler; ``goes_on`` if another begins where it ends."""
    name = kind = type_name(cfg)
    for suffix in SUFFIXES:
        kind = kind.removesuffix(suffix)
    by_epoch = cfg.get('by_epoch', True)
    convert = cfg.get('convert_to_iter_based', False)
    if convert and not by_epoch:
        yield error(key, 'convert_to_iter_based=True turns epochs into '
                    'iterations, and by_epoch=False says that these are '
                    'iterations already; remove one of the two')
        return
    if by_epoch and length.epochs is None:
        yield (error if not convert else warning)(
            key, f'{name} counts epochs (by_epoch=True, the default), and '
            f'train_cfg counts iterations (max_iters={length.iterations}): '
            'the learning rate would never change. Set by_epoch=False and '
            'count iterations')
        return
    total = length.epochs if by_epoch else length.iterations
    if total is None:
        return
    unit = 'epochs' if by_epoch else 'iterations'
    # Steps in one of these units, where the scheduler is converted.
    scale = length.epoch if convert else 1
    begin, end = cfg.get('begin', 0), cfg.get('end', total)
    if not all(isinstance(v, (int, float)) for v in (begin, end)):
        yield error(key, f'begin={begin!r} and end={end!r} should be numbers')
        return
    if end <= begin:
        yield error(key, f'end={end} should be above begin={begin}')
        return
    if begin >= total:
        yield warning(key, f'{name} begins at {begin}, and the training has '
                      f'{total} {unit}: it has no effect')
        return
    last = min(end, total)
    if kind in ('Linear', 'Constant'):
        yield from _check_warm_up(key, name, cfg, end, last - begin, total,
                                  unit, scale)
    elif (not by_epoch and kind in DECAYS and length.epoch
          and length.epochs and last < length.epoch < length.iterations):
        yield warning(
            key, f'{name} ends after {last} iterations (by_epoch=False), in '
            f'the first of {length.epochs} epochs of {length.epoch}. If these '
            'are epochs, set by_epoch=True')
    elif kind == 'CosineAnnealing':
        yield from _check_cosine(key, name, cfg, begin, end, last, total,
                                 unit, goes_on)
    elif kind == 'OneCycle':
        yield from _check_one_cycle(key, cfg, begin, end, total, unit, scale)
    elif kind == 'MultiStep':
        yield from _check_milestones(key, name, cfg, begin, last, total, unit)
    elif kind == 'Step':
        size = cfg.get('step_size')
        if isinstance(size, int) and size >= last - begin:
            yield warning(key, f'step_size={size}, and the training has '
                          f'{total} {unit}: the rate is never lowered')
    elif kind == 'Poly' and end != total and not goes_on:
        if end < total:
            yield warning(
                key, f'{name} ends at {end} of {total} {unit}: from there on '
                'the rate stays at eta_min='
                f'{cfg.get("eta_min", 0)}. Set end={total}')
        else:
            yield warning(key, f'{name} ends at {end}, and the training has '
                          f'{total} {unit}: the rate does not come to eta_min')


def _check_warm_up(key, name, cfg, end, steps, total, unit,
                   scale) -> Iterator[Problem]:
    default = 1 / 3
    factor = cfg.get('start_factor', cfg.get('factor', default))
    if not isinstance(factor, (int, float)) or factor >= 1:
        return
    full = end - cfg.get('begin', 0)
    if scale is not None and full * scale < 2:
        yield error(
            key, f'{name} is a warm-up of one step, which has no second to '
            f'end with: the learning rate stays at {factor:g} of its value '
            'for the whole run. ' +
            (f'An epoch is {scale} iteration. ' if scale * full == 1 and
             cfg.get('convert_to_iter_based') else '') +
            'Let it last 2 steps or more (end), add '
            'convert_to_iter_based=True to count in iterations, or remove it')
    elif end > total:
        yield warning(
            key, f'{name} is a warm-up of {full} {unit}, and the training has '
            f'{total}: the full learning rate is not reached. Set end to less'
            + (', or by_epoch=False if these are iterations'
               if unit == 'epochs' else ''))
    elif end == total:
        yield warning(
            key, f'{name} is a warm-up of {full} {unit}, which is the whole '
            'training: the full learning rate is reached at its end')


def _check_cosine(key, name, cfg, begin, end, last, total, unit,
                  goes_on) -> Iterator[Problem]:
    period = cfg.get('T_max') or end - begin
    if not isinstance(period, (int, float)):
        return
    if last - begin > period:
        yield error(
            key, f'{name} has T_max={period}, and runs from {begin} to {last} '
            f'of {total} {unit}: the learning rate rises again after '
            f'{begin + period}. Set {key}.T_max={last - begin} or end='
            f'{begin + period}, or take CosineRestartLR if it should rise')
    elif begin + period < total and end < total and not goes_on:
        yield warning(
            key, f'{name} ends at {end} of {total} {unit}: the rest is '
            'trained with its lowest learning rate')
    elif begin + period > total + 1:
        yield warning(
            key, f'{name} has T_max={period}, and the training ends at '
            f'{total} {unit}: the learning rate does not come to its end')


def _check_one_cycle(key, cfg, begin, end, total, unit,
                     scale) -> Iterator[Problem]:
    steps = cfg.get('total_steps')
    start = cfg.get('pct_start', 0.3)
    if not isinstance(start, float) or not 0 <= start <= 1:
        yield error(key, f'pct_start={start!r} should be a float from 0 to 1')
    if steps is None:
        steps = end - begin
    elif not isinstance(steps, int) or steps <= 0:
        yield error(key, f'total_steps={steps!r} should be a whole number '
                    'above 0')
        return
    # After the last step the scheduler has moved on by one more.
    spare = 1 / scale if scale else 0
    if min(end - spare, total) - begin > steps:
        yield error(
            key, f'OneCycleLR has total_steps={steps}, and the training has '
            f'{total - begin} {unit} from begin={begin}: it would stop with '
            f'an error at {begin + steps}. Set {key}.total_steps='
            f'{total - begin}')
    elif begin + min(steps, end - begin) < total:
        yield warning(
            key, f'OneCycleLR ends at {begin + min(steps, end - begin)} of '
            f'{total} {unit}: the rest is trained with its last learning rate')
    elif begin + steps > total:
        yield warning(
            key, f'OneCycleLR has total_steps={steps}, and the training ends '
            f'at {total} {unit}: the learning rate does not come to its end')


def _check_milestones(key, name, cfg, begin, last, total,
                      unit) -> Iterator[Problem]:
    milestones = cfg.get('milestones')
    if not isinstance(milestones, (list, tuple)) or not all(
            isinstance(m, (int, float)) for m in milestones):
        yield error(key, f'milestones={milestones!r} should be a list of '
                    'numbers')
        return
    late = [m for m in milestones if begin + m >= last]
    if late:
        yield warning(
            key, f'the milestones {late} are not reached: {name} runs from '
            f'{begin} to {last}, and the training has {total} {unit}')

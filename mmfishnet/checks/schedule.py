# Copyright (c) mmfishnet authors. All rights reserved.
"""Schedulers against the length of the training.

A scheduler that was built counts steps, which are epochs or iterations, from
``begin`` to ``end``, and has a span in which it does what it is for. Only one
that stops the run is an error.
"""
from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import PARAM_SCHEDULERS

from ..kinds import is_a, type_name
from ..words import counted
from .built import is_known
from .problem import Problem, error, warning

SUFFIXES = ('LR', 'Momentum', 'ParamScheduler')
# Attribute of a scheduler that says how many steps it is for.
SPANS = dict(CosineAnnealing='T_max', OneCycle='total_steps',
             Step='step_size')
DECAYS = ('MultiStep', 'Step', 'CosineAnnealing', 'Poly', 'OneCycle')


class Line(NamedTuple):
    """A scheduler, reduced.

    Attributes:
        key (str): Where it stands in the config.
        name (str): Its class.
        kind (str): Without 'LR', 'Momentum' and the like.
        begin, end (int): First step and the one after the last.
        span (int): Steps for which it has something to do.
        by_epoch (bool): What a step is.
        values (tuple): Milestones, or the factor that it starts with.
    """

    key: str
    name: str
    kind: str
    begin: int
    end: int
    span: int
    by_epoch: bool
    values: tuple = ()


class Length(NamedTuple):
    """Epochs (None where iterations are counted), iterations, and those of an
    epoch; None if unknown."""

    epochs: int | None
    iterations: int | None
    epoch: int | None


def reduce(key: str, scheduler) -> Line:
    """Reduce a scheduler of MMEngine."""
    name = kind = type(scheduler).__name__
    for suffix in SUFFIXES:
        kind = kind.removesuffix(suffix)
    if not is_known(type(scheduler)):
        kind = ''
    begin, end = scheduler.begin, scheduler.end
    span = getattr(scheduler, SPANS.get(kind, ''), end - begin)
    values = tuple(sorted(getattr(scheduler, 'milestones', ())))
    factor = getattr(scheduler, 'start_factor',
                     getattr(scheduler, 'factor', None))
    if kind in ('Linear', 'Constant') and isinstance(factor, (int, float)):
        values = (factor, )
    return Line(key, name, kind, begin, end, span, scheduler.by_epoch, values)


def lines_of(schedulers, key: str = 'param_scheduler') -> Iterator[Line]:
    """The schedulers of a runner: a list, or one for each optimizer."""
    if isinstance(schedulers, dict):
        for name, several in schedulers.items():
            yield from lines_of(several, f'{key}.{name}')
    else:
        for i, scheduler in enumerate(schedulers or ()):
            if hasattr(scheduler, 'begin'):  # ReduceOnPlateau has none
                yield reduce(f'{key}.{i}', scheduler)


def check_schedule(cfg: dict, epoch: int | None) -> list[Problem]:
    """Build the schedulers of a config, and check them.

    Args:
        cfg (dict): Config.
        epoch (int, optional): Iterations in an epoch; None if unknown.

    Returns:
        list[Problem]: What is wrong with each.
    """
    train_cfg = cfg.get('train_cfg')
    if not isinstance(train_cfg, dict) or 'type' in train_cfg and not any(
            is_a(train_cfg, f'{kind}BasedTrainLoop', PARAM_SCHEDULERS.parent
                 or PARAM_SCHEDULERS) for kind in ('Epoch', 'Iter')):
        return []
    epochs, iterations = (train_cfg.get(n) for n in ('max_epochs',
                                                     'max_iters'))
    if epochs is not None:
        iterations = epochs * epoch if epoch else None
    length = Length(epochs, iterations, epoch)
    lines, problems = [], []
    for key, item in _scheduler_cfgs(cfg.get('param_scheduler')):
        try:
            lines.append(_build(key, item, length))
        except Exception as fault:
            problems.append(error(
                key, f'{type_name(item)} cannot be built '
                f'({type(fault).__name__}: {fault})'))
    return problems + list(check_lines(filter(None, lines), length))


def _scheduler_cfgs(cfg, key: str = 'param_scheduler') -> Iterator[tuple]:
    if isinstance(cfg, (list, tuple)):
        for i, item in enumerate(cfg):
            yield from _scheduler_cfgs(item, f'{key}.{i}')
    elif isinstance(cfg, dict) and 'type' in cfg:
        yield key if key[-1].isdigit() else f'{key}.0', cfg
    elif isinstance(cfg, dict):
        for name, item in cfg.items():
            yield from _scheduler_cfgs(item, f'{key}.{name}')


def _build(key: str, cfg: dict, length: Length) -> Line | None:
    """Build a scheduler as MMEngine's runner does, of one number."""
    by_epoch = cfg.get('by_epoch', True)
    if by_epoch and length.epochs is None and 'end' not in cfg:
        end = length.iterations
    else:
        end = length.epochs if by_epoch else length.iterations
    cfg = {**({} if end is None else {'end': end}), **cfg}
    optimizer = OptimWrapper(torch.optim.SGD(
        [torch.nn.Parameter(torch.zeros(1))], lr=1, momentum=0.9))
    if cfg.get('convert_to_iter_based') and by_epoch and not length.epoch:
        return None
    scheduler = PARAM_SCHEDULERS.build(
        cfg, default_args=dict(optimizer=optimizer,
                               epoch_length=length.epoch))
    return reduce(key, scheduler) if hasattr(scheduler, 'begin') else None


def check_lines(lines: Iterator[Line], length: Length) -> Iterator[Problem]:
    """Judge all schedulers of a training."""
    lines = list(lines)
    begins = [(line.begin, line.by_epoch) for line in lines]
    for line in lines:
        total = length.epochs if line.by_epoch else length.iterations
        if line.by_epoch and length.epochs is None:
            yield warning(
                line.key, f'{line.name} counts epochs (by_epoch=True, the '
                'default), and train_cfg counts iterations (max_iters='
                f'{length.iterations}): the learning rate would never change. '
                'Set by_epoch=False and count iterations')
        elif total is not None:
            yield from _check_line(line, length, total, (
                line.end, line.by_epoch) in begins)


def _check_line(line: Line, length: Length, total: int,
                goes_on: bool) -> Iterator[Problem]:
    """One scheduler; ``goes_on`` if another begins where it ends."""
    def time(steps: int) -> str:
        if line.by_epoch:
            return counted(steps, 'epoch')
        text = counted(steps, 'iteration')
        if length.epochs and length.epoch and not steps % length.epoch:
            text += f' ({counted(steps // length.epoch, "epoch")})'
        return text

    begin, end, span, kind = line.begin, line.end, line.span, line.kind
    last = min(end, total)
    full = f'the training has {time(total)}'
    stop = begin + span if kind in SPANS else end
    if begin >= total:
        yield warning(line.key, f'{line.name} begins after {time(begin)}, and '
                      f'{full}: it has no effect')
    elif kind in ('Linear', 'Constant'):
        if not line.values or line.values[0] >= 1:
            return
        if end - begin < 2:
            yield warning(
                line.key, f'{line.name} is a warm-up of one step, which has '
                'no second to end with: the learning rate stays at '
                f'{line.values[0]:g} of its value for the whole run. Let it '
                'last 2 steps or more (end), add convert_to_iter_based=True '
                'to count in iterations, or remove it')
        elif end >= total:
            yield warning(
                line.key, f'{line.name} is a warm-up of {time(end - begin)}, '
                f'and {full}: the full learning rate is not reached before '
                'its end. Set end to less' + (
                    ', or by_epoch=False if these are iterations'
                    if line.by_epoch else ''))
    elif (not line.by_epoch and kind in DECAYS and length.epoch
          and length.epochs and last < length.epoch < total):
        yield warning(
            line.key, f'{line.name} ends after {time(last)} (by_epoch=False), '
            f'in the first of {length.epochs} epochs of {length.epoch}. If '
            'these are epochs, set by_epoch=True')
    elif kind == 'OneCycle' and min(end - 1, total) - begin > span:
        yield error(
            line.key, f'{line.name} has total_steps for {time(span)}, and '
            f'{full}: it would stop with an error after {time(begin + span)}. '
            f'Set total_steps to {total - begin}')
    elif kind == 'CosineAnnealing' and last - begin > span:
        yield warning(
            line.key, f'{line.name} has a T_max of {time(span)}, and runs for '
            f'{time(last - begin)}: the learning rate rises again after '
            f'{time(begin + span)}. Set T_max to {last - begin} or end to '
            f'{begin + span}, or take CosineRestartLR if it should rise')
    elif kind == 'MultiStep':
        late = [m for m in line.values if begin + m >= last]
        if late:
            yield warning(
                line.key, f'the milestones {late} are not reached: '
                f'{line.name} runs to {time(last)}, and {full}')
    elif kind == 'Step':
        if span >= last - begin:
            yield warning(line.key, f'{line.name} has a step_size of '
                          f'{time(span)}, and {full}: the rate is never '
                          'lowered')
    elif kind in DECAYS and stop != total:
        # A warm-up is not counted in T_max by all.
        if stop < total and not goes_on and end < total:
            yield warning(
                line.key, f'{line.name} ends after {time(stop)}, and {full}: '
                'the rest is trained with its last learning rate')
        elif stop > total + begin and stop > total + 1:
            yield warning(
                line.key, f'{line.name} ends after {time(stop)}, and {full}: '
                'the learning rate does not come to its end')

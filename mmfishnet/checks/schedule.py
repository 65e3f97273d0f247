# Copyright (c) mmfishnet authors. All rights reserved.
"""Schedulers against the length of the training.

A scheduler that was built counts steps, epochs or iterations, from ``begin``
to ``end``, and has a span in which it does what it is for. Only one that stops
the run is an error.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import LOOPS, PARAM_SCHEDULERS

from ..kinds import is_a, type_name
from ..words import counted
from .built import is_known
from .problem import Problem, error

SUFFIXES = ('LR', 'Momentum', 'ParamScheduler')
# Attribute of a scheduler that says how many steps it is for.
SPANS = dict(CosineAnnealing='T_max', OneCycle='total_steps',
             Step='step_size')
DECAYS = ('MultiStep', 'Step', 'CosineAnnealing', 'Poly', 'OneCycle')
WARM_UPS = ('Linear', 'Constant')


class Length(NamedTuple):
    """Epochs (None where iterations are counted), iterations, and those of an
    epoch; None if unknown."""

    epochs: int | None
    iterations: int | None
    epoch: int | None


class Line(NamedTuple):
    """A scheduler, reduced.

    Attributes:
        key (str): Where it stands in the config.
        name (str): Its class.
        kind (str): The class without 'LR', 'Momentum' and the like.
        begin, end (int): First step and the one after the last.
        span (int): Steps for which it has something to do.
        by_epoch (bool): What a step is.
        values (list): Milestones, or the factor that it starts with.
        total (int, optional): Steps of the training.
        goes_on (bool): Whether another begins where it ends.
    """

    key: str
    name: str
    kind: str
    begin: int
    end: int
    span: int
    by_epoch: bool
    values: list
    total: int | None = None
    goes_on: bool = False

    @property
    def last(self) -> int:
        return min(self.end, self.total)

    @property
    def stop(self) -> int:
        return self.begin + self.span if self.kind in SPANS else self.end


def reduce(key: str, scheduler) -> Line:
    """Reduce a scheduler of MMEngine."""
    name = kind = type(scheduler).__name__
    for suffix in SUFFIXES:
        kind = kind.removesuffix(suffix)
    kind = kind if is_known(type(scheduler)) else ''
    begin, end = scheduler.begin, scheduler.end
    values = list(getattr(scheduler, 'milestones', ()))
    if kind in WARM_UPS:
        values = [getattr(scheduler, 'start_factor',
                          getattr(scheduler, 'factor', 1))]
    return Line(key, name, kind, begin, end, getattr(
        scheduler, SPANS.get(kind, ''), end - begin), scheduler.by_epoch,
                sorted(values))


def lines_of(schedulers) -> Iterator[Line]:
    """The schedulers of a runner: a list, or one for each optimizer."""
    for key, scheduler in _each(schedulers):
        if hasattr(scheduler, 'begin'):  # ReduceOnPlateau has none
            yield reduce(key, scheduler)


def _each(node, key: str = 'param_scheduler') -> Iterator[tuple]:
    """Schedulers or their configs, each with its key."""
    if isinstance(node, dict) and 'type' not in node:
        items = node.items()
    elif isinstance(node, (list, tuple)):
        items = enumerate(node)
    else:
        yield from [(key, node)] * (node is not None)
        return
    for name, item in items:
        yield from _each(item, f'{key}.{name}')


class Rule(NamedTuple):
    """What is said of schedulers of some kinds; the first that holds."""

    kinds: tuple
    level: str
    holds: Callable[[Line, Length], bool]
    words: str


RULES = [
    Rule((), 'warning', lambda s, n: s.by_epoch and n.epochs is None,
         'counts epochs (by_epoch=True, the default), and train_cfg counts '
         'iterations (max_iters={iterations}): the learning rate would never '
         'change. Set by_epoch=False and count iterations'),
    Rule((), 'warning', lambda s, n: s.begin >= s.total,
         'begins after {begin}, and {full}: it has no effect'),
    Rule(WARM_UPS, 'warning', lambda s, n: s.values[0] < 1
         and s.end - s.begin < 2,
         'is a warm-up of one step, which has no second to end with: the '
         'learning rate stays at {values[0]:g} of its value for the whole '
         'run. Let it last 2 steps or more (end), add '
         'convert_to_iter_based=True to count in iterations, or remove it'),
    Rule(WARM_UPS, 'warning', lambda s, n: s.values[0] < 1
         and s.end >= s.total,
         'is a warm-up to {end}, and {full}: the full learning rate is not '
         'reached before its end. Set {key}.end to less{or_else}'),
    Rule(DECAYS, 'warning', lambda s, n: not s.by_epoch and n.epochs
         and n.epoch and s.last < n.epoch < s.total,
         'ends after {last} (by_epoch=False), in the first of {epochs} epochs '
         'of {epoch}. If these are epochs, set by_epoch=True'),
    Rule(('OneCycle', ), 'error', lambda s, n: min(
        s.end - 1, s.total) - s.begin > s.span,
        'has total_steps for {span}, and {full}: it would stop with an error '
        'after {stop}. Set total_steps to {rest}'),
    Rule(('CosineAnnealing', ), 'warning', lambda s, n: s.last > s.stop,
         'has a T_max of {span}, and runs to {last}: the learning rate rises '
         'again after {stop}. Set T_max to {rest} or end to {stop}, or take '
         'CosineRestartLR if it should rise'),
    Rule(('MultiStep', ), 'warning', lambda s, n: any(
        s.begin + m >= s.last for m in s.values),
        'has the milestones {values}, runs to {last}, and {full}: not all are '
        'reached'),
    Rule(('Step', ), 'warning', lambda s, n: s.span >= s.last - s.begin,
         'has a step_size of {span}, and {full}: the rate is never lowered'),
    Rule(('CosineAnnealing', 'Poly', 'OneCycle'), 'warning', lambda s, n:
         s.stop < s.total and s.end < s.total and not s.goes_on,
         'ends after {stop}, and {full}: the rest is trained with its last '
         'learning rate'),
    # A warm-up before it is not counted by all.
    Rule(('CosineAnnealing', 'Poly', 'OneCycle'), 'warning', lambda s, n:
         s.stop > s.total + max(1, s.begin),
         'ends after {stop}, and {full}: the learning rate does not come to '
         'its end'),
]


def check_lines(lines: Iterator[Line], length: Length) -> Iterator[Problem]:
    """Judge all schedulers of a training.

    Args:
        lines (Iterator[Line]): Schedulers.
        length (Length): Of the training.
    """
    lines = list(lines)
    begins = [(line.begin, line.by_epoch) for line in lines]
    for line in lines:
        total = length.epochs if line.by_epoch else length.iterations
        line = line._replace(
            total=total, goes_on=(line.end, line.by_epoch) in begins)
        for rule in RULES:
            if total is None and rule is not RULES[0]:
                break
            if (not rule.kinds or line.kind in rule.kinds) and rule.holds(
                    line, length):
                yield Problem(rule.level, line.key,
                              f'{line.name} {_fill(rule.words, line, length)}')
                break


def _fill(words: str, line: Line, length: Length) -> str:
    def time(steps):
        if line.by_epoch or steps is None:
            return counted(steps or 0, 'epoch')
        text = counted(steps, 'iteration')
        if length.epochs and length.epoch and not steps % length.epoch:
            text += f' ({counted(steps // length.epoch, "epoch")})'
        return text

    times = {name: time(getattr(line, name))
             for name in ('begin', 'end', 'span')}
    if line.total is not None:
        times.update(last=time(line.last), stop=time(line.stop),
                     rest=line.total - line.begin,
                     full=f'the training has {time(line.total)}')
    or_else = ', or by_epoch=False if these are iterations'
    return words.format(
        key=line.key, or_else=or_else if line.by_epoch else '',
        values=line.values, **length._asdict(), **times)


def check_schedule(cfg: dict, epoch: int | None) -> list[Problem]:
    """Build the schedulers of a config, and check them.

    Args:
        cfg (dict): Config.
        epoch (int, optional): Iterations in an epoch; None if unknown.

    Returns:
        list[Problem]: What is wrong with each.
    """
    loop = cfg.get('train_cfg')
    if not isinstance(loop, dict) or loop.get('type') and not any(
            is_a(loop, f'{kind}BasedTrainLoop', LOOPS)
            for kind in ('Epoch', 'Iter')):
        return []
    epochs, iterations = loop.get('max_epochs'), loop.get('max_iters')
    if epochs is not None:
        iterations = epochs * epoch if epoch else None
    built, problems = {}, []
    optimizer = OptimWrapper(torch.optim.SGD(
        [torch.nn.Parameter(torch.zeros(1))], lr=1, momentum=0.9))
    for key, item in _each(cfg.get('param_scheduler')):
        # As MMEngine's runner does, of one number.
        end = (epochs or iterations) if item.get(
            'by_epoch', True) else iterations
        if item.get('convert_to_iter_based') and not epoch and item.get(
                'by_epoch', True):
            continue
        try:
            built[key] = PARAM_SCHEDULERS.build(
                {**({'end': end} if end else {}), **item},
                default_args=dict(optimizer=optimizer, epoch_length=epoch))
        except Exception as fault:
            problems.append(error(key, f'{type_name(item)} cannot be built '
                                  f'({type(fault).__name__}: {fault})'))
    lines = [reduce(key, s) for key, s in built.items() if hasattr(s, 'begin')]
    return problems + list(check_lines(
        lines, Length(epochs, iterations, epoch)))

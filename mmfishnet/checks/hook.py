# Copyright (c) mmfishnet authors. All rights reserved.
"""The doors: for runs, and for a config alone."""
from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import signature

from mmengine.device import get_device
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import MODELS, OPTIM_WRAPPERS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

from ..kinds import find_class, is_a, scope_of
from ..lengths import length_of
from ..words import near
from .built import build_parts, is_known, owner, parts_of_runner
from .evaluation import same_numbers
from .judge import check_faults, check_parts, guarded
from .model import bare, build_shapes, check_channels
from .problem import Problem, arranged, error, report, warning
from .schedule import Length, check_lines, check_schedule, lines_of

PARTS = ('train', 'val', 'test')


class CheckError(ValueError):
    """A run that is certain to stop, or to come to a wrong number."""


class CheckHook(Hook):
    """Refuse a run that is certain to stop or to come to a wrong number.

    It looks once, in the first process, when everything is built and nothing
    is loaded yet, and changes nothing.

    Args:
        parts (Sequence[str]): What is about to run, ``('train', 'val')`` or
            ``('test', )``.
        check (bool): False to leave the check out. Defaults to True.

    Attributes:
        built (bool): Whether all is built, and what is raised is of the run.
    """

    priority = 'HIGHEST'

    def __init__(self, parts: Sequence[str], check: bool = True) -> None:
        self.parts, self.check, self.built = tuple(parts), check, False

    def before_run(self, runner) -> None:
        """Check, and say what was found.

        Raises:
            CheckError: In all processes, if there are errors; it says all.
        """
        self.built = True
        if not self.check:
            return
        found = [list(guarded(check_runner, runner, self.parts))
                 if is_main_process() else None]
        broadcast_object_list(found)
        _refuse(found[0])
        for problem in found[0]:
            runner.logger.log(
                logging.WARNING if problem.level == 'warning' else
                logging.INFO, str(problem))


def is_built(runner) -> bool:
    """Whether a runner that was :func:`checked` has built everything."""
    return any(hook.built for hook in runner.hooks
               if isinstance(hook, CheckHook))


@contextmanager
def checked(runner, parts: Sequence[str], check: bool = True) -> Iterator:
    """Let a runner train or test what was checked.

    Args:
        runner (Runner): Gets a :class:`CheckHook`.
        parts (Sequence[str]): As of the hook.
        check (bool): False to leave it out. Defaults to True.

    Raises:
        CheckError: Of the hook; or, where the runner cannot even build its
            data sets and evaluators, with the cause in words, if it is found.
    """
    runner.register_hook(CheckHook(parts, check))
    try:
        yield
    except Exception as fault:
        if check and not is_built(runner):
            _refuse([p for p in [
                *_check_amp(runner.cfg, parts),
                *check_config(runner.cfg, parts, model=False, unknown=False)
            ] if p.level == 'error'], fault)
        raise


def _check_amp(cfg: dict, parts: Sequence[str]) -> Iterator[Problem]:
    wrapper = cfg.get('optim_wrapper')
    if 'train' in parts and wrapper and is_a(
            wrapper, 'AmpOptimWrapper', OPTIM_WRAPPERS) and (
                get_device() == 'cpu'):
        yield error('optim_wrapper.type', 'AmpOptimWrapper trains on a GPU, '
                    'and there is none. Set it to OptimWrapper, which trains '
                    'in float32')


def _check_intervals(runner) -> Iterator[Problem]:
    """What MMEngine reads at the end of the first epoch alone."""
    loop = runner.train_loop
    if runner.val_loop is not None and is_known(type(loop)) and isinstance(
            loop, (EpochBasedTrainLoop, IterBasedTrainLoop)):
        end = (loop.max_epochs if isinstance(loop, EpochBasedTrainLoop)
               else loop.max_iters)
        if loop.val_begin <= end and not any(
                map(_divides, loop.dynamic_intervals)):
            yield error('train_cfg.val_interval', f'it is '
                        f'{loop.val_interval!r}; it should be 1 or more. '
                        'Without val_dataloader, val_cfg and val_evaluator '
                        'there is no validation')
    for hook in runner.hooks:
        if not isinstance(hook, CheckpointHook) or not is_known(type(hook)):
            continue
        if not isinstance(hook.interval, (int, float)):
            yield error('default_hooks.checkpoint.interval', 'it is '
                        f'{hook.interval!r}; it should be a number')
        elif hook.interval <= 0 and not hook.save_last:
            continue  # it saves the best alone
        # What it does not know it hands on, and MMEngine's runner takes no
        # more than the hook gives it by itself.
        if isinstance(runner, Runner) and is_known(
                owner(type(runner), 'save_checkpoint')):
            for name in sorted(hook.args):
                yield error(
                    f'default_hooks.checkpoint.{name}', 'CheckpointHook takes '
                    f'no {name}'
                    f'{near(name, signature(CheckpointHook).parameters)}, and '
                    'would stop at its first checkpoint')


def _divides(interval) -> bool:
    try:
        1 % interval
    except (TypeError, ZeroDivisionError):
        return False
    return True


def _refuse(problems: Sequence[Problem],
            cause: Exception | None = None) -> None:
    """Say to the user why the run is not started, if there are errors."""
    if any(p.level == 'error' for p in problems):
        raise CheckError(
            report(problems) + '\nNothing was started; --no-check leaves this '
            'check out.') from cause


def check_runner(runner, names: Sequence[str]) -> list[Problem]:
    """Check what a runner has built.

    Args:
        runner (Runner): Runner of MMEngine.
        names (Sequence[str]): Of 'train', 'val' and 'test'.

    Returns:
        list[Problem]: Errors first, then warnings, then notes.
    """
    parts = parts_of_runner(runner, names)
    with same_numbers():
        problems = list(check_parts(parts, bare(runner.model), runner.hooks))
        if 'train' in names:
            problems += guarded(_check_intervals, runner)
        if isinstance(runner.cfg.get('model'), dict):
            problems += _shapes(runner.cfg)[1]
    loop = runner.train_loop if 'train' in names else None
    if loop is not None:
        epochs = loop.max_epochs if isinstance(
            loop, EpochBasedTrainLoop) else None
        problems += check_lines(
            lines_of(runner.param_schedulers),
            Length(epochs, getattr(loop, 'max_iters', None),
                   length_of(getattr(loop, 'dataloader', None))))
    return arranged(problems)


def check_config(cfg: dict, parts: Sequence[str] = PARTS, model: bool = True,
                 unknown: bool = True) -> list[Problem]:
    """Build what a runner would build of a config, and check it.

    Args:
        cfg (dict): Config of MMDetection, MMPretrain or MMSegmentation.
        parts (Sequence[str]): Whose data and evaluators are looked at.
            Defaults to ('train', 'val', 'test').
        model (bool): Whether the model is looked at. Defaults to True.
        unknown (bool): Whether to name what cannot be built for reasons that
            no rule knows. Defaults to True.

    Returns:
        list[Problem]: Errors first, then warnings, then notes.
    """
    built = build_parts(cfg, parts, scope_of(cfg))
    shapes, problems = None, []
    if model and isinstance(cfg.get('model'), dict):
        shapes, problems = _shapes(cfg)
    problems += check_parts(
        built, shapes and bare(shapes), (),
        labels=shapes is not None or not isinstance(cfg.get('model'), dict))
    for part in built:
        problems += check_faults(part, problems, unknown)
    if 'train' in parts:
        loader = next((p.loader for p in built if p.name == 'train'), None)
        problems += check_schedule(cfg, length_of(loader))
    return arranged(problems)


def _shapes(cfg: dict) -> tuple:
    """The model without memory for its weights, and its channels' problems."""
    scope, preprocessor = scope_of(cfg), cfg.get('data_preprocessor')
    model_cfg = dict(cfg['model'])
    if preprocessor is not None:  # as the runner does
        model_cfg.setdefault('data_preprocessor', preprocessor)
    try:
        if find_class(MODELS, model_cfg, scope) is None:
            raise LookupError('no such class is known here')
        model = build_shapes(model_cfg, scope)
    # Whatever a constructor raises, the runner will say, or has passed by.
    except Exception as fault:
        return None, [warning('model', 'it was not looked at: it cannot be '
                              'built without memory for its weights '
                              f'({type(fault).__name__}: {fault})')]
    return model, list(check_channels(model_cfg, bare(model)))

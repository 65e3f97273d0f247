# Copyright (c) mmfishnet authors. All rights reserved.
"""The doors: a hook for runs, a function for configs, words for errors."""
from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import MODELS
from torch import nn

from ..kinds import find_class, scope_of
from .built import build_parts, parts_of_runner
from .judge import check_faults, check_parts
from .model import bare, build_shapes, check_channels
from .problem import Problem, arranged, report, warning
from .schedule import Length, check_lines, check_schedule, lines_of

PARTS = ('train', 'val', 'test')


class CheckHook(Hook):
    """Refuse a run that is certain to stop or to come to a wrong number.

    It looks once, in the first process, when everything is built and nothing
    is loaded yet, and changes nothing.

    Args:
        parts (Sequence[str]): What is about to run: ``('train', 'val')`` or
            ``('test', )``.
    """

    priority = 'VERY_HIGH'

    def __init__(self, parts: Sequence[str] = ('train', 'val')) -> None:
        self.parts = tuple(parts)
        self.done = False

    def before_run(self, runner) -> None:
        """Check, and say what was found in all processes' name.

        Raises:
            ValueError: In the first process, if there are errors; it says
                all.
            SystemExit: In the others then, without a word.
        """
        self.done = True
        found = [check_runner(runner, self.parts)
                 if is_main_process() else None]
        broadcast_object_list(found)
        problems, = found
        for problem in problems:
            if problem.level != 'error':
                runner.logger.log(
                    logging.WARNING if problem.level == 'warning' else
                    logging.INFO, str(problem))
        if any(problem.level == 'error' for problem in problems):
            if not is_main_process():
                raise SystemExit(1)
            raise ValueError(_refusal(problems))

    @contextmanager
    def explaining(self, runner) -> Iterator[None]:
        """Say in words why the runner cannot build its data.

        Put it around ``runner.train()`` and ``runner.test()``.

        Args:
            runner (Runner): Runner with this hook.

        Raises:
            ValueError: In the place of what the data sets and evaluators
                raised, where its cause is found.
        """
        try:
            yield
        except Exception as fault:
            if not self.done:
                explain(runner.cfg, fault, self.parts)
            raise


def _refusal(problems: Sequence[Problem]) -> str:
    return (report(problems) + '\nNothing was started; --no-check leaves this '
            'check out.')


def explain(cfg: dict, fault: Exception, parts: Sequence[str] = PARTS) -> None:
    """Find out why something of a config cannot be built.

    Args:
        cfg (dict): Whole config.
        fault (Exception): What was raised.
        parts (Sequence[str]): Where to look. Defaults to everywhere.

    Raises:
        ValueError: With all errors that were found, if any were.
    """
    problems = check_config(cfg, parts, model=False, unknown=False)
    errors = [p for p in problems if p.level == 'error']
    if errors:
        raise ValueError(_refusal(errors)) from fault


def check_runner(runner, names: Sequence[str]) -> list[Problem]:
    """Check what a runner has built.

    Args:
        runner (Runner): Runner of MMEngine.
        names (Sequence[str]): Of 'train', 'val' and 'test'.

    Returns:
        list[Problem]: Errors first, then warnings, then notes.
    """
    parts = parts_of_runner(runner, names)
    model = bare(runner.model)
    problems = list(check_parts(parts, model, runner.hooks))
    cfg = runner.cfg.get('model')
    if isinstance(cfg, dict):
        problems += _check_shapes(cfg, scope_of(runner.cfg))
    if 'train' in names:
        loop = runner.train_loop
        batches = len(loop.dataloader) if hasattr(
            getattr(loop, 'dataloader', None), '__len__') else None
        length = Length(
            getattr(loop, 'max_epochs', None)
            if 'Epoch' in str(type(loop).__mro__) else None,
            getattr(loop, 'max_iters', None), batches)
        problems += check_lines(lines_of(runner.param_schedulers), length)
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
            are not known here. Defaults to True.

    Returns:
        list[Problem]: Errors first, then warnings, then notes.
    """
    scope = scope_of(cfg)
    built = build_parts(cfg, parts, scope)
    problems, shapes = [], None
    model_cfg = cfg.get('model')
    if model and isinstance(model_cfg, dict) and 'type' in model_cfg:
        if find_class(MODELS, model_cfg, scope) is None:
            problems.append(warning('model', 'it was not looked at: no such '
                                    f'class is known: {model_cfg["type"]}'))
        else:
            shapes, found = _shapes(_whole_model(cfg), scope)
            problems += found
    problems += check_parts(built, shapes and bare(shapes), ())
    for part in built:
        problems += check_faults(part, problems, unknown)
    if 'train' in parts:
        loader = next((p.loader for p in built if p.name == 'train'), None)
        problems += check_schedule(cfg, len(loader) if hasattr(
            loader, '__len__') else None)
    return arranged(problems)


def _whole_model(cfg: dict) -> dict:
    """The model's config with the preprocessor that the runner adds."""
    preprocessor = cfg.get('data_preprocessor')
    more = {} if preprocessor is None else dict(data_preprocessor=preprocessor)
    return {**more, **cfg['model']}


def _shapes(cfg: dict, scope: str | None) -> tuple[nn.Module | None, list]:
    try:
        model = build_shapes(cfg, scope)
    # What a constructor raises, the runner has met, or will.
    except Exception as fault:
        return None, [warning(
            'model', 'it was not looked at: without memory for its weights it '
            f'cannot be built ({type(fault).__name__}: {fault})')]
    return model, list(check_channels(cfg, bare(model)))


def _check_shapes(cfg: dict, scope: str | None) -> list[Problem]:
    return [p for p in _shapes(cfg, scope)[1] if p.place != 'model']

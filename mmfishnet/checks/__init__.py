# Copyright (c) mmfishnet authors. All rights reserved.
"""Checks of a config and its data before the first step.

:func:`check_config` runs them all. Each is a plain function that yields a
:class:`Problem` for each kind of mistake, so all are said at once.
"""
from __future__ import annotations

from collections.abc import Iterable, Sequence

from mmengine.dist import (
    broadcast_object_list,
    get_world_size,
    is_main_process,
)

from .classes import check_names
from .data import check_coco, count_images
from .folders import check_folders, check_maps, list_classes
from .model import check_channels, check_heads, map_classes
from .problem import Problem, error, note
from .schedule import check_schedule, epoch_length
from .sources import Source, find_sources

__all__ = ['Problem', 'check_config', 'check_job', 'report']

LEVELS = ('error', 'warning', 'note')


def check_config(
    cfg: dict,
    parts: Sequence[str] = ('train', 'val', 'test')) -> list[Problem]:
    """Check a config and its data against each other.

    Args:
        cfg (dict): Config of MMDetection, MMPretrain or MMSegmentation.
        parts (Sequence[str]): Whose data and evaluators are looked at.
            Defaults to ('train', 'val', 'test').

    Returns:
        list[Problem]: Errors first, then warnings, then notes.
    """
    scope, model = cfg.get('default_scope'), cfg.get('model') or {}
    for wrapper in ('module', 'detector'):  # test-time augmentation, teachers
        if isinstance(model.get(wrapper), dict):
            model = model[wrapper]
    sources = list(find_sources(cfg, parts))
    files = {}
    problems = []

    def run(check, *args):
        try:
            for problem in check(*args):
                problems.append(problem)
        # A mistake in a check must not stop a training that would run.
        except Exception as fault:
            problems.append(
                note(check.__name__, 'this check did not come to its end '
                     f'({type(fault).__name__}: {fault})'))

    run(_check_sources, cfg, parts, sources)
    run(check_coco, sources, scope, files)
    run(check_folders, sources)
    run(check_maps, sources, map_classes(model))
    for source in sources:
        run(check_heads, model, source, list_classes(source), scope)
    run(check_channels, model, scope)
    if 'train' in parts:
        run(_check_length, cfg, sources, files)
    return sorted(
        dict.fromkeys(problems), key=lambda p: LEVELS.index(p.level))


def check_job(cfg: dict, parts: Sequence[str]) -> list[Problem]:
    """Check a config once for all processes of a job.

    Args:
        cfg (dict): Config.
        parts (Sequence[str]): As for :func:`check_config`.

    Returns:
        list[Problem]: Warnings and notes, for the log.

    Raises:
        ValueError: In the first process, if there are errors; it says all.
        SystemExit: In the others then, without a word.
    """
    found = [check_config(cfg, parts) if is_main_process() else None]
    broadcast_object_list(found)
    problems, = found
    if any(problem.level == 'error' for problem in problems):
        if not is_main_process():
            raise SystemExit(1)
        raise ValueError(
            report(problems) + '\nNothing was started; --no-check leaves this '
            'check out.')
    return problems


def report(problems: Iterable[Problem]) -> str:
    """Problems, one a line, under a line that counts them."""
    problems = list(problems)
    counts = [
        f'{n} {level}{"s" * (n != 1)}' for level in LEVELS
        if (n := sum(p.level == level for p in problems))
    ]
    title = 'the check of the config and its data found '
    return '\n  '.join(
        [title + (', '.join(counts) or 'nothing wrong'), *map(str, problems)])


def _check_sources(cfg: dict, parts: Sequence[str],
                   sources: Sequence[Source]):
    """What there is to look at, and the names of its classes."""
    for part in parts:
        loader = cfg.get(f'{part}_dataloader')
        if loader is not None and not isinstance(loader, dict):
            yield note(f'{part}_dataloader', 'it was not looked at: it is '
                       'not a config')
    for source in sources:
        if source.cls is None:
            yield note(source.key, f'{source.name} was not looked at: no such '
                       'class is registered')
        elif source.kind is None:
            yield note(source.key, f'the files of {source.name} were not '
                       'looked at: it reads them in its own way')
        yield from check_names(source)


def _check_length(cfg: dict, sources: Sequence[Source], files: dict):
    """The training's length, and the schedule against it."""
    loader = cfg.get('train_dataloader')
    trained = [source for source in sources if source.part == 'train']
    length = None
    # Wrappers repeat or choose images.
    if len(trained) == 1 and trained[0].key == 'train_dataloader.dataset':
        images = count_images(trained[0], files)
        if images:
            length = epoch_length(loader, images, get_world_size())
            if length == 0:
                yield error(
                    'train_dataloader', f'{images} images in '
                    f'{get_world_size()} processes are less than a batch of '
                    f'{loader.get("batch_size")}, and drop_last leaves them '
                    'out: there is no step. Lower batch_size')
    yield from check_schedule(cfg, length or None)

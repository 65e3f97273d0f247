# Copyright (c) mmfishnet authors. All rights reserved.
"""Which checkpoint a training goes on from."""
from __future__ import annotations

import os.path as osp
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.config import Config
from mmengine.runner import find_latest_checkpoint

from ...checkpoints import CheckpointError, read_checkpoint
from ...checkpoints.pretrained import has_scheme
from ...checkpoints.read import is_damaged
from ...words import short
from ...work_dir import checkpoints_in


def set_resume(cfg: Config,
               resume: str | None) -> tuple[str | None, list[str]]:
    """Decide from which checkpoint training goes on.

    Args:
        cfg (Config): Config, changed in place; it takes over the seed of the
            run where it names none.
        resume (str, optional): Value of --resume: a checkpoint, a folder of
            them for the latest in it, 'auto' for the latest one of the work
            directory, or None for what the config says.

    Returns:
        tuple[str | None, list[str]]: The checkpoint, or None if training
        starts anew, and lines for the log.

    Raises:
        FileNotFoundError: If the checkpoint is not there.
        ValueError: If training cannot go on from it.
    """
    if resume is None and not cfg.get('resume'):
        return None, []
    cfg.resume = True
    if resume not in (None, 'auto'):
        cfg.load_from = resume
    named = cfg.get('load_from') if resume != 'auto' else None
    if named is not None and not osp.isdir(named):
        found, notes, content = named, [], open_checkpoint(named)
    else:
        folder = cfg.work_dir if named is None else named
        found, notes, content = find_checkpoint(folder)
        if found is None and named is None:
            # Start as without --resume, from load_from if the config has one.
            cfg.resume = False
            notes.append(f'no checkpoint in {folder}: training starts from '
                         'the beginning')
            return None, [f'--resume: {note}' for note in notes]
        if found is None:
            raise FileNotFoundError(
                f'there is no checkpoint in the folder {folder} that '
                'training could go on from. ' + ' '.join(notes))
        cfg.load_from = found
        noted = named is None and osp.isfile(
            osp.join(folder, 'last_checkpoint'))
        if noted and osp.abspath(
                find_latest_checkpoint(folder)) == osp.abspath(found):
            # MMEngine finds the same: the config that it leaves in the work
            # directory does not name this checkpoint for good.
            cfg.load_from = None
        else:
            notes.append(f'{found} is the latest in {folder}')
    notes += _check_complete(cfg, found, content)
    # Go on with the seed of the run, where the config names none.
    randomness = dict(cfg.get('randomness') or {})
    seed = content.get('meta', {}).get('seed')
    if seed is not None and randomness.get('seed') is None:
        cfg.randomness = dict(randomness, seed=seed)
    return found, [f'--resume: {note}' for note in notes]


def find_checkpoint(work_dir: str) -> tuple[str | None, list[str], object]:
    """Find the latest complete checkpoint of a run.

    It is the one that MMEngine noted in ``last_checkpoint``, unless that file
    is gone (MMEngine removes old checkpoints before it saves a new one, and
    may be killed between the two) or damaged.

    Args:
        work_dir (str): Work directory of the run.

    Returns:
        tuple[str | None, list[str], object]: The checkpoint, what was wrong
        with those that come before it, and what it holds.
    """
    notes = []
    for path in checkpoints_in(work_dir):
        try:
            content = open_checkpoint(path)
        except (FileNotFoundError, CheckpointError) as error:
            notes.append(str(error))
            continue
        return path, notes, content
    return None, notes, None


def open_checkpoint(checkpoint: str):
    """Read a checkpoint, to its end, and run no code of it.

    Args:
        checkpoint (str): Path or URL.

    Returns:
        object: What it holds; an empty dict for what is no file here, whose
        content is not known yet.

    Raises:
        CheckpointError: If it is damaged, or no checkpoint.
        FileNotFoundError: If there is no such file.
    """
    path = osp.expanduser(checkpoint)
    if osp.isdir(path):
        raise FileNotFoundError(
            f'the checkpoint {path} is a folder; name a file in it.')
    if osp.isfile(path) and is_damaged(path):
        raise CheckpointError(
            f'the checkpoint {path} is damaged or cut short, as a process '
            'leaves it that is killed while it saves.')
    if has_scheme(checkpoint) and not osp.isfile(path):
        return {}
    content = read_checkpoint(path)
    weights = content.get('state_dict', content) if isinstance(
        content, dict) else None
    if not isinstance(weights, dict) or not all(
            isinstance(name, str) for name in weights):
        raise CheckpointError(
            f'{path} is no checkpoint: it holds {short(content)}. It should '
            'be a dict of weights by their names, or have one as state_dict.')
    return content


def _check_complete(cfg: Config, path: str, content) -> list[str]:
    """Refuse what training cannot go on from; gives lines for the log."""
    if content == {}:
        return []
    anew = ('To start anew from these weights, use `--cfg-options '
            f'load_from={path}` without --resume; to go on with a run, name '
            'one of its epoch_N.pth or iter_N.pth.')
    if 'message_hub' not in content or not isinstance(
            content.get('meta'), dict):
        raise ValueError(
            f'--resume: {path} holds weights alone, as a published file does, '
            f'and not where in a run they are from. {anew}')
    lost = ['the optimizer'] * ('optimizer' not in content)
    if 'param_schedulers' not in content and cfg.get('param_scheduler'):
        lost.append('the schedule')
        raise ValueError(
            f'--resume: {path} does not hold the state of '
            f'{" and of ".join(lost)}, as the best checkpoint does not: they '
            f'would start anew in the middle of the training. {anew}')
    return [f'{path} does not hold the state of {name}, which starts anew'
            for name in lost]


@contextmanager
def tells_how_to_go_on(work_dir: str) -> Iterator[None]:
    """Let Ctrl-C say which checkpoint of a folder a training goes on from."""
    try:
        yield
    except KeyboardInterrupt:
        found, *_ = find_checkpoint(work_dir)
        raise KeyboardInterrupt(
            f'; --resume goes on from {found}' if found else
            '; no checkpoint was written yet') from None

# Copyright (c) mmfishnet authors. All rights reserved.
"""Which checkpoint a training goes on from."""
from __future__ import annotations

import os.path as osp
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape, glob

from mmengine.config import Config
from mmengine.runner import find_latest_checkpoint

from ...checkpoints import CheckpointError, read_checkpoint
from ...checkpoints.pretrained import is_missing
from ...checkpoints.read import is_damaged, no_checkpoint

# What a run that was told to end leaves, in the middle of an epoch or not.
STOPPED = 'stopped.pth'


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
    if resume != 'auto' and cfg.get('load_from') is not None:
        notes = []
        if osp.isdir(cfg.load_from):
            folder = cfg.load_from
            cfg.load_from, notes = find_checkpoint(folder)
            if cfg.load_from is None:
                raise FileNotFoundError(
                    f'there is no checkpoint in the folder {folder} that '
                    'training could go on from. ' + ' '.join(notes))
            notes = [f'{cfg.load_from} is the latest in {folder}']
        found = cfg.load_from
        content = open_checkpoint(found)
        notes += _check_complete(cfg, found, content)
    else:
        found, notes, content = _latest(cfg.work_dir)
        if found is None:
            # Start as without --resume, from load_from if the config has one.
            cfg.resume = False
            notes.append(f'no checkpoint in {cfg.work_dir}: training starts '
                         'from the beginning')
            return None, [f'--resume: {note}' for note in notes]
        notes += _check_complete(cfg, found, content)
        # None where MMEngine finds the same: the config that it leaves in
        # the work directory then does not name this checkpoint for good.
        cfg.load_from = found if notes else None
    _keep_seed(cfg, content)
    return found, [f'--resume: {note}' for note in notes]


def find_checkpoint(work_dir: str) -> tuple[str | None, list[str]]:
    """Find the latest complete checkpoint of a run.

    It is the one that MMEngine noted in ``last_checkpoint``, unless that file
    is gone (MMEngine removes old checkpoints before it saves a new one, and
    may be killed between the two; or the folder was moved) or damaged.

    Args:
        work_dir (str): Work directory of the run.

    Returns:
        tuple[str | None, list[str]]: The checkpoint, and what was wrong with
        those that come before it.
    """
    return _latest(work_dir)[:2]


def _latest(work_dir: str) -> tuple[str | None, list[str], object]:
    last = None
    if osp.isfile(osp.join(work_dir, 'last_checkpoint')):
        last = find_latest_checkpoint(work_dir)
    saved = [
        path for pattern in ('epoch_*.pth', 'iter_*.pth', STOPPED)
        for path in glob(osp.join(escape(work_dir), pattern))
    ]
    notes = []
    saved.sort(key=osp.getmtime, reverse=True)
    if last:
        saved = [last] + [p for p in saved if osp.abspath(p) != last]
    for path in saved:
        try:
            content = open_checkpoint(path)
        except (FileNotFoundError, CheckpointError) as error:
            notes.append(str(error))
            continue
        if path != last:
            notes.append(f'going on from {path}')
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
        CheckpointError: If it is damaged.
        FileNotFoundError: If there is no such file.
    """
    if is_missing(checkpoint):
        raise FileNotFoundError(no_checkpoint(checkpoint))
    if osp.isdir(checkpoint):
        raise FileNotFoundError(
            f'the checkpoint {checkpoint} is a folder; name a file in it.')
    checkpoint = osp.expanduser(checkpoint)
    if not osp.isfile(checkpoint):
        return {}
    if is_damaged(checkpoint):
        raise CheckpointError(
            f'the checkpoint {checkpoint} is damaged or cut short, as a '
            'process leaves it that is killed while it saves.')
    return read_checkpoint(checkpoint)


def config_text(content) -> str:
    """The config that a run of MMEngine left in its checkpoint.

    Args:
        content: What :func:`open_checkpoint` read.

    Returns:
        str: The text, which is not executed; empty if there is none.
    """
    meta = content.get('meta') if isinstance(content, dict) else None
    text = meta.get('cfg') if isinstance(meta, dict) else None
    return text if isinstance(text, str) else ''


def _check_complete(cfg: Config, path: str, content) -> list[str]:
    """Refuse what training cannot go on from; gives lines for the log."""
    if content == {}:
        return []
    anew = ('To start anew from these weights, use `--cfg-options '
            f'load_from={path}` without --resume; to go on with a run, name '
            'one of its epoch_N.pth or iter_N.pth.')
    if not isinstance(content, dict) or not {'meta', 'message_hub'
                                             } <= content.keys():
        raise ValueError(
            f'--resume: {path} holds weights alone, as a published file does, '
            f'and not where in a run they are from. {anew}')
    lost = [
        name for key, name in (('optimizer', 'the optimizer'),
                               ('param_schedulers', 'the schedule'))
        if key not in content and (key == 'optimizer'
                                   or cfg.get('param_scheduler'))
    ]
    if 'the schedule' in lost:
        raise ValueError(
            f'--resume: {path} does not hold the state of '
            f'{" and of ".join(lost)}, as the best checkpoint does not: they '
            f'would start anew in the middle of the training. {anew}')
    return [f'{path} does not hold the state of {name}, which starts anew'
            for name in lost]


def _keep_seed(cfg: Config, content) -> None:
    """Go on with the seed of a run, where the config names none."""
    randomness = dict(cfg.get('randomness') or {})
    seed = (content.get('meta') or {}).get('seed')
    if seed is not None and randomness.get('seed') is None:
        cfg.randomness = dict(randomness, seed=seed)


@contextmanager
def tells_how_to_go_on(work_dir: str) -> Iterator[None]:
    """Let Ctrl-C say which checkpoint of a folder a training goes on from."""
    try:
        yield
    except KeyboardInterrupt:
        found, _ = find_checkpoint(work_dir)
        raise KeyboardInterrupt(
            f'; --resume goes on from {found}' if found else
            '; no checkpoint was written yet') from None

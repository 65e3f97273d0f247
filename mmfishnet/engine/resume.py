# Copyright (c) mmfishnet authors. All rights reserved.
"""Which checkpoint a training goes on from."""
from __future__ import annotations

import os.path as osp
import re
import zipfile
from glob import escape, glob

from mmengine.config import Config
from mmengine.runner import find_latest_checkpoint

from ..checkpoints.pretrained import is_missing
from ..checkpoints.read import is_damaged

# What a run that was told to end leaves, in the middle of an epoch or not.
STOPPED = 'stopped.pth'


def set_resume(cfg: Config,
               resume: str | None) -> tuple[str | None, list[str]]:
    """Decide from which checkpoint training goes on.

    Args:
        cfg (Config): Config, changed in place.
        resume (str, optional): Value of --resume: a checkpoint, 'auto' for
            the latest one of the work directory, or None for what the config
            says.

    Returns:
        tuple[str | None, list[str]]: The checkpoint, or None if training
        starts anew, and lines for the log.
    """
    if resume is None and not cfg.get('resume'):
        return None, []
    cfg.resume = True
    if resume not in (None, 'auto'):
        cfg.load_from = resume
    if resume != 'auto' and cfg.get('load_from') is not None:
        return cfg.load_from, []

    checkpoint, notes = find_checkpoint(cfg.work_dir)
    if checkpoint is None:
        # Start as without --resume, from load_from if the config has one.
        cfg.resume = False
        notes.append(f'no checkpoint in {cfg.work_dir}: training starts from '
                     'the beginning')
    else:
        # None where MMEngine finds the same: the config that it leaves in
        # the work directory then does not name this checkpoint for good.
        cfg.load_from = checkpoint if notes else None
    return checkpoint, [f'--resume: {note}' for note in notes]


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
            check_checkpoint(path)
        except (FileNotFoundError, ValueError) as error:
            notes.append(str(error))
            continue
        if path != last:
            notes.append(f'going on from {path}')
        return path, notes
    return None, notes


def keep_seed(cfg: Config, checkpoint: str) -> None:
    """Go on with the seed of a run, where the config names none.

    Args:
        cfg (Config): Config, changed in place.
        checkpoint (str): Checkpoint of the run.
    """
    randomness = dict(cfg.get('randomness') or {})
    seed = re.search(r'\brandomness = dict\([^)]*\bseed=(\d+)',
                     config_text(checkpoint))
    if seed and randomness.get('seed') is None:
        cfg.randomness = dict(randomness, seed=int(seed[1]))


def config_text(checkpoint: str) -> str:
    """Find the config that a run of MMEngine left in its checkpoint.

    Neither is the file loaded nor the text executed: both could run code.

    Args:
        checkpoint (str): Path or URL.

    Returns:
        str: What is in the file besides tensors, the config's text among it;
        nothing if it is no file, or not of torch's format.
    """
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            name, = (name for name in archive.namelist()
                     if name.endswith('data.pkl'))
            return archive.read(name).decode('utf-8', errors='replace')
    except (OSError, ValueError, zipfile.BadZipFile):
        return ''


def check_checkpoint(checkpoint: str) -> None:
    """Check that a checkpoint is there and was written to its end.

    Args:
        checkpoint (str): Path or URL; a URL is left alone.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged.
    """
    if is_missing(checkpoint):
        raise FileNotFoundError(
            f'the checkpoint {checkpoint} does not exist.')
    checkpoint = osp.expanduser(checkpoint)
    if not osp.isfile(checkpoint):
        return
    if is_damaged(checkpoint):
        raise ValueError(
            f'the checkpoint {checkpoint} is damaged or cut short, as a '
            'process leaves it that is killed while it saves.')

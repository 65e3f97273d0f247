# Copyright (c) mmfishnet authors. All rights reserved.
"""What a training left in its work folder: the one place that reads it.

MMEngine writes a folder named by the time for each start of a training, with
config, log and scalars in it, and checkpoints beside them.
"""
from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from glob import escape, glob
from pathlib import Path

from mmengine.config import Config

from .words import first_few

# What a run that was told to end leaves, in the middle of an epoch or not.
STOPPED = 'stopped.pth'
# What stands in a line of the log beside the values.
PLACE = ('step', 'iter', 'epoch', 'data_time', 'time', 'memory')


@dataclass
class Run:
    """A training, all of its parts if it was resumed.

    Attributes:
        name (str): Name of the work folder; :func:`read_runs` makes those of
            several different.
        folder (Path): The work folder.
        config (Config): The config as it was run.
        train (list[dict]): Logged training iterations, in their order.
        val (list[dict]): Logged evaluations, in their order. Losses of the
            validation set have the names that they have in the training.
        tests (list[dict]): Results of tools/test.py, in their order.
        checkpoint (str, optional): The last checkpoint.
        environment (str): What MMEngine logged of system and versions.
        parts (int): How many of its starts logged something; tests are none.
    """
    name: str
    folder: Path
    config: Config
    train: list[dict] = field(default_factory=list)
    val: list[dict] = field(default_factory=list)
    tests: list[dict] = field(default_factory=list)
    checkpoint: str | None = None
    environment: str = ''
    parts: int = 0

    @property
    def metrics(self) -> dict[str, float]:
        """The last value of all that was evaluated, without losses."""
        return {name: value for entry in self.val
                for name, value in values_in(entry).items()
                if 'loss' not in name}

    @property
    def unit(self) -> str:
        """What the run's length is counted in: 'epoch' or 'iteration'."""
        cfg = self.config.get('train_cfg') or {}
        return 'iteration' if 'max_iters' in cfg else 'epoch'

    @cached_property
    def _epochs(self) -> tuple[float, bool]:
        """Iterations in an epoch, and whether steps of ``val`` are epochs."""
        first = {}
        for entry in self.train:
            first.setdefault(entry.get('epoch', 1), entry['iter'])
        low, high = min(first, default=1), max(first, default=1)
        length = max((e['iter'] / max(1, low) for e in self.train), default=1)
        if high > low:  # first lines of epochs are at the same place in them
            length = (first[high] - first[low]) / (high - low)
        return max(1, round(length)), not first or all(
            entry['step'] <= max(1, high) for entry in self.val)

    def place(self, entry: Mapping) -> float:
        """Where a line of ``train`` or ``val`` belongs, in epochs or
        iterations."""
        if self.unit == 'iteration':
            return entry['iter']
        length, by_epoch = self._epochs
        return entry['step'] if by_epoch and 'epoch' not in entry else (
            entry['iter'] / length)

    def evaluation_of(self, meta: Mapping) -> dict[str, float]:
        """The run's own evaluation of the checkpoint with this ``meta``,
        empty if there is none."""
        place = meta.get('epoch' if self.unit == 'epoch' else 'iter')
        found = [entry for entry in self.val if self.place(entry) == place]
        return values_in(found[-1]) if found else {}


def values_in(entry: Mapping) -> dict[str, float]:
    """The numbers in a line of a log or in a test's result, without time,
    memory and place."""
    return {key: value for key, value in entry.items()
            if isinstance(value, (int, float)) and key not in PLACE}


def read_run(folder: str | os.PathLike) -> Run:
    """Read what a training, or a test, left in its work folder.

    The folder may have been moved or copied from elsewhere. A line that was
    not written to its end is left out. What a part that was resumed did again
    replaces what the part before it did.

    Args:
        folder (str | os.PathLike): ``--work-dir`` of tools/train.py or
            tools/test.py, or of MMEngine's own.

    Returns:
        Run: What is there.

    Raises:
        FileNotFoundError: If the folder is not there, holds no run, or no
            config.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f'the folder {folder} does not exist.')
    parts = _parts(folder)
    if not parts:
        below = [str(path) for path in sorted(folder.iterdir())
                 if path.is_dir() and _parts(path)]
        raise FileNotFoundError(
            f'{folder} is not the work folder of a run: it has no '
            'TIME/vis_data, which tools/train.py and tools/test.py leave in '
            'their --work-dir' + (f'; such are below it: {first_few(below)}.'
                                  if below else '.'))
    run = Run(folder.resolve().name, folder, Config())
    configs = sorted(folder.glob('*.py'), key=os.path.getmtime)
    for part in parts:
        train, val = _read_scalars(part / 'vis_data/scalars.json')
        run.parts += bool(train or val)
        first = train[0]['iter'] if train else math.inf
        again = {entry['step'] for entry in val} - {0}
        dumped = part / 'vis_data/config.py'
        # A later test in the folder has its own.
        if dumped.is_file() and (train or not run.train):
            configs.append(dumped)
        run.train = [e for e in run.train if e['iter'] < first] + train
        run.val = [e for e in run.val if e['iter'] < first
                   and e['step'] not in again] + val
        for path in sorted(part.glob('*.json')):
            with suppress(ValueError, TypeError):
                run.tests.append(dict(json.loads(path.read_text())))
    if not configs:
        raise FileNotFoundError(f'there is no config in {folder}.')
    # What it imports need not be here to read what was logged.
    run.config = Config.fromfile(configs[-1], import_custom_modules=False)
    run.checkpoint = next(iter(checkpoints_in(folder)), None)
    for log in sorted(parts[-1].glob('*.log')):
        run.environment = _environment(log)
    return run


def read_runs(folders: Sequence[str | os.PathLike]) -> list[Run]:
    """Read several runs, under names that tell them apart.

    Args:
        folders (Sequence[str | os.PathLike]): Work folders, each read once.

    Returns:
        list[Run]: Where folders have one name, so much of their paths is the
        runs' name as tells them apart.

    Raises:
        FileNotFoundError: As :func:`read_run`.
    """
    runs = {Path(f).expanduser().resolve(): f for f in folders}
    runs = {path: read_run(folder) for path, folder in runs.items()}
    for path, run in runs.items():
        same = [p for p in runs if p != path and p.name == path.name]
        depth = 1
        while any(p.parts[-depth:] == path.parts[-depth:] for p in same):
            depth += 1
        run.name = '/'.join(path.parts[-depth:])
    return list(runs.values())


def checkpoints_in(folder: str | os.PathLike) -> list[str]:
    """Find the checkpoints of a run that it could go on from.

    Args:
        folder (str | os.PathLike): The work folder.

    Returns:
        list[str]: First the one that MMEngine noted in ``last_checkpoint``
        (where the folder was moved or copied, the file of this name in it),
        then the others, the newest first. Whether they are whole is not
        looked at.
    """
    folder = str(folder)
    found = sorted(
        (path for name in ('epoch_*.pth', 'iter_*.pth', STOPPED)
         for path in glob(os.path.join(escape(folder), name))),
        key=os.path.getmtime, reverse=True)
    try:
        noted = Path(folder, 'last_checkpoint').read_text().strip()
    except OSError:
        return found
    here = os.path.join(folder, re.split(r'[/\\]', noted)[-1])
    last = here if os.path.isfile(here) else noted
    # One that is not in a folder here, MMEngine knows how to get.
    found = [last] * (os.path.exists(last) or '://' in last) + found
    return list(dict.fromkeys(found))


def config_in(checkpoint, source: str | os.PathLike) -> Config:
    """The config that a run of MMEngine left in its checkpoint.

    Args:
        checkpoint (dict): What the file holds, as
            :func:`mmfishnet.checkpoints.read_checkpoint` returns it.
        source (str | os.PathLike): The file, for messages.

    Returns:
        Config: The config.

    Raises:
        ValueError: If there is none.
    """
    meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
    text = meta.get('cfg') if isinstance(meta, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise ValueError(
            f'{source} carries no config, as checkpoints of a run of MMEngine '
            'do in meta.cfg.')
    return Config.fromstring(text, '.py')


def _parts(folder: Path) -> list[Path]:
    """One folder for each time that it was started, named by the time."""
    return sorted({path.parent.parent for name in ('scalars.json', 'config.py')
                   for below in ('', '*/')
                   for path in folder.glob(f'{below}vis_data/{name}')})


def _read_scalars(path: Path) -> tuple[list[dict], list[dict]]:
    """Iterations and evaluations of one part."""
    train, val = {}, {}
    lines = path.read_text(errors='replace') if path.is_file() else ''
    for line in lines.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:  # the process was killed, or the disk was full
            continue
        # With log_with_hierarchy, names begin with the mode.
        entry = {re.sub(r'^(train|val)/|^val_(?=.*loss)', '', key): value
                 for key, value in entry.items()}
        if 'iter' in entry or 'lr' in entry:
            train[entry.setdefault('iter', entry.get('step'))] = entry
        elif 'step' in entry:
            # By MMEngine's default step is the epoch, which stays at 0 where
            # a run counts iterations.
            before = max(train, default=0)
            entry['iter'] = max(before, entry['step'])
            val.setdefault((before, entry['step']), {}).update(entry)
    return list(train.values()), list(val.values())


def _environment(log: Path) -> str:
    """MMEngine's block between lines of dashes, without compiler flags."""
    found = re.search(
        r'-{20,}\s*\n(System environment:.*?Runtime environment:.*?)\n-{20,}',
        log.read_text('utf-8', errors='replace'), re.DOTALL)
    lines = found[1].splitlines() if found else ()
    return '\n'.join(line for line in lines if line.strip()
                     and len(line) < 160 and not re.match(r'\s+- ', line))

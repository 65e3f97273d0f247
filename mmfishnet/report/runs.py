# Copyright (c) mmfishnet authors. All rights reserved.
"""What a training left in its work directory."""
from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import find_latest_checkpoint


@dataclass
class Run:
    """A training, all of its parts if it was resumed.

    Attributes:
        name (str): Name of the work directory.
        folder (Path): The work directory.
        config (Config): The config as it was run.
        train (list[dict]): Logged training iterations, by iteration.
        val (list[dict]): Logged evaluations, by epoch or iteration.
        checkpoint (str, optional): The last checkpoint.
        environment (str): What MMEngine logged of system and versions.
        parts (int): How often it was started.
    """
    name: str
    folder: Path
    config: Config
    train: list[dict]
    val: list[dict]
    checkpoint: str | None
    environment: str = ''
    parts: int = 1
    metrics: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        keys = [key for entry in self.val for key in entry if '/' in key]
        self.metrics = tuple(dict.fromkeys(keys))

    def last(self, metric: str) -> float | None:
        """The last value of a metric, None if it was never logged."""
        values = [entry[metric] for entry in self.val if metric in entry]
        return values[-1] if values else None

    @property
    def clip(self) -> tuple[float, float] | None:
        """Gradient clipping: its norm and its last epoch, None for none."""
        clip = self.config.get('optim_wrapper', {}).get('clip_grad')
        if not clip:
            return None
        ends = [
            hook.end for hook in self.config.get('custom_hooks') or ()
            if str(hook.get('type')).endswith('ClipGradUntilHook')
        ]
        return clip.get('max_norm', clip.get('clip_value')), min(
            ends, default=float('inf'))


def read_run(folder: str | Path) -> Run:
    """Read the logs, the config and the checkpoint of a run.

    Args:
        folder (str | Path): The work directory that ``tools/train.py`` wrote.

    Returns:
        Run: What is there.

    Raises:
        FileNotFoundError: If there is no log or no config in the folder.
    """
    folder = Path(folder)
    logs = sorted(folder.glob('*/vis_data/scalars.json'))
    if not logs:
        raise FileNotFoundError(
            f'{folder} is not the work directory of a training: there is no '
            'TIME/vis_data/scalars.json in it.')
    train, val, config = {}, {}, None
    for log in logs:
        entries = [json.loads(line) for line in log.open() if line.strip()]
        started = [e['iter'] for e in entries if 'loss' in e]
        if started:
            # That in the work directory may be a later test's.
            if log.with_name('config.py').exists():
                config = log.with_name('config.py')
            # A part that went on from an earlier checkpoint replaces what
            # the part before did after it.
            train = {i: e for i, e in train.items() if i < started[0]}
        for entry in entries:
            if 'loss' in entry:
                train[entry['iter']] = entry
            elif any('/' in key for key in entry):
                val[entry['step']] = entry
    if config is None:
        config = max(folder.glob('*.py'), default=None,
                     key=lambda path: path.stat().st_mtime)
    if config is None:
        raise FileNotFoundError(f'there is no config in {folder}.')
    texts = sorted(logs[-1].parents[1].glob('*.log'))
    return Run(
        name=folder.resolve().name,
        folder=folder,
        config=Config.fromfile(config),
        train=[train[i] for i in sorted(train)],
        val=[val[i] for i in sorted(val)],
        checkpoint=find_latest_checkpoint(str(folder)),
        environment=_environment(texts[-1].read_text()) if texts else '',
        parts=len(logs))


def _environment(log: str) -> str:
    """MMEngine's block between lines of dashes, without compiler flags."""
    found = re.search(
        r'-{20,}\s*\n(System environment:.*?Runtime environment:.*?)\n-{20,}',
        log, re.DOTALL)
    if not found:
        return ''
    lines = []
    for line in found.group(1).splitlines():
        if len(line) < 160 and not re.match(r'\s+- ', line):
            lines.append(line)
    return '\n'.join(line for line in lines if line.strip())

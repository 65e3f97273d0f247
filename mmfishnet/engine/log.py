# Copyright (c) mmfishnet authors. All rights reserved.
"""A training log that one can read."""
from __future__ import annotations

import logging
import resource
import sys

from mmengine.device import is_cuda_available
from mmengine.dist import get_world_size
from mmengine.optim import OptimWrapperDict
from mmengine.runner import LogProcessor

from ..registry import LOG_PROCESSORS

# Longer messages are in the file and not on the screen, while it starts.
MAX_LINES = 4


@LOG_PROCESSORS.register_module()
class TrainLogProcessor(LogProcessor):
    """MMEngine's log of an iteration, with what it leaves out.

    Images a second (of all processes), the norm to which gradients are
    clipped at this moment, and without a GPU the memory that the process had
    at most, in MB. They are in ``scalars.json`` and in trackers as well, as
    ``images_per_s``, ``clip_norm`` and ``memory``.

    Args:
        *args: As of :class:`mmengine.runner.LogProcessor`.
        **kwargs: As of :class:`mmengine.runner.LogProcessor`.
    """

    def get_log_after_iter(self, runner, batch_idx: int,
                           mode: str) -> tuple[dict, str]:
        """Describe an iteration.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Index of the batch in its loop.
            mode (str): 'train', 'val' or 'test'.

        Returns:
            tuple[dict, str]: Values by name, and the line for the log.
        """
        tag, line = super().get_log_after_iter(runner, batch_idx, mode)
        if mode != 'train':
            return tag, line
        prefix = 'train/' if self.log_with_hierarchy else ''
        extra = []
        clip = _clip_norm(runner.optim_wrapper)
        if clip is not None:
            tag[f'{prefix}clip_norm'] = clip
            extra.append(f'clipped to: {clip:g}')
        seconds = tag.get(f'{prefix}time')
        batches = getattr(runner.train_dataloader, 'batch_sampler', None)
        batch_size = getattr(batches, 'batch_size', None)
        if seconds and batch_size:
            images = batch_size * get_world_size() / seconds
            tag[f'{prefix}images_per_s'] = images
            extra.append(f'images/s: {images:.1f}')
        if not is_cuda_available():
            memory = _memory()
            tag['memory'] = memory
            extra.append(f'memory: {memory}')
        return tag, '  '.join([line, *extra])


def _clip_norm(wrapper) -> float | None:
    wrappers = (
        wrapper.values() if isinstance(wrapper, OptimWrapperDict) else
        [wrapper])
    norms = [(w.clip_grad_kwargs or {}).get('max_norm') for w in wrappers]
    return min((norm for norm in norms if norm is not None), default=None)


def _memory() -> int:
    """The most memory that this process has had, in MB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most // (1 << 20 if sys.platform == 'darwin' else 1 << 10)


class BriefFormatter(logging.Formatter):
    """Names long messages instead of showing them."""

    def __init__(self, whole: logging.Formatter, where: str | None) -> None:
        super().__init__()
        self.whole = whole
        self.where = where
        self.started = False

    def format(self, record: logging.LogRecord) -> str:
        lines = [
            line for line in record.getMessage().splitlines()
            if line.strip(' -')
        ]
        if self.started or len(lines) <= MAX_LINES:
            return self.whole.format(record)
        title = lines[0].strip().rstrip(':')
        brief = logging.makeLogRecord({
            **record.__dict__, 'args': None,
            'msg': f'{title}: {len(lines) - 1} lines, in {self.where}'
        })
        return self.whole.format(brief)


def __getattr__(name: str):
    if name == 'ReadableRunner':  # as 0.1.0 called it
        from .runner import ToolRunner
        return ToolRunner
    raise AttributeError(f'module {__name__} has no attribute {name!r}')

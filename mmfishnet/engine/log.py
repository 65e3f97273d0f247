# Copyright (c) mmfishnet authors. All rights reserved.
"""A training log that one can read."""
from __future__ import annotations

import logging
import resource
import sys

from mmengine.device import is_cuda_available
from mmengine.dist import get_world_size
from mmengine.runner import LogProcessor

from ..registry import LOG_PROCESSORS
from .hooks.clip_grad import wrappers_of

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
        norms = [(wrapper.clip_grad_kwargs or {}).get('max_norm')
                 for wrapper in wrappers_of(runner)]
        clip = min((norm for norm in norms if norm is not None), default=None)
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
            # The most that this process has had, which macOS counts in bytes.
            most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            memory = most >> (20 if sys.platform == 'darwin' else 10)
            tag['memory'] = memory
            extra.append(f'memory: {memory}')
        return tag, '  '.join([line, *extra])


class BriefFormatter(logging.Formatter):
    """Names long messages instead of showing them, while a run starts.

    Args:
        whole (logging.Formatter): What formats the others.
        where (str, optional): The file that has the long ones.
    """

    def __init__(self, whole: logging.Formatter, where: str | None) -> None:
        super().__init__()
        self.whole = whole
        self.where = where

    def format(self, record: logging.LogRecord) -> str:
        lines = [line for line in record.getMessage().splitlines()
                 if line.strip(' -')]
        if len(lines) > MAX_LINES:
            title = lines[0].strip().rstrip(':')
            record = logging.makeLogRecord({
                **record.__dict__, 'args': None,
                'msg': f'{title}: {len(lines) - 1} lines, in {self.where}'
            })
        return self.whole.format(record)

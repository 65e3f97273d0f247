# Copyright (c) mmfishnet authors. All rights reserved.
from __future__ import annotations

import os
import os.path as osp
from contextlib import suppress

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook

from ...work_dir import STOPPED


class WholeCheckpointHook(CheckpointHook):
    """MMEngine's checkpoint hook, which removes nothing too early.

    MMEngine makes room first, by removing an older checkpoint or the best one
    so far, and saves then: whoever is killed in between, or has a full disk,
    has lost it. Here the new one is saved first. With several processes, the
    running statistics that it saves are the mean of all.

    Args:
        *args: As of :class:`mmengine.hooks.CheckpointHook`.
        **kwargs: As of :class:`mmengine.hooks.CheckpointHook`.
    """

    def before_train(self, runner) -> None:
        """Prepare to save."""
        super().before_train(runner)
        # MMEngine forgets it when a run goes on, and would not note a better
        # score in it.
        last = runner.message_hub.get_info('last_ckpt')
        if last and self.file_backend.exists(last):
            self.last_ckpt = last
        self.file_backend = _LateRemoval(self.file_backend)
        self._made_room = self.last_ckpt

    def after_train_epoch(self, runner) -> None:
        """Save a checkpoint, where one is due."""
        if self.by_epoch:
            runner.average_statistics(runner.iter)
        super().after_train_epoch(runner)
        self._make_room(runner)

    def after_train_iter(self, runner, *args, **kwargs) -> None:
        """Save a checkpoint, where one is due."""
        if not self.by_epoch and (
                self.every_n_train_iters(runner, self.interval,
                                         self.save_begin)
                or self.is_last_train_iter(runner)):
            runner.average_statistics(runner.iter + 1)
        super().after_train_iter(runner, *args, **kwargs)
        self._make_room(runner)

    def after_val_epoch(self, runner, metrics) -> None:
        """Save the best checkpoint so far, if this is it."""
        super().after_val_epoch(runner, metrics)
        self._make_room(runner)

    def _make_room(self, runner) -> None:
        kept = {
            self.last_ckpt,
            getattr(self, 'best_ckpt_path', None),
            *(getattr(self, 'best_ckpt_path_dict', None) or {}).values()
        }
        self.file_backend.remove_now(kept)
        if self.last_ckpt != self._made_room and is_main_process():
            self._made_room = self.last_ckpt
            with suppress(FileNotFoundError):
                os.remove(osp.join(runner.work_dir, STOPPED))


class _LateRemoval:
    """File backend that removes when it is told to."""

    def __init__(self, backend) -> None:
        self._backend = backend
        self._waiting = []

    def __getattr__(self, name: str):
        method = getattr(self._backend, name)
        if name in ('remove', 'rmtree'):
            return lambda path: self._waiting.append((method, path))
        return method

    def remove_now(self, kept: set[str]) -> None:
        """Remove what waits for it, but what was written anew since."""
        for remove, path in self._waiting:
            if path not in kept:
                with suppress(FileNotFoundError):
                    remove(path)
        self._waiting.clear()

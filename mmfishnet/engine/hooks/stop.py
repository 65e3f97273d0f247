# Copyright (c) mmfishnet authors. All rights reserved.
from __future__ import annotations

import os.path as osp
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine import dist
from mmengine.dist import is_main_process
from mmengine.hooks import EMAHook, Hook
from mmengine.optim import AmpOptimWrapper, OptimWrapperDict

from ..errors import RunStopped
from ..resume import STOPPED, find_checkpoint

PATIENCE = 5  # steps that a scaler of losses may need to find its scale


class StopHook(Hook):
    """End a run in order, when a scheduler says so or the loss is lost.

    On SIGTERM a checkpoint is written, in the middle of an epoch if need be,
    and the run ends with status 143. A loss that is infinite or not a number
    ends it before a checkpoint is spoilt: at once or, in mixed precision,
    where a step may be left out, after five steps in a row. All processes
    do either at the same step.
    """

    # After the schedulers, and before a checkpoint is written.
    priority = 80

    def __init__(self) -> None:
        self.signalled = False
        self.lost = 0

    def before_train(self, runner) -> None:
        """See how many steps without a loss there may be."""
        scaled = isinstance(runner.optim_wrapper, AmpOptimWrapper)
        self.patience = PATIENCE if scaled else 1

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen to SIGTERM."""
        # Python lets the main thread alone do this.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, self._listen)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def _listen(self, *args) -> None:
        self.signalled = True

    def after_train_iter(self,
                         runner,
                         batch_idx: int,
                         data_batch=None,
                         outputs=None) -> None:
        """Stop here, if there is a reason to."""
        loss = (outputs or {}).get('loss', 0.)
        finite = bool(torch.as_tensor(loss).detach().isfinite())
        self.lost = 0 if finite else self.lost + 1
        state = torch.tensor([self.signalled, self.lost])
        dist.all_reduce(state, op='max')
        signalled, lost = state.tolist()
        if lost >= self.patience:
            self._give_up(runner, data_batch if self.lost else None)
        # Gradients that are gathered over several steps are not saved, and
        # after the last step there is nothing to go on with.
        optim = runner.optim_wrapper
        updated = isinstance(optim,
                             OptimWrapperDict) or optim.should_update()
        if signalled and updated and runner.iter + 1 < runner.max_iters:
            self._save(runner, dict(epoch=runner.epoch, iter=runner.iter + 1))

    def after_val_iter(self, runner, *args, **kwargs) -> None:
        """Stop here, if the run was told to while it validates."""
        if self.signalled and runner.train_loop is not None:
            for hook in runner.hooks:
                if isinstance(hook, EMAHook):  # swaps the weights back
                    hook.after_val_epoch(runner)
            # Each process by itself: some have more images than others.
            self._save(
                runner,
                dict(epoch=runner.epoch, iter=runner.iter),
                together=False)

    def _save(self, runner, meta: dict, together: bool = True) -> None:
        path = runner.saved.get(meta['iter'])
        if path is None:  # no regular checkpoint of this moment
            path = osp.join(runner.work_dir, STOPPED)
            runner.save_stopped(meta, together)
            if is_main_process():
                note = osp.join(runner.work_dir, 'last_checkpoint')
                with open(note, 'w') as file:
                    file.write(path)
        raise RunStopped(
            f'SIGTERM: the run was told to end, and did so after iteration '
            f'{meta["iter"]}. Its checkpoint is {path}, where --resume goes '
            'on from.', 128 + signal.SIGTERM)

    def _give_up(self, runner, data_batch) -> None:
        samples = []
        if isinstance(data_batch, dict):
            samples = data_batch.get('data_samples') or []
        images = [getattr(sample, 'img_path', '?') for sample in samples]
        images = sum(dist.all_gather_object(images), [])
        last = [find_checkpoint(runner.work_dir)[0]]
        dist.broadcast_object_list(last)
        raise RunStopped(
            'the loss is infinite or not a number '
            f'{f"for {self.patience} steps " if self.patience > 1 else ""}'
            f'at iteration {runner.iter + 1} (epoch {runner.epoch + 1}). The '
            f'images of this step: {", ".join(images) or "not known"}. The '
            'last good checkpoint: ' +
            (f'{last[0]}, where --resume goes on from.' if last[0] else
             'there is none yet.') +
            ' If it is not the data, a lower learning rate, a longer warm-up '
            'or optim_wrapper.clip_grad help.')

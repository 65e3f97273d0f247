# Copyright (c) mmfishnet authors. All rights reserved.
from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from multiprocessing.sharedctypes import RawValue

import torch
from mmengine import dist
from mmengine.hooks import EMAHook, Hook
from mmengine.optim import AmpOptimWrapper, OptimWrapperDict
from torch.utils.data import DataLoader

from ..errors import RunStopped
from .resume import find_checkpoint

PATIENCE = 5  # steps that may be left out in mixed precision, one by one
GRACE = 60  # seconds that a process that loads data outlives SIGTERM


class StopHook(Hook):
    """End a run in order, when a scheduler says so or the loss is lost.

    On SIGTERM a checkpoint is written, in the middle of an epoch if need be,
    and the run ends with status 143. A loss that is infinite or not a number
    ends it once that has come to the weights or, in mixed precision, which
    leaves such steps out, after five in a row; no checkpoint is spoilt by it.
    All processes do either at the same step.
    """

    # After the schedulers, and before a checkpoint is written.
    priority = 80

    def __init__(self) -> None:
        self.signalled = False
        self.lost = 0
        # Whether the training is over; processes that load data see it.
        self.over = RawValue('b', False)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen to SIGTERM, in this process alone."""
        own = os.getpid()
        before = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL

        def listen(*args) -> None:
            if os.getpid() == own:
                self.signalled = True
            else:  # forked from this one: it obeys as ever
                signal.signal(signal.SIGTERM, before)
                signal.raise_signal(signal.SIGTERM)

        # Python lets the main thread alone do this.
        main = threading.current_thread() is threading.main_thread()
        if main:
            signal.signal(signal.SIGTERM, listen)
        try:
            yield
        finally:
            self.over.value = True
            if main:
                signal.signal(signal.SIGTERM, before)

    def before_train(self, runner) -> None:
        """Have the processes that load data survive the signal."""
        for loop in (runner.train_loop, runner.val_loop):
            loader = getattr(loop, 'dataloader', None)
            if isinstance(loader, DataLoader) and loader.num_workers > 0:
                loader.worker_init_fn = partial(
                    start_worker, loader.worker_init_fn, self.over)

    def after_train_iter(self,
                         runner,
                         batch_idx: int,
                         data_batch=None,
                         outputs=None) -> None:
        """Stop here, if there is a reason to."""
        loss = (outputs or {}).get('loss', 0.)
        finite = bool(torch.as_tensor(loss).detach().isfinite().all())
        self.lost = 0 if finite else self.lost + 1
        hopeless = not finite and (
            isinstance(runner.optim_wrapper, AmpOptimWrapper)
            and self.lost >= PATIENCE or _is_spoilt(runner.model))
        state = torch.tensor([self.signalled, hopeless])
        dist.all_reduce(state, op='max')
        signalled, hopeless = state.tolist()
        if hopeless:
            self._give_up(runner, None if finite else data_batch)
        # Gradients that are gathered over several steps are not saved, and
        # after the last step there is nothing to go on with.
        optim = runner.optim_wrapper
        updated = isinstance(optim,
                             OptimWrapperDict) or optim.should_update()
        if signalled and updated and runner.iter + 1 < runner.max_iters:
            self._save(runner, dict(epoch=runner.epoch, iter=runner.iter + 1))

    def after_val_iter(self, runner, *args, **kwargs) -> None:
        """Stop here, if the run was told to while it validates.

        Each process does so by itself, as some have more images than others.
        Where there is no checkpoint of this moment yet, none goes before the
        first one, which writes it: that may be waiting for their results, and
        would find them gone.
        """
        if self.signalled and (dist.is_main_process()
                               or runner.iter in runner.saved):
            for hook in runner.hooks:
                if isinstance(hook, EMAHook):  # swaps the weights back
                    hook.after_val_epoch(runner)
            self._save(
                runner,
                dict(epoch=runner.epoch, iter=runner.iter),
                together=False)

    def _save(self, runner, meta: dict, together: bool = True) -> None:
        path = runner.save_stopped(meta, together)
        raise RunStopped(
            'SIGTERM: the run was told to end, and did so after iteration '
            f'{meta["iter"]}. Its checkpoint is {path}, where --resume goes '
            'on from.', 128 + signal.SIGTERM)

    def _give_up(self, runner, data_batch) -> None:
        samples = data_batch.get('data_samples') if isinstance(
            data_batch, dict) else None
        images = [getattr(sample, 'img_path', '?') for sample in samples or ()]
        images = sum(dist.all_gather_object(images), [])
        last = [find_checkpoint(runner.work_dir)[0]]
        dist.broadcast_object_list(last)
        raise RunStopped(
            'the loss is infinite or not a number '
            f'{f"for {self.lost} steps " if self.lost > 1 else ""}'
            f'at iteration {runner.iter + 1} (epoch {runner.epoch + 1}). The '
            f'images of this step: {", ".join(images) or "not known"}. The '
            'last good checkpoint: ' +
            (f'{last[0]}, where --resume goes on from.' if last[0] else
             'there is none yet.') +
            ' If it is not the data, a lower learning rate, a longer warm-up '
            'or optim_wrapper.clip_grad help.')


def _is_spoilt(model: torch.nn.Module) -> bool:
    """Whether a weight or a running statistic is not finite."""
    return not all(
        bool(tensor.isfinite().all())
        for tensor in chain(model.parameters(), model.buffers())
        if tensor.is_floating_point())


def start_worker(start: Callable[[int], None] | None, over,
                 worker_id: int) -> None:
    """Start a process that loads data: what the loader does, and one thing.

    A scheduler that ends a job sends SIGTERM to all its processes. The main
    one then still ends its step and writes a checkpoint, and must not lose
    its workers before: they end when the training is over, by the signal that
    Python sends them, or a minute later.

    Args:
        start (Callable, optional): The loader's own ``worker_init_fn``.
        over (ctypes.c_byte): Whether the training is over.
        worker_id (int): Number of the process.
    """

    def end(*args) -> None:
        if over.value:
            os._exit(0)
        signal.alarm(GRACE)

    if hasattr(signal, 'alarm'):
        signal.signal(signal.SIGTERM, end)
    if start is not None:
        start(worker_id)

# Copyright (c) mmfishnet authors. All rights reserved.
"""MMEngine's training loops, which can go on in the middle of an epoch."""
from __future__ import annotations

from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from torch.utils.data import DataLoader

from .randomness import PlacedBatches, placed


class EpochLoop(EpochBasedTrainLoop):
    """Loop by epochs.

    Args:
        runner (Runner): The runner.
        dataloader (dict | DataLoader): Dataloader or its config; what is
            built already goes on at the begin of an epoch only.
        **kwargs: As of MMEngine's loop.
    """

    def __init__(self, runner, dataloader, **kwargs) -> None:
        super().__init__(runner, placed(dataloader, runner.seed), **kwargs)
        self.first_batch = 0
        self.batches_done = 0  # of an epoch that is not at its end

    def run_epoch(self) -> None:
        """Train for the epoch, or for what is left of it."""
        first, self.first_batch = self.first_batch, 0
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        if isinstance(self.dataloader.batch_sampler, PlacedBatches):
            self.dataloader.batch_sampler.begin(self._epoch, first)
        for number, batch in enumerate(self.dataloader, first):
            self.batches_done = number + 1
            self.run_iter(number, batch)
        self.batches_done = 0
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def validation_is_due(self) -> bool:
        """bool: Whether the loop validates where it stands now."""
        return self._epoch >= self.val_begin and (
            self._epoch % self.val_interval == 0
            or self._epoch == self._max_epochs)


class IterLoop(IterBasedTrainLoop):
    """Loop by iterations.

    Args:
        runner (Runner): The runner.
        dataloader (dict | DataLoader): Dataloader or its config; with one
            that is built already, what was trained is loaded again to find
            the place.
        **kwargs: As of MMEngine's loop.
    """

    batches_done = 0  # the place in the data is the iteration

    def __init__(self, runner, dataloader, **kwargs) -> None:
        super().__init__(runner, placed(dataloader, runner.seed), **kwargs)

    def run(self):
        """Train."""
        if isinstance(self.dataloader.batch_sampler, PlacedBatches):
            self.dataloader_iterator = _Endless(self.dataloader, self._iter)
        return super().run()

    def validation_is_due(self) -> bool:
        """bool: Whether the loop validates where it stands now."""
        return self._iter >= self.val_begin and (
            self._iter % self.val_interval == 0
            or self._iter == self._max_iters)


class _Endless:
    """Batches without an end, from the one after ``done``.

    The loop skips what was trained before by ``skip_iter`` or, in older
    versions of MMEngine, by that many calls of ``next``; nothing is loaded.
    """

    def __init__(self, dataloader: DataLoader, done: int) -> None:
        self._dataloader = dataloader
        self._epoch = 0
        self._to_skip = done
        self._batches = None
        dataloader.batch_sampler.begin(0, done)

    def skip_iter(self, num_iters: int) -> None:
        self._to_skip -= num_iters

    def __iter__(self):
        return self

    def __next__(self):
        if self._to_skip > 0:
            self._to_skip -= 1
            return None
        while True:
            if self._batches is None:
                self._batches = iter(self._dataloader)
            try:
                return next(self._batches)
            except StopIteration:
                self._batches = None
                self._epoch += 1
                sampler = self._dataloader.batch_sampler
                sampler.begin(self._epoch, sampler.skipped)

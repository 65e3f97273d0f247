# Copyright (c) mmfishnet authors. All rights reserved.
"""MMEngine's training loops, which can go on in the middle of an epoch."""
from __future__ import annotations

from collections.abc import Iterator

from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from torch.utils.data import DataLoader

from .place import UNPLACED, place


class ExactEpochLoop(EpochBasedTrainLoop):
    """Loop by epochs.

    Args:
        runner (Runner): The runner.
        dataloader (dict | DataLoader): Dataloader or its config.
        **kwargs: As of MMEngine's loop.
    """

    def __init__(self, runner, dataloader, **kwargs) -> None:
        super().__init__(runner, dataloader, **kwargs)
        self.placed = _place(self)
        self.first_batch = 0
        self.batches_done = 0  # of an epoch that is not at its end

    def run_epoch(self) -> None:
        """Train for the epoch, or for what is left of it."""
        first, self.first_batch = self.first_batch, 0
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        if self.placed:
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


class ExactIterLoop(IterBasedTrainLoop):
    """Loop by iterations.

    Args:
        runner (Runner): The runner.
        dataloader (dict | DataLoader): Dataloader or its config.
        **kwargs: As of MMEngine's loop.
    """

    batches_done = 0  # the place in the data is the iteration

    def __init__(self, runner, dataloader, **kwargs) -> None:
        super().__init__(runner, dataloader, **kwargs)
        self.placed = _place(self)

    def run(self):
        """Train; batches that are skipped are not loaded."""
        if not self.placed:
            return super().run()
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        skips = not getattr(self, 'fast_forward_on_resume', False)
        self.dataloader_iterator = _endless(
            self.dataloader, self._iter if skips else 0)
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            self._decide_current_val_interval()
            if self.runner.val_loop is not None and self.validation_is_due():
                self.runner.val_loop.run()
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model

    def validation_is_due(self) -> bool:
        """bool: Whether the loop validates where it stands now."""
        return self._iter >= self.val_begin and (
            self._iter % self.val_interval == 0
            or self._iter == self._max_iters)


def _place(loop) -> bool:
    placed = place(loop.dataloader, loop.runner.seed)
    if not placed:
        loop.runner.logger.info(UNPLACED)
    return placed


def _endless(dataloader: DataLoader, first: int) -> Iterator:
    """Batches without an end, from the one of this number on."""
    batches, epoch = dataloader.batch_sampler, 0
    batches.begin(epoch, first)
    while True:
        yield from dataloader
        epoch += 1
        # Where an epoch has fewer than are skipped, the next has the others.
        batches.begin(epoch, batches.skipped)

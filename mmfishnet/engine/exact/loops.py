# Copyright (c) mmfishnet authors. All rights reserved.
"""MMEngine's training loops, which can go on in the middle of an epoch."""
from __future__ import annotations

from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from torch.utils.data import DataLoader

from .place import UNPLACED, is_placed, place


class ExactEpochLoop(EpochBasedTrainLoop):
    """Loop by epochs.

    Args:
        runner (Runner): The runner.
        dataloader (dict | DataLoader): Dataloader or its config.
        **kwargs: As of MMEngine's loop.
    """

    def __init__(self, runner, dataloader, **kwargs) -> None:
        super().__init__(runner, dataloader, **kwargs)
        _place(self)
        self.first_batch = 0
        self.batches_done = 0  # of an epoch that is not at its end

    def run_epoch(self) -> None:
        """Train for the epoch, or for what is left of it."""
        first, self.first_batch = self.first_batch, 0
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        if is_placed(self.dataloader):
            self.dataloader.batch_sampler.begin(self._epoch, first)
        for number, batch in enumerate(self.dataloader, first):
            self.batches_done = number + 1
            self.run_iter(number, batch)
        self.batches_done = 0
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def go_on(self, batches_done: int) -> None:
        """Begin the next epoch after so many of its batches."""
        self.first_batch = batches_done

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
        _place(self)

    def run(self):
        """Train."""
        if is_placed(self.dataloader):
            # MMEngine 0.10.7 skips by as many calls of next().
            newer = hasattr(self, 'fast_forward_on_resume')
            self.dataloader_iterator = _Endless(self.dataloader,
                                                0 if newer else self._iter)
        return super().run()

    def go_on(self, batches_done: int) -> None:
        """Nothing: MMEngine's loop skips what its iterations say."""

    def validation_is_due(self) -> bool:
        """bool: Whether the loop validates where it stands now."""
        return self._iter >= self.val_begin and (
            self._iter % self.val_interval == 0
            or self._iter == self._max_iters)


def _place(loop) -> None:
    if not place(loop.dataloader, loop.runner.seed):
        loop.runner.logger.info(UNPLACED)


class _Endless:
    """Batches without an end, of which the first are skipped unloaded.

    Args:
        dataloader (DataLoader): A loader that knows its places.
        calls (int): First calls of ``next`` that each skip a batch.
    """

    def __init__(self, dataloader: DataLoader, calls: int) -> None:
        self._dataloader = dataloader
        self._epoch = 0
        self._batches = None
        self._calls = calls
        self.skip_iter(calls)

    def skip_iter(self, num_iters: int) -> None:
        self._dataloader.batch_sampler.begin(0, num_iters)

    def __iter__(self):
        return self

    def __next__(self):
        if self._calls > 0:
            self._calls -= 1
            return None
        while True:
            if self._batches is None:
                self._batches = iter(self._dataloader)
            try:
                return next(self._batches)
            except StopIteration:
                self._batches = None
                self._epoch += 1
                batches = self._dataloader.batch_sampler
                batches.begin(self._epoch, batches.skipped)

# Copyright (c) mmfishnet authors. All rights reserved.
"""Randomness that depends on the seed and the place in the run alone.

MMEngine seeds once, and what a run draws later depends on all that was drawn
before: a run that is resumed in the middle goes another way. Here each step
and each sample is seeded by where it stands (iteration; epoch, batch, place
in the batch) and by the rank. So a resumed run goes on as if it had never
stopped, and the number of workers that load the data makes no difference.
"""
from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.logging import print_log
from torch.utils.data import DataLoader

_STEP, _VALIDATION, _SAMPLE = range(3)
UNPLACED = ('The training loader gives no lists of indices, so its samples '
            'cannot be drawn by their place: a resumed run draws others.')


class PlacedBatch(list):
    """Indices of a batch that seed the generators while they are taken.

    A loader takes them one by one where it loads the samples, in a worker or
    in this process, so each sample draws what its place says. The generators
    are then as they were.

    Args:
        indices (Iterable[int]): Indices of samples.
        place (tuple[int, ...]): Seed of the run, rank, epoch and batch.
    """

    def __init__(self, indices, place: tuple[int, ...]) -> None:
        super().__init__(indices)
        self.place = place

    def __iter__(self) -> Iterator[int]:
        seed, *place = self.place
        with kept_generators():
            for i, index in enumerate(super().__iter__()):
                seed_here(seed, _SAMPLE, *place, i, gpu=False)
                yield index

    def __reduce__(self):
        # list's own way would iterate, and seed.
        return PlacedBatch, (list(super().__iter__()), self.place)


def place(loader: DataLoader, seed: int) -> bool:
    """Have the samples of a loader drawn by their place.

    The loader, its data set and its samplers stay the objects that they are;
    the batch sampler becomes one of a class derived from its own, with a
    method ``begin``.

    Args:
        loader (DataLoader): The loader.
        seed (int): Seed of the run.

    Returns:
        bool: Whether it could be done. A loader without batches of indices,
        of a stream or of single samples, is left as it is.
    """
    batches = getattr(loader, 'batch_sampler', None)
    if batches is None or not hasattr(batches, 'sampler'):
        return False
    if not hasattr(batches, 'run_seed'):
        try:
            batches.__class__ = _placed(type(batches))
        except TypeError:  # its memory has another layout
            return False
    batches.run_seed = seed
    batches.begin(0)
    return True


def _placed(kind: type) -> type:
    """Derive a class of batch samplers whose batches know their place."""

    def begin(self, epoch: int, batch: int = 0) -> None:
        """Say where the next iteration begins.

        Args:
            epoch (int): Epoch, from 0.
            batch (int): Batches of it that are left out. Where the epoch has
                fewer, the rest is left out of the next. Defaults to 0.
        """
        self.epoch, self.skipped = epoch, batch
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[list[int]]:
        place = self.run_seed, get_rank(), self.epoch
        for number, batch in enumerate(kind.__iter__(self)):
            if self.skipped > 0:
                self.skipped -= 1
            elif isinstance(batch, (list, tuple)):
                yield PlacedBatch(batch, (*place, number))
            else:
                if not self.said:
                    print_log(UNPLACED, 'current')
                    self.said = True
                yield batch

    # Not a mixin: objects may not change to a class with another base.
    return type(kind.__name__, (kind, ),
                dict(begin=begin, __iter__=__iter__, said=False))


class SeedHook(Hook):
    """Seed each step of the training and each validation by its iteration."""

    priority = 'HIGHEST'

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Seed this step."""
        self._seed(runner, _STEP)

    def before_val_epoch(self, runner) -> None:
        """Seed this validation."""
        self._seed(runner, _VALIDATION)

    def _seed(self, runner, what: int) -> None:
        place = (what, runner.iter)
        if (runner.cfg.get('randomness') or {}).get('diff_rank_seed'):
            place += (get_rank(), )
        seed_here(runner.seed, *place)


@contextmanager
def kept_generators() -> Iterator[None]:
    """Leave the generators of this process as they were, but for GPUs'."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def seed_here(seed: int, *place: int, gpu: bool = True) -> None:
    """Seed Python's, NumPy's and torch's generators.

    Args:
        seed (int): Seed of the run.
        *place (int): Where in the run this is.
        gpu (bool): Whether to seed the generators of GPUs, too.
            Defaults to True.
    """
    words = np.random.SeedSequence((seed, *place)).generate_state(3)
    for_python, for_numpy, for_torch = words.tolist()
    random.seed(for_python)
    np.random.seed(for_numpy)
    if gpu:
        torch.manual_seed(for_torch)
    else:
        torch.default_generator.manual_seed(for_torch)

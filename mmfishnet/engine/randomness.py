# Copyright (c) mmfishnet authors. All rights reserved.
"""Randomness that depends on the seed and the place in the run alone.

MMEngine seeds once, and what a run draws later depends on all that was drawn
before: a run that is resumed in the middle goes another way. Here each step
and each sample is seeded by where it stands (iteration; epoch, batch, place
in the batch) and by the rank. So nothing has to be kept in a checkpoint, a
resumed run goes on as if it had never stopped, and the number of workers that
load the data makes no difference.
"""
from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.dataset import worker_init_fn
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import DATA_SAMPLERS, DATASETS
from torch.utils.data import BatchSampler, IterableDataset, Sampler

_STEP, _VALIDATION, _SAMPLE = range(3)


class Place(int):
    """Index of a sample that knows where in the run it is drawn."""

    def __new__(cls, index: int, place: tuple[int, ...]):
        self = super().__new__(cls, index)
        self.place = place
        return self

    def __reduce__(self):
        return Place, (int(self), self.place)


class PlacedBatches(Sampler):
    """Batch sampler that gives :class:`Place` and can begin in the middle.

    Args:
        sampler (Sampler): Sampler of indices.
        batch_size (int): Samples in a batch.
        batches (dict, optional): Config of the batch sampler that groups the
            indices. Defaults to None, :class:`torch.utils.data.BatchSampler`.
        drop_last (bool): Whether that one leaves out an incomplete batch.
            Defaults to False.
    """

    def __init__(self,
                 sampler: Sampler,
                 batch_size: int,
                 batches: dict | None = None,
                 drop_last: bool = False) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last
        if batches is None:
            self.batches = BatchSampler(sampler, batch_size, drop_last)
        else:
            self.batches = DATA_SAMPLERS.build(
                batches,
                default_args=dict(sampler=sampler, batch_size=batch_size))
        self.begin(0)

    def begin(self, epoch: int, batch: int = 0) -> None:
        """Say where the next iteration begins.

        Args:
            epoch (int): Epoch, from 0.
            batch (int): Batches of it that are left out. Where the epoch has
                fewer, the rest is left out of the next iteration.
                Defaults to 0.
        """
        self.epoch, self.skipped = epoch, batch
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[list[Place]]:
        epoch, rank = self.epoch, get_rank()
        for number, batch in enumerate(self.batches):
            if self.skipped > 0:
                self.skipped -= 1
                continue
            yield [
                Place(index, (rank, epoch, number, i))
                for i, index in enumerate(batch)
            ]

    def __len__(self) -> int:
        return len(self.batches)


class PlacedDataset:
    """Data set whose random augmentation depends on the place alone.

    In all else it is the data set that it wraps.

    Args:
        dataset (Dataset | dict): The data set, or its config.
        seed (int): Seed of the run.
    """

    def __init__(self, dataset, seed: int) -> None:
        if isinstance(dataset, dict):
            dataset = DATASETS.build(dataset)
        self._dataset = dataset
        self._seed = seed

    def __getattr__(self, name: str):
        if name.startswith('__') or name in ('_dataset', '_seed'):
            raise AttributeError(name)
        return getattr(self._dataset, name)

    def __getitem__(self, index: int):
        if not isinstance(index, Place):
            return self._dataset[index]
        with _kept_state():
            seed_here(self._seed, _SAMPLE, *index.place, gpu=False)
            return self._dataset[int(index)]

    def __len__(self) -> int:
        return len(self._dataset)


class SeedStepHook(Hook):
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


@contextmanager
def _kept_state() -> Iterator[None]:
    """Leave the generators of this process as they were."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def placed(dataloader: dict, seed: int) -> dict:
    """Config of a dataloader whose samples depend on their place alone.

    Args:
        dataloader (dict): Config of a dataloader. What is no config, or
            reads a stream, is returned as it is.
        seed (int): Seed of the run.

    Returns:
        dict: The new config.
    """
    if not isinstance(dataloader, dict) or isinstance(
            dataloader.get('dataset'), IterableDataset):
        return dataloader
    dataloader = dict(dataloader)
    dataloader['dataset'] = dict(
        type=PlacedDataset, dataset=dataloader['dataset'], seed=seed)
    dataloader['batch_sampler'] = dict(
        type=PlacedBatches,
        batches=dataloader.get('batch_sampler'),
        drop_last=dataloader.pop('drop_last', False))
    return dataloader


def start_worker(worker_id: int, num_workers: int, rank: int,
                 seed: int) -> None:
    """Start a process that loads data: what MMEngine does, and one thing more.

    A scheduler that ends a job sends SIGTERM to all its processes. The main
    one then still writes a checkpoint, and must not lose its workers before:
    they obey its own SIGTERM alone, by which Python ends them with it.

    Args:
        worker_id (int): Number of this worker.
        num_workers (int): How many there are.
        rank (int): Rank of the process that they load for.
        seed (int): Seed of the run.
    """
    if hasattr(signal, 'sigwaitinfo'):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(
            target=_obey, args=(os.getppid(), ), daemon=True).start()
    worker_init_fn(worker_id, num_workers, rank, seed)


def _obey(parent: int) -> None:
    """End this process when the parent, and nobody else, sends SIGTERM."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)

# Copyright (c) mmfishnet authors. All rights reserved.
"""The small training of test_exact.py, in two processes."""
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from torch import distributed as dist

sys.path.append(str(Path(__file__).parent))
from test_exact import (
    At,
    RunStopped,
    assert_equal,
    left,
    terminate,
    train,
)

pytestmark = pytest.mark.slow


class Look(Hook):
    """What this process has, by iterations done."""

    priority = 85  # just before a checkpoint is saved

    def __init__(self):
        self.own, self.validated, self.samples = {}, {}, []

    def mean_of(self, runner):
        return runner.model.module.net[1].running_mean.clone()

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.samples += [x[0].item() % 1 for x in data_batch['inputs']]

    def after_train_iter(self, runner, *args, **kwargs):
        self.own[runner.iter + 1] = self.mean_of(runner)

    def before_val_iter(self, runner, *args, **kwargs):
        self.validated[runner.iter] = self.mean_of(runner)


def main(rank, folder):
    os.environ['LOCAL_RANK'] = str(rank)
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2)
    for name, options in dict(
            epochs=dict(interval=2), iters=dict(by_epoch=False)).items():
        look = Look()
        train(folder / name, look, **options)
        torch.save(vars(look), folder / f'{name}_{rank}.pth')
    # One of them alone is told to end.
    stop = [At(terminate, 5, 75)] * rank
    with pytest.raises(RunStopped):
        train(folder / 'stopped', *stop, interval=2)
    dist.barrier()  # the checkpoint is there
    train(folder / 'stopped', interval=2)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('two')
    jobs = [subprocess.Popen([sys.executable, __file__, str(rank), folder])
            for rank in range(2)]
    assert [job.wait() for job in jobs] == [0, 0]
    return folder


@pytest.mark.parametrize('name, validations, checkpoints', [
    ('epochs', (4, 8, 12), dict(epoch_2=8, epoch_3=12)),
    ('iters', (8, 16, 24), dict(iter_5=5, iter_10=10, iter_15=15, iter_20=20,
                                iter_24=24)),
])
def test_statistics_are_averaged(folder, name, validations, checkpoints):
    """Before each validation and each checkpoint, of the model and its EMA."""
    a, b = (torch.load(folder / f'{name}_{rank}.pth', weights_only=False)
            for rank in range(2))

    def assert_mean(iteration, *found):
        first, second = a['own'][iteration], b['own'][iteration]
        assert (first != second).any()
        for value in found:
            torch.testing.assert_close(value, (first + second) / 2)

    for iteration in validations:
        assert_mean(iteration, a['validated'][iteration],
                    b['validated'][iteration])
    for file, iteration in checkpoints.items():
        saved = torch.load(folder / name / f'{file}.pth', weights_only=False)
        assert_mean(iteration, saved['state_dict']['net.1.running_mean'],
                    saved['ema_state_dict']['module.net.1.running_mean'])


def test_no_two_processes_draw_the_same(folder):
    samples = [x for rank in range(2) for x in torch.load(
        folder / f'epochs_{rank}.pth', weights_only=False)['samples']]
    assert len(samples) == len(set(samples)) == 48


def test_stopped_run_ends_the_same(folder):
    assert_equal(left(folder / 'stopped'), left(folder / 'epochs'))


if __name__ == '__main__':
    main(int(sys.argv[1]), Path(sys.argv[2]))

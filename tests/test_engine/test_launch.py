# Copyright (c) mmfishnet authors. All rights reserved.
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from mmfishnet.engine.launch import (
    explain_lost_peers,
    init_launcher,
    leave_job,
)

VARIABLES = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR',
             'SLURM_PROCID', 'SLURM_NTASKS', 'OMPI_COMM_WORLD_RANK',
             'OMPI_COMM_WORLD_SIZE')


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def test_forgotten_launcher(monkeypatch):
    init_launcher('none')
    monkeypatch.setenv('RANK', '1')
    monkeypatch.setenv('WORLD_SIZE', '2')
    with pytest.raises(ValueError, match='--launcher pytorch'):
        init_launcher('none')


@pytest.mark.parametrize('launcher, variable, how', [
    ('pytorch', 'RANK', 'dist_train.sh'),
    ('slurm', 'SLURM_PROCID', 'slurm_train.sh'),
    ('mpi', 'OMPI_COMM_WORLD_RANK', 'mpirun'),
])
def test_launcher_without_its_environment(
        launcher, variable, how, monkeypatch):
    with pytest.raises(ValueError, match=f'(?s){variable}.*{how}'):
        init_launcher(launcher)
    if launcher == 'mpi':  # which tells no address
        monkeypatch.setenv('OMPI_COMM_WORLD_RANK', '0')
        monkeypatch.setenv('OMPI_COMM_WORLD_SIZE', '1')
        with pytest.raises(ValueError, match='MASTER_ADDR'):
            init_launcher('mpi')


def test_other_errors_are_not_explained_away(monkeypatch):
    monkeypatch.setattr(dist, 'is_initialized', lambda: True)
    for _ in range(2):
        with pytest.raises(RuntimeError, match='^out of memory$'):
            with explain_lost_peers():
                raise RuntimeError('out of memory')
        monkeypatch.delattr(dist, 'DistError', raising=False)  # torch 2.1


@pytest.mark.skipif(
    sys.platform != 'linux', reason='asks the Linux kernel')
def test_leaving_ends_all_threads_of_gloo():
    def threads():
        names = (path.read_text() for path in
                 Path('/proc/self/task').glob('*/comm'))
        return [name for name in names if 'gloo' in name]

    dist.init_process_group(
        'gloo', store=dist.HashStore(), rank=0, world_size=1)
    model = DistributedDataParallel(torch.nn.Linear(2, 1))
    model.hooks = [model]  # a cycle, as a runner and its hooks are one
    model(torch.ones(1, 2)).sum().backward()
    assert threads()
    del model
    leave_job()
    assert not threads() and not dist.is_initialized()
    leave_job()  # as a process that is alone does

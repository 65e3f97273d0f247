# Copyright (c) mmfishnet authors. All rights reserved.
"""Process groups for the tools, on GPUs and without."""
from __future__ import annotations

import datetime
import gc
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.device import get_device
from torch import distributed as dist

from .errors import OwnError

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')

# Where each launcher tells a process its rank, the number of processes, and
# its rank among those on the same host.
_RANK_VARIABLES = dict(
    pytorch=('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
    slurm=('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    mpi=('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE',
         'OMPI_COMM_WORLD_LOCAL_RANK'))
_HOW_TO_START = dict(
    pytorch='tools/dist_train.sh, tools/dist_test.sh or '
    'python -m torch.distributed.run',
    slurm='tools/slurm_train.sh, tools/slurm_test.sh or srun',
    mpi='mpirun of Open MPI')


def init_launcher(launcher: str, timeout: float | None = None) -> None:
    """Prepare this process for the job that it is part of.

    MMEngine's runner starts the process group on GPUs (NCCL), but selects a
    GPU for it in any case. It leaves a group alone that exists already, so
    with no GPU the group is started here, over gloo.

    Args:
        launcher (str): 'none', 'pytorch', 'slurm' or 'mpi'.
        timeout (float, optional): Seconds that one process waits for the
            others before it gives up. Defaults to None, PyTorch's 30 minutes.

    Raises:
        ValueError: If the environment does not fit the launcher or there are
            more processes than GPUs on this host.
    """
    if launcher == 'none':
        if int(os.environ.get('WORLD_SIZE', 1)) > 1 and 'RANK' in os.environ:
            raise ValueError(
                f'this is one of WORLD_SIZE={os.environ["WORLD_SIZE"]} '
                "processes, but --launcher is 'none', so each of them would "
                'do the whole job. Add --launcher pytorch.')
        return
    _set_rank_environment(launcher)
    if torch.cuda.is_available():
        gpus = torch.cuda.device_count()
        if int(os.environ['LOCAL_RANK']) >= gpus:
            raise OwnError(
                f'process {os.environ["LOCAL_RANK"]} of this host has no GPU: '
                f'{gpus} visible (CUDA_VISIBLE_DEVICES='
                f'{os.environ.get("CUDA_VISIBLE_DEVICES", "not set")}). Start '
                'at most that many processes on a host.')
    elif get_device() == 'cpu':
        limit = (
            dict() if timeout is None else dict(
                timeout=datetime.timedelta(seconds=timeout)))
        dist.init_process_group('gloo', **limit)


def _set_rank_environment(launcher: str) -> None:
    """Give torch.distributed what the launcher says under its own names."""
    rank, size, local_rank = _RANK_VARIABLES[launcher]
    for variable in (rank, size):
        if variable not in os.environ:
            raise ValueError(
                f'--launcher {launcher} needs the environment variable '
                f'{variable}, which is not set. Start the job with '
                f'{_HOW_TO_START[launcher]}, or leave --launcher out for one '
                'process.')
    os.environ['RANK'] = os.environ[rank]
    os.environ['WORLD_SIZE'] = os.environ[size]
    if local_rank in os.environ:
        os.environ['LOCAL_RANK'] = os.environ[local_rank]
    if launcher == 'slurm' and 'MASTER_ADDR' not in os.environ:
        hosts = subprocess.run(
            ['scontrol', 'show', 'hostname', os.environ['SLURM_NODELIST']],
            check=True,
            capture_output=True,
            text=True).stdout
        os.environ['MASTER_ADDR'] = hosts.split()[0]
    if 'MASTER_ADDR' not in os.environ:
        raise ValueError(
            f'--launcher {launcher} needs the environment variable '
            'MASTER_ADDR, the address of the host of rank 0.')
    os.environ.setdefault('MASTER_PORT', '29500')


@contextmanager
def explain_lost_peers() -> Iterator[None]:
    """Say what it means when a collective operation breaks off.

    Raises:
        RuntimeError: In place of the backend's own error, which stays the
            cause.
    """
    try:
        yield
    except RuntimeError as error:
        # torch 2.1 has the second alone.
        kind = getattr(dist, 'DistError', dist.DistBackendError)
        if not dist.is_initialized() or not (isinstance(error, kind)
                                             or '/gloo/' in str(error)):
            raise
        raise RuntimeError(
            f'rank {dist.get_rank()} of {dist.get_world_size()} on '
            f'{socket.gethostname()} lost the connection to another process '
            'of this job: one has died, or its host cannot be reached. Its '
            'own output says why. Training goes on from its last checkpoint '
            'when it is started again with --resume.') from error


def leave_job() -> None:
    """End the process group of this process, once its work is done.

    A thread of gloo that still holds the last tensors when Python ends aborts
    a process that has done all it should; NCCL warns. The group ends with its
    last reference, so drop the runner before. Not for a process that failed:
    the others would not come here, and it would wait for them.
    """
    if dist.is_initialized():
        gc.collect()
        dist.destroy_process_group()

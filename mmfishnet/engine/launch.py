# Copyright (c) mmfishnet authors. All rights reserved.
"""Process groups for the tools, on GPUs and without."""
from __future__ import annotations

import gc
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from mmengine.device import get_device
from torch import distributed as dist

# How a job is started, and where a process is told its rank, the number of
# processes, and its rank among those on the same host.
_LAUNCHERS = dict(
    pytorch=('tools/dist_train.sh, tools/dist_test.sh or '
             'python -m torch.distributed.run',
             'RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
    slurm=('tools/slurm_train.sh, tools/slurm_test.sh or srun',
           'SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    mpi=('mpirun of Open MPI', 'OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE',
         'OMPI_COMM_WORLD_LOCAL_RANK'))
LAUNCHERS = ('none', *_LAUNCHERS)


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
    env = os.environ
    if launcher == 'none':
        if int(env.get('WORLD_SIZE', 1)) > 1 and 'RANK' in env:
            raise ValueError(
                f'this is one of WORLD_SIZE={env["WORLD_SIZE"]} '
                "processes, but --launcher is 'none', so each of them would "
                'do the whole job. Add --launcher pytorch.')
        return
    how, *theirs = _LAUNCHERS[launcher]
    for name, own in zip(theirs, ('RANK', 'WORLD_SIZE', 'LOCAL_RANK')):
        if name in env:
            env[own] = env[name]
        elif own != 'LOCAL_RANK':
            raise ValueError(
                f'--launcher {launcher} needs the environment variable '
                f'{name}, which is not set. Start the job with {how}, or '
                'leave --launcher out for one process.')
    if launcher == 'slurm' and 'MASTER_ADDR' not in env:
        env['MASTER_ADDR'] = subprocess.run(
            ['scontrol', 'show', 'hostname', env['SLURM_NODELIST']],
            check=True, capture_output=True, text=True).stdout.split()[0]
    if 'MASTER_ADDR' not in env:
        raise ValueError(
            f'--launcher {launcher} needs the environment variable '
            'MASTER_ADDR, the address of the host of rank 0.')
    env.setdefault('MASTER_PORT', '29500')
    gpus, rank = torch.cuda.device_count(), env.get('LOCAL_RANK', '0')
    if 0 < gpus <= int(rank):
        visible = 'CUDA_VISIBLE_DEVICES'
        raise ValueError(
            f'process {rank} of this host has no GPU: {gpus} visible '
            f'({visible}={env.get(visible, "not set")}). Start at most that '
            'many processes on a host.')
    if get_device() == 'cpu':
        limit = {} if timeout is None else dict(
            timeout=timedelta(seconds=timeout))
        dist.init_process_group('gloo', **limit)


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

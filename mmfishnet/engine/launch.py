# Copyright (c) mmfishnet authors. All rights reserved.
"""Process groups for the tools, on GPUs and without."""
from __future__ import annotations

import datetime
import gc
import os
import re
import socket
import struct
import subprocess
import sys
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
        interface = _interface_to(os.environ['MASTER_ADDR'])
        if interface is not None:
            # gloo would take the interface of the host's name, which often
            # is the loopback and then cannot be reached from other hosts.
            os.environ.setdefault('GLOO_SOCKET_IFNAME', interface)
        limit = (
            dict() if timeout is None else dict(
                timeout=datetime.timedelta(seconds=timeout)))
        before = _descriptors()
        dist.init_process_group('gloo', **limit)
        _watch_connections(_descriptors() - before)


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


def _interface_to(host: str) -> str | None:
    """Name of the network interface by which other hosts reach this one.

    It is the one that leads to ``host``. On that host itself the name may
    stand for a loopback address (Debian's /etc/hosts has 127.0.1.1), which
    no other host can reach: there it is the interface of the default route,
    or the first that there is.

    None where that cannot be told (not Linux, no IPv4); gloo then looks for
    one by itself.
    """
    if not sys.platform.startswith('linux'):
        return None
    # gloo wants a name, the kernel's routes give an address.
    names = {_address_of(name): name for _, name in socket.if_nameindex()}
    names.pop(None, None)
    own = _address_towards(host)
    if own is None:
        return None
    if own.startswith('127.') and not re.match(r'localhost$|127\.', host):
        others = [a for a in names if not a.startswith('127.')]
        # Of a block that is reserved, so nobody's own network.
        default = _address_towards('192.0.2.1')
        own = default if default in others else next(iter(others), own)
    return names.get(own)


def _address_towards(host: str) -> str | None:
    """This host's own address on the route to another."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            # Sends nothing, only chooses the route.
            sock.connect((host, 9))
            return sock.getsockname()[0]
    except OSError:
        return None


def _address_of(interface: str) -> str | None:
    """IPv4 address of a network interface, None if it has none."""
    import fcntl
    siocgifaddr = 0x8915
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            answer = fcntl.ioctl(sock, siocgifaddr,
                                 struct.pack('256s', interface.encode()))
    except OSError:
        return None
    return socket.inet_ntoa(answer[20:24])


def _descriptors() -> set[int]:
    """Open files and connections of this process; none if not on Linux."""
    if not sys.platform.startswith('linux'):
        return set()
    return set(map(int, os.listdir('/proc/self/fd')))


def _watch_connections(descriptors: set[int]) -> None:
    """Let the kernel notice within 20 s that another host has vanished.

    A process that dies closes its connections, which gloo notices at once. A
    host without power or network closes nothing, and gloo would wait for the
    timeout of the group.

    Args:
        descriptors (set[int]): Those of the group's connections, and others.
    """
    options = ((socket.SOL_SOCKET, 'SO_KEEPALIVE', 1),
               (socket.IPPROTO_TCP, 'TCP_KEEPIDLE', 5),
               (socket.IPPROTO_TCP, 'TCP_KEEPINTVL', 5),
               (socket.IPPROTO_TCP, 'TCP_KEEPCNT', 3),
               (socket.IPPROTO_TCP, 'TCP_USER_TIMEOUT', 20_000))
    for descriptor in descriptors:
        try:
            sock = socket.socket(fileno=descriptor)
        except OSError:  # not a connection, or closed already
            continue
        try:
            for level, name, value in options:
                sock.setsockopt(level, getattr(socket, name), value)
        except OSError:  # not of TCP
            pass
        finally:
            sock.detach()  # it stays gloo's


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

# Copyright (c) mmfishnet authors. All rights reserved.
"""One training on two hosts: what happens when a host loses its power, and
that it ends with the weights of a training on one host.

    python tests/two_hosts.py WORK_DIR

The hosts are namespaces of this one's kernel: each has its own network with
one cable to the other, its own name, processes and /etc/hosts. They share the
file system, as hosts of a cluster share a file server. Where namespaces can't
be made, the exit code is 77 and the last line says why.
"""
from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SKIP = 77
PORT = '29500'
# In seconds: how long anything may take, and how soon a host that is alone
# has to stop.
PATIENCE = 300
LIMIT = 60

CONFIG = f"""
_base_ = '{ROOT}/configs/shapes/mask_rcnn_fishnet_shapes.py'
model = dict(backbone=dict(init_cfg=None))
train_dataloader = dict(batch_size=1)
default_hooks = dict(logger=dict(interval=1))
"""

# What Slurm's commands do, without its queue: a task each host.
SRUN = """#!/usr/bin/env bash
enter=({enter})
while [[ $1 == -* ]]; do
    case $1 in
        --ntasks=*) ntasks=${{1#*=}} ;;
        --ntasks-per-node=*) per_node=${{1#*=}} ;;
        -p) shift ;;
    esac
    shift
done
export SLURM_NTASKS=$ntasks SLURM_NODELIST='fish[1-2]'
for ((i = 0; i < ntasks; i++)); do
    SLURM_PROCID=$i SLURM_LOCALID=$((i % per_node)) \\
        ${{enter[i / per_node]}} "$@" &
    tasks+=($!)
done
for task in "${{tasks[@]}}"; do wait "$task" || exit; done
"""
SCONTROL = """#!/usr/bin/env bash
[[ "$*" == 'show hostname fish[1-2]' ]] && printf 'fish1\\nfish2\\n'
"""


class Skipped(Exception):
    """This machine can't do it."""


class Failed(Exception):
    """It did not go as it should."""


# Hosts ----------------------------------------------------------------------


def make(*command: str) -> None:
    """Run a command that this machine may not have or not allow.

    Raises:
        Skipped: If it fails.
    """
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise Skipped(f'{error.filename} is not installed') from None
    except subprocess.CalledProcessError as error:
        raise Skipped(f'{shlex.join(command)}: {error.stderr.strip()}') \
            from None


class Host:
    """A host of namespaces, with no cable yet.

    Args:
        name (str): Its name.
        address (str): Its address.
        hosts (Path): Its /etc/hosts.
    """

    def __init__(self, name: str, address: str, hosts: Path) -> None:
        self.name = name
        self.address = address
        boot = (f'hostname {name} && mount --bind {shlex.quote(str(hosts))} '
                '/etc/hosts && ip link set lo up && echo up && '
                'exec cat')
        make('unshare', '--net', 'true')
        self.process = subprocess.Popen(
            [
                'unshare', '--net', '--uts', '--pid', '--fork', '--kill-child',
                '--mount-proc', 'sh', '-c', boot
            ],
            # The host ends with this script, even if that is killed.
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True)
        if (line := self.process.stdout.readline()) != 'up\n':
            self.process.kill()
            raise Skipped(f'a host could not be made: {line.strip()}')
        # While it is open, the cable outlives the host.
        self._network = open(f'/proc/{self.process.pid}/ns/net')

    @property
    def enter(self) -> list[str]:
        """Command before a command that is to run there."""
        space = f'/proc/{self.process.pid}/ns'
        # The mount namespace takes the current folder away.
        return [
            'nsenter', f'--net={space}/net', f'--uts={space}/uts',
            f'--pid={space}/pid_for_children', f'--mount={space}/mnt', 'env',
            f'--chdir={os.getcwd()}'
        ]

    def lose_power(self) -> None:
        """Stop everything at once; no other host is told."""
        subprocess.run(
            [*self.enter, 'ip', 'link', 'set', 'cable', 'down'], check=True)
        self.process.kill()
        self.process.wait()

    def remove(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self._network.close()


@contextmanager
def two_hosts(folder: Path) -> Iterator[tuple[Host, Host]]:
    """Two hosts with a cable between them."""
    addresses = {'fish1': '10.77.0.1', 'fish2': '10.77.0.2'}
    hosts = []
    try:
        for name, address in addresses.items():
            # As Debian has it: the own name is a loopback address.
            lines = ['127.0.0.1 localhost'] + [
                f'{"127.0.1.1" if other == name else addresses[other]} {other}'
                for other in addresses
            ]
            file = folder / f'hosts_{name}'
            file.write_text('\n'.join(lines) + '\n')
            hosts.append(Host(name, address, file))
        first, second = (host.process.pid for host in hosts)
        make('nsenter', f'--net=/proc/{first}/ns/net', 'ip', 'link', 'add',
             'cable', 'type', 'veth', 'peer', 'name', 'cable', 'netns',
             str(second))
        for host in hosts:
            make(*host.enter, 'ip', 'address', 'add', f'{host.address}/24',
                 'dev', 'cable')
            make(*host.enter, 'ip', 'link', 'set', 'cable', 'up')
        yield tuple(hosts)
    finally:
        for host in hosts:
            host.remove()


# Trainings ------------------------------------------------------------------


class Job:
    """A command that runs, with its output in a file.

    Args:
        log (Path): The file.
        command (list): The command.
        **env (str): More environment variables.
    """

    started: list[Job] = []

    def __init__(self, log: Path, command: list, **env: str) -> None:
        self.log = log
        self.started.append(self)
        with open(log, 'w') as file:
            self.process = subprocess.Popen(
                list(map(str, command)),
                env=dict(
                    os.environ, PYTHON=sys.executable, OMP_NUM_THREADS='1',
                    **env),
                stdout=file,
                stderr=subprocess.STDOUT)

    @property
    def output(self) -> str:
        return self.log.read_text()

    def expect(self, condition, what: str) -> None:
        if not condition:
            tail = '\n'.join(self.output.splitlines()[-60:])
            raise Failed(f'{self.log.name}: {what}.\n{tail}')

    def wait(self, timeout: float = PATIENCE) -> int:
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.expect(False, f'still runs after {timeout:.0f} s')

    def succeed(self) -> str:
        self.expect(self.wait() == 0, 'failed')
        return self.output


def wait_for(condition: Callable[[], bool], *jobs: Job) -> None:
    """Wait for something that running jobs bring about."""
    limit = time.monotonic() + PATIENCE
    while not condition():
        for job in jobs:
            job.expect(job.process.poll() is None, 'ended')
            job.expect(time.monotonic() < limit, 'does not get on')
        time.sleep(0.1)


def last_epoch(run: Path) -> int:
    try:
        path = (run / 'last_checkpoint').read_text()
    except FileNotFoundError:
        return 0
    return int(Path(path).stem.removeprefix('epoch_') or 0)


def epochs(number: int) -> tuple[str, ...]:
    """Options for so many, with a validation after the last.

    The schedule is the same for all; that it does not fit is of no account
    here.
    """
    return ('--no-check', '--cfg-options', f'train_cfg.max_epochs={number}',
            f'train_cfg.val_interval={number}', 'param_scheduler.1.end=1000')


def train_on_one(run: Path, *more: str) -> Job:
    """Start a training with two processes on this host."""
    return Job(
        Path(f'{run}.log'), [
            ROOT / 'tools/dist_train.sh', 'config.py', 2, '--data-root',
            'data', '--work-dir', run, *more
        ])


def train_on_two(hosts: tuple[Host, Host], run: Path,
                 *more: str) -> list[Job]:
    """Start a training with one process on each host."""
    return [
        Job(
            Path(f'{run}_{host.name}.log'), [
                *host.enter, ROOT / 'tools/dist_train.sh', 'config.py', 1,
                '--data-root', 'data', '--work-dir', run, *more
            ],
            NNODES='2',
            NODE_RANK=str(rank),
            MASTER_ADDR=hosts[0].address,
            PORT=PORT) for rank, host in enumerate(hosts)
    ]


def train_by_slurm(hosts: tuple[Host, Host], run: Path, *more: str) -> Job:
    """Start a training with one process on each host, as a job of Slurm.

    Processes find the first host by its name.
    """
    folder = Path('bin').absolute()
    folder.mkdir()
    enter = ' '.join(shlex.quote(shlex.join(host.enter)) for host in hosts)
    for name, text in (('srun', SRUN.format(enter=enter)),
                       ('scontrol', SCONTROL)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return Job(
        Path('slurm.log'), [
            ROOT / 'tools/slurm_train.sh', 'partition', 'job', 'config.py',
            run, '--data-root', 'data', *more
        ],
        PATH=f'{folder}:{os.environ["PATH"]}',
        GPUS='2',
        GPUS_PER_NODE='1',
        MASTER_PORT=PORT)


def assert_equal(a, b, path: str = '') -> int:
    """Compare nested values bit for bit; gives the number of tensors."""
    import torch
    if isinstance(a, torch.Tensor):
        if a.dtype != b.dtype or not torch.equal(a, b):
            raise Failed(f'{path} differs.')
        return 1
    if isinstance(a, (dict, list, tuple)):
        if len(a) != len(b):
            raise Failed(f'{path} differs.')
        keys = a if isinstance(a, dict) else range(len(a))
        return sum(assert_equal(a[k], b[k], f'{path}.{k}') for k in keys)
    if a != b:
        raise Failed(f'{path} differs: {a} and {b}.')
    return 0


# The story ------------------------------------------------------------------


def story() -> None:
    with two_hosts(Path.cwd()):
        pass  # or this machine can't do it
    import torch

    from mmfishnet.datasets import draw_coco
    draw_coco('data', 8, 4, size=64, seed=0)
    Path('config.py').write_text(CONFIG)
    lost = Path('lost')

    with two_hosts(Path.cwd()) as hosts:
        jobs = train_on_two(hosts, lost, *epochs(1000))
        wait_for(lambda: last_epoch(lost) > 0, *jobs)
        hosts[0].lose_power()
        since = time.monotonic()
        print('fish1 lost its power')
        epoch = last_epoch(lost)
        # There is time for what the resumed training is compared with.
        reference = train_on_one(Path('one'), *epochs(epoch + 1))
        left = jobs[1]
        code = left.wait(LIMIT)
        print(f'fish2 stopped after {time.monotonic() - since:.0f} s')
        left.expect(code != 0, 'took it for a success')
        for words in ('rank 1 of 2 on fish2 lost the connection',
                      'started again with --resume'):
            left.expect(words in left.output, f'does not say {words!r}')
        reference.succeed()

    with two_hosts(Path.cwd()) as hosts:
        job = train_by_slurm(hosts, lost, '--resume', *epochs(epoch + 1))
        output = job.succeed()
        job.expect(f'resumed epoch: {epoch},' in output, 'did not resume')
        job.expect('coco/segm_mAP:' in output, 'did not validate')
        one, two = (
            torch.load(f'{run}/epoch_{epoch + 1}.pth', weights_only=False)
            for run in ('one', lost))
        number = sum(
            assert_equal(one[part], two[part], part)
            for part in ('state_dict', 'optimizer'))
        print(f'resumed from epoch {epoch} as a job of Slurm, to the end: all '
              f'{number} tensors of weights and optimizer equal those of '
              'two processes on one host, never interrupted, bit for bit')


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'work_dir', type=Path, metavar='WORK_DIR', help='a new folder')
    args = parser.parse_args()
    try:
        if os.geteuid() != 0:
            # One may be root in a namespace of one's own.
            become_root = ('unshare', '--map-root-user')
            make(*become_root, 'true')
            os.execvp('unshare', [*become_root, sys.executable, *sys.argv])
        args.work_dir.mkdir(parents=True)
        os.chdir(args.work_dir)
        story()
    except Skipped as reason:
        print(f'skipped: {reason}')
        sys.exit(SKIP)
    except (Failed, FileExistsError) as error:
        sys.exit(f'error: {error}')
    finally:
        for job in Job.started:
            job.process.terminate()


if __name__ == '__main__':
    main()

# Copyright (c) mmfishnet authors. All rights reserved.
"""One job on several hosts: what is started on each."""
import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch.distributed.run import config_from_args, parse_args

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / 'tools'


def run(*command, **env):
    env = {**os.environ, 'PYTHON': sys.executable, **env}
    return subprocess.run(list(map(str, command)), env=env, text=True,
                          capture_output=True)


@pytest.mark.parametrize('tool, files, more, gpus, env, nodes, rank', [
    ('train', [], ['--resume', 'my checkpoint'], 8,
     dict(NNODES='2', NODE_RANK='1', MASTER_ADDR='10.0.0.1'), 2, 1),
    ('test', ['a.pth'], ['--tta'], 16, dict(PORT='29501'), 1, 0),
])
def test_torchrun_is_told(tmp_path, tool, files, more, gpus, env, nodes, rank):
    fake = tmp_path / 'python'
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$OMP_NUM_THREADS" "$@"\n')
    fake.chmod(0o755)
    files = ['a config.py', *files]
    done = run(TOOLS / f'dist_{tool}.sh', *files, gpus, *more,
               PYTHON=str(fake), **env)
    threads, *arguments = done.stdout.splitlines()
    assert int(threads) >= 1
    assert Path(arguments[0]).resolve() == TOOLS / 'dist_run.py'
    config, _, script = config_from_args(parse_args(arguments[1:]))
    assert (config.min_nodes, config.max_nodes) == (nodes, nodes)
    assert config.nproc_per_node == gpus
    assert config.rdzv_configs['rank'] == rank
    assert config.rdzv_endpoint == (
        '10.0.0.1:29500' if nodes > 1 else '127.0.0.1:29501')
    assert script[-3 - len(files + more):] == [
        str(TOOLS / f'{tool}.py'), *files, '--launcher', 'pytorch', *more]


@pytest.mark.parametrize('missing', ['NODE_RANK', 'MASTER_ADDR'])
def test_hosts_have_to_know_each_other(missing):
    env = dict(NNODES='2', NODE_RANK='0', MASTER_ADDR='10.0.0.1')
    env[missing] = ''
    done = run(TOOLS / 'dist_train.sh', 'config.py', 8, **env)
    assert done.returncode == 2
    assert 'NODE_RANK, from 0 to 1' in done.stderr
    assert 'MASTER_ADDR' in done.stderr


@pytest.mark.parametrize('tool, env, tasks, per_node', [
    ('train', dict(), 8, 8),
    ('test', dict(GPUS='16'), 16, 8),
    ('train', dict(GPUS='16', GPUS_PER_NODE='16'), 16, 16),
    ('test', dict(GPUS='4'), 4, 4),
])
def test_slurm_is_told(tmp_path, tool, env, tasks, per_node):
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    done = run(
        TOOLS / f'slurm_{tool}.sh', 'partition', 'a job', 'config.py',
        'a file', '--cfg-options', 'x=1 2',
        PATH=f'{tmp_path}:{os.environ["PATH"]}',
        SRUN_ARGS='--time=1 --exclusive', **env)
    options, script = done.stdout.split(sys.executable + '\n')
    assert options.splitlines() == [
        '-p', 'partition', '--job-name=a job', f'--gres=gpu:{per_node}',
        f'--ntasks={tasks}', f'--ntasks-per-node={per_node}',
        '--cpus-per-task=5', '--kill-on-bad-exit=1', '--time=1', '--exclusive'
    ]
    _, path, *arguments = script.splitlines()
    assert Path(path).samefile(TOOLS / f'{tool}.py')
    assert arguments == [
        'config.py', *['--work-dir'] * (tool == 'train'), 'a file',
        '--launcher', 'slurm', '--cfg-options', 'x=1 2'
    ]


@pytest.mark.parametrize('script, args', [
    ('dist_train.sh', ['config.py', '--resume']),
    ('dist_test.sh', ['config.py', 'checkpoint.pth', '0']),
    ('slurm_train.sh', ['partition', 'job', 'config.py']),
    ('slurm_test.sh', ['partition', 'job', 'config.py']),
])
def test_scripts_say_how_to_call_them(script, args):
    done = run(TOOLS / script, *args)
    assert done.returncode == 2
    assert done.stderr.startswith('Usage: ')

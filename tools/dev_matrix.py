#!/usr/bin/env python3
# Copyright (c) mmfishnet authors. All rights reserved.
"""Set up each combination of versions that we answer for, and test it.

One environment after another is made with tools/setup_env.py, runs the part
of the tests that tells most about versions, and is removed. A table of what
passed is written at the end, in the form that docs/install.md has it. Each
takes some minutes and 7 GB while it is there.
"""
import argparse
import datetime
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# models, loading, Mask R-CNN's training step and resuming, inherited configs
TESTS = [
    'tests/test_models/test_fishnet.py', 'tests/test_checkpoints',
    'tests/test_engine/test_resume.py', 'tests/test_configs/test_recipe.py',
    'tests/test_configs/test_inherit.py',
    'tests/test_tools/test_train_test.py'
]
# name: (packages of OpenMMLab, Python, torch and torchvision)
PINNED = (ROOT / 'requirements/torch.txt').read_text().splitlines()[-2:]
OLD = ['torch==2.1.2', 'torchvision==0.16.2', 'numpy<2']
MATRIX = {
    'pinned': ('maintained', '3.11', PINNED),
    'classic-torch2.1': ('classic', '3.11', OLD),
    'classic-pinned-torch': ('classic', '3.11', PINNED),
    'torch2.6': ('maintained', '3.11', ['torch==2.6.0',
                                        'torchvision==0.21.0']),
    'newest-torch': ('maintained', '3.11', ['torch', 'torchvision']),
    'python3.10': ('maintained', '3.10', PINNED),
    'python3.12': ('maintained', '3.12', PINNED),
}


def run(log, *command):
    """Run a command, append to a log; what it printed is returned."""
    # Where it is set, each process compiles torch's and mmdet's sources anew.
    env = {**os.environ, 'PYTHONDONTWRITEBYTECODE': '', 'OMP_NUM_THREADS': '1'}
    command = list(map(str, command))
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors='replace', env=env)
    with log.open('a') as file:
        file.write(f'\n$ {" ".join(command)}\n{done.stdout}')
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command,
                                            done.stdout)
    return done.stdout


def examine(name, folder):
    """Set up one combination and test it.

    Returns:
        tuple[str, str]: What was installed, and how it went.
    """
    stack, version, torch = MATRIX[name]
    python = shutil.which(f'python{version}')
    installed = f'Python {version}'
    if not python:
        return installed, 'not run: no such Python here'
    env, log = folder / name, folder / f'{name}.log'
    log.unlink(missing_ok=True)
    shutil.rmtree(env, ignore_errors=True)
    try:
        run(log, python, '-m', 'venv', env)
        bin_python = env / 'bin/python'
        run(log, bin_python, '-m', 'pip', 'install', '--no-compile', *torch)
        run(log, sys.executable, ROOT / 'tools/setup_env.py', env, '--tests',
            '--stack', stack)
        printed = run(log, bin_python, '-c', 'import platform, torch; print('
                      'platform.python_version(), torch.__version__)')
        installed = 'Python {}, torch {}'.format(*printed.split()[-2:])
        printed = run(log, bin_python, '-m', 'pytest', '-q', '-n', '2',
                      '--dist', 'loadfile', *TESTS)
    except subprocess.CalledProcessError as error:
        lines = error.output.strip().splitlines() or ['no output']
        return installed, f'FAILED: {lines[-1]} ({log})'
    return installed, re.findall(r'\d+ passed[^\n]*', printed)[-1]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'names', nargs='*', metavar='name',
        help=f'which ones (default: all): {", ".join(MATRIX)}')
    parser.add_argument('--dir', type=Path, default=ROOT / '.cache/matrix',
                        help='folder for environments and logs')
    args = parser.parse_args()
    if unknown := set(args.names) - set(MATRIX):
        parser.error(f'no such combination: {", ".join(sorted(unknown))}')
    args.dir.mkdir(parents=True, exist_ok=True)
    rows, today = [], datetime.date.today()
    for name in args.names or MATRIX:
        print(f'{name} ...', flush=True)
        installed, result = examine(name, args.dir.resolve())
        rows.append(f'| {name} | {installed} | {MATRIX[name][0]} | {result} '
                    f'| {today} |')
        print(rows[-1], flush=True)
        shutil.rmtree(args.dir / name, ignore_errors=True)
    print('', '| name | Python and torch | packages | tests | date |',
          '|---|---|---|---|---|', *rows, sep='\n')
    return int(any('FAILED' in row for row in rows))


if __name__ == '__main__':
    sys.exit(main())

# Copyright (c) mmfishnet authors. All rights reserved.
"""Examines an environment: what is there, and does it work.

What can be told without an import comes first, so that a missing or broken
package is named before anything stumbles over it. A check gives findings: a
mark, a name, what was found, and what to do about it. The marks are "ok",
"BAD" for what keeps Mask R-CNN from being trained, and "-" for what one may
or may not need.
"""
from __future__ import annotations

import os
import platform
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from . import probes
from .version import (
    OPTIONAL,
    SUPPORTED,
    __version__,
    installed_version,
    is_supported,
    requirement,
)

REPOSITORY = Path(__file__).resolve().parents[1]
_ACTIVATE = Path('.venv/bin/activate')
# Outside the environment that is there already, nothing needs a set-up.
SET_UP = (f'source {_ACTIVATE}' if _ACTIVATE.exists()
          and Path(sys.prefix) != Path('.venv').resolve() else
          f'python tools/setup_env.py {sys.prefix}')
DATA = {
    'COCO': ('data/coco', 'MMDET_DATASETS', 'annotations',
             'download https://cocodataset.org/#download, or draw a small data'
             ' set: python tools/dataset_tools/draw_shapes.py --help'),
    'ImageNet': ('data/imagenet', '', 'train',
                 'needed for pretraining only: https://image-net.org'),
}


def examine() -> int:
    """Examine the environment of this Python and print what is found.

    Returns:
        int: 1 if something keeps Mask R-CNN from being trained, else 0.
    """
    print(f'mmfishnet {__version__} in {REPOSITORY}')
    bad = set()
    # What needs a package that is missing is not tried.
    for check, needs in ((machine, ()), (packages, ()), (files, ()),
                         (torch, ('torch', )),
                         (ops, ('torch', 'mmengine', 'mmcv')),
                         (models, ('torch', 'mmengine', 'mmcv', 'mmdet'))):
        if bad & {*needs}:
            continue
        for mark, name, found, *todo in check():
            print(f'{mark:<3} {name:<12} {found}')
            if mark != 'ok':
                print(f'{"":<16} ->', *todo)
            if mark == 'BAD':
                bad.add(name)
            sys.stdout.flush()
    print(f'\n{len(bad)} in the way (BAD) of training Mask R-CNN.' if bad else
          '\nMask R-CNN can be trained here.')
    return int(bool(bad))


def attempt(name: str, todo: str, probe: Callable, *args) -> tuple[str, ...]:
    """What a probe says, or how it fails."""
    try:
        return 'ok', name, probe(*args)
    except Exception as error:
        text = str(error).strip().partition('\n')[0]
        return 'BAD', name, f'{type(error).__name__}: {text}', todo


def machine() -> Iterator[tuple[str, ...]]:
    """Python, compilers and the free disk: nothing is imported."""
    yield ('ok', 'Python', f'{platform.python_version()} ({sys.executable}) '
           f'on {platform.platform()}')
    names = os.environ.get('CXX', ''), 'c++', 'g++', 'clang++'
    if compiler := next(filter(shutil.which, names), None):
        printed = subprocess.run([compiler, '--version'], text=True,
                                 capture_output=True).stdout
        yield 'ok', 'C++ compiler', printed.partition('\n')[0]
    else:
        yield ('-', 'C++ compiler', "none; it compiles mmcv's ops",
               'Debian and Ubuntu: apt-get install g++')
    yield attempt('disk', 'free some space, or run in another folder',
                  probes.disk, 'training')


def packages() -> Iterator[tuple[str, ...]]:
    """The packages' versions, without importing them."""
    for module, versions in SUPPORTED.items():
        version = installed_version(module)
        todo = (SET_UP if module == 'mmcv' else
                f'pip install "{requirement(module)}"')
        if version and is_supported(module, version):
            yield 'ok', module, version
        elif version:
            why = (": they fail with KeyError: 'info' where an annotation file"
                   ' has no such entry' if module == 'pycocotools' else '')
            yield ('BAD', module,
                   f'{version}, but {module}{versions} is needed{why}', todo)
        # mmfishnet works without mmdet, Mask R-CNN does not.
        elif module in OPTIONAL and module != 'mmdet':
            yield '-', module, 'not installed (optional)', todo
        else:
            yield 'BAD', module, 'not installed', SET_UP


def files() -> Iterator[tuple[str, ...]]:
    """Data sets and weights, where the configs look for them."""
    for name, (folder, variable, part, todo) in DATA.items():
        folder = Path(os.environ.get(variable) or folder)
        yield (('ok', name, str(folder)) if (folder / part).is_dir() else
               ('-', name, f'not in {folder.absolute()}', todo))
    config = Path(__file__).parent / '.mim/configs/_base_/pretrained.py'
    if not config.exists():
        yield ('BAD', 'configs', f'{config} is missing',
               'pip install . (or -e .) in the repository')
        return
    for name, path in runpy.run_path(str(config))['pretrained'].items():
        if Path(path).exists():
            yield 'ok', 'weights', path
        elif '://' not in path:  # those are fetched when they are needed
            yield ('-', 'weights', f'no {path}', 'never published: train them '
                   'with configs/classification' if 'next' in name else
                   f'python tools/get_weights.py {name} (or train with '
                   '--from-scratch)')


def torch() -> Iterator[tuple[str, ...]]:
    """torch with its GPUs, and torchvision."""
    state, name, found, *todo = attempt('torch', SET_UP, probes.torch)
    if state == 'BAD':
        yield state, name, found, *todo
        return
    yield state, name, (f'works, for {target(found["cuda"])}, '
                        f'{found["threads"]} threads')
    for gpu in found['gpus']:
        yield 'ok', 'GPU', gpu
    if not found['gpus']:
        yield ('-', 'GPU', 'torch sees none; all works on the CPU, slowly',
               'nvidia-smi says whether the driver does' if found['cuda'] else
               'this build of torch is for the CPU alone')
    elif nvcc := shutil.which('nvcc'):
        yield 'ok', 'nvcc', nvcc
    yield attempt('torchvision', 'install the one made for torch '
                  f'{found["version"]}: {SET_UP}', probes.torchvision)


def target(cuda: str | None) -> str:
    return f'CUDA {cuda}' if cuda else 'the CPU alone'


def ops() -> Iterator[tuple[str, ...]]:
    """mmcv's ops."""
    def run(device):
        cuda = probes.mmcv_ops(device)
        return f'nms and RoIAlign work (compiled for {target(cuda)})'

    todo = f'{SET_UP} (compiles mmcv for this torch)'
    yield attempt('mmcv ops', todo, run, 'cpu')
    if probes.torch()['gpus']:
        yield attempt('on the GPU', todo, run, 'cuda')


def models() -> Iterator[tuple[str, ...]]:
    """The packages' imports, and a FishNet's forward and backward pass."""
    for module in filter(installed_version, OPTIONAL):
        yield attempt(module, SET_UP, probes.imports, f'{module}.apis')
    yield attempt('backbone', 'please report it', run_backbone)


def run_backbone() -> str:
    from torch import zeros

    from mmfishnet.models import FishNet
    model = FishNet(depth=99, out_indices=(0, 1, 2, 3))
    features = model(zeros(1, 3, 64, 64))
    sum(feature.mean() for feature in features).backward()
    return 'FishNet-99 runs forward and backward'

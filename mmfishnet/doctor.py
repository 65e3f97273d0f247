# Copyright (c) mmfishnet authors. All rights reserved.
"""Examines an environment: what is there, and does it work.

What can be told without an import comes first, so that a missing or broken
package is named before anything stumbles over it.
"""
from __future__ import annotations

import importlib
import os
import platform
import runpy
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

from .version import (
    DISTRIBUTIONS,
    OPTIONAL,
    SUPPORTED,
    __version__,
    installed_version,
    is_supported,
    supported_range,
)

REPOSITORY = Path(__file__).resolve().parents[1]
_ACTIVATE = Path('.venv/bin/activate')
# Outside the environment that is there already, nothing needs a set-up.
SET_UP = (f'source {_ACTIVATE}' if _ACTIVATE.exists()
          and Path(sys.prefix) != Path('.venv').resolve() else
          f'python tools/setup_env.py {sys.prefix}')
GIGABYTE = 1e9
# A run of Mask R-CNN keeps a few checkpoints with the optimiser's state.
DISK_SPACE_GB = 5
DATA = {
    'COCO': ('data/coco', 'MMDET_DATASETS', 'annotations',
             'download https://cocodataset.org/#download, or draw a small data'
             ' set: python tools/dataset_tools/draw_shapes.py --help'),
    'ImageNet': ('data/imagenet', None, 'train',
                 'needed for pretraining only: https://image-net.org'),
}


class Report:
    """Prints what is found; counts what is in the way.

    Attributes:
        problems (int): How many findings keep Mask R-CNN from being trained.
    """

    def __init__(self) -> None:
        self.problems = 0

    def good(self, name: str, found: str) -> None:
        self._line('ok', name, found)

    def note(self, name: str, found: str, todo: str) -> None:
        """Something that one may or may not need."""
        self._line('-', name, found, todo)

    def bad(self, name: str, found: str, todo: str) -> None:
        """Something that keeps the main job from running."""
        self.problems += 1
        self._line('BAD', name, found, todo)

    def _line(self, mark, name, found, todo=None):
        print(f'{mark:<3} {name:<12} {found}', flush=True)
        if todo:
            print(f'{"":<16} -> {todo}', flush=True)


def examine() -> int:
    """Examine the environment of this Python and print what is found.

    Returns:
        int: 1 if something keeps Mask R-CNN from being trained, else 0.
    """
    report = Report()
    print(f'mmfishnet {__version__} in {REPOSITORY}')
    check_machine(report)
    missing = check_packages(report)
    check_files(report)
    if 'torch' not in missing:
        check_torch(report)
        check_ops(report, missing)
    if not missing:
        check_models(report)
    if report.problems:
        print(f'\n{report.problems} in the way (BAD) of training Mask R-CNN.')
        return 1
    print('\nMask R-CNN can be trained here.')
    return 0


def check_machine(report: Report) -> None:
    """Python, compilers and the free disk: nothing is imported."""
    report.good('Python', f'{platform.python_version()} ({sys.executable}) on '
                f'{platform.platform()}')
    compiler = next(
        filter(shutil.which, (os.environ.get('CXX', ''), 'c++', 'g++',
                              'clang++')), None)
    if compiler:
        report.good('C++ compiler', first_line([compiler, '--version']))
    else:
        report.note('C++ compiler', "none; it compiles mmcv's ops",
                    'Debian and Ubuntu: apt-get install g++')
    free = shutil.disk_usage('.').free / GIGABYTE
    if free < DISK_SPACE_GB:
        report.bad('disk', f'{free:.1f} GB free in {Path.cwd()}',
                   f'free {DISK_SPACE_GB} GB, or run in another folder')
    else:
        report.good('disk', f'{free:.0f} GB free in {Path.cwd()}')


def first_line(command: list[str]) -> str:
    printed = subprocess.run(command, capture_output=True, text=True).stdout
    return printed.partition('\n')[0]


def check_packages(report: Report) -> set[str]:
    """The packages' versions, without importing them.

    Returns:
        set[str]: Import names of those that are needed for Mask R-CNN and
        not usable.
    """
    missing = set()
    for module in SUPPORTED:
        version = installed_version(module)
        # mmfishnet works without mmdet, Mask R-CNN does not.
        needed = module not in OPTIONAL or module == 'mmdet'
        if version and is_supported(module, version):
            report.good(module, version)
        elif version:
            report.bad(module, f'{version}, but {supported_range(module)} is '
                       'needed', f'pip install "{requirement(module)}"'
                       if module != 'mmcv' else SET_UP)
            missing.add(module)
        elif needed:
            report.bad(module, 'not installed', SET_UP)
            missing.add(module)
        else:
            report.note(module, 'not installed (optional)',
                        f'pip install "{requirement(module)}"')
    return missing


def requirement(module: str) -> str:
    """A package's distribution within the supported range."""
    name = DISTRIBUTIONS[module][0]
    return name + supported_range(module)[len(module):].replace(' ', '')


def check_files(report: Report) -> None:
    """Data sets and weights, where the configs look for them."""
    for name, (folder, variable, part, todo) in DATA.items():
        folder = Path(os.environ.get(variable or '') or folder)
        if (folder / part).is_dir():
            report.good(name, str(folder))
        else:
            report.note(name, f'not in {folder.absolute()}', todo)
    config = Path(__file__).parent / '.mim/configs/_base_/pretrained.py'
    if not config.exists():
        report.bad('configs', f'{config} is missing',
                   'pip install . (or -e .) in the repository')
        return
    for name, path in runpy.run_path(str(config))['pretrained'].items():
        if '://' in path:  # fetched when it is needed
            continue
        if Path(path).exists():
            report.good('weights', path)
        elif 'next' in name:
            report.note('weights', f'no {path}', 'never published: train them '
                        'with configs/classification')
        else:
            report.note('weights', f'no {path}',
                        f'python tools/get_weights.py {name} (or train with '
                        '--from-scratch)')


def attempt(report: Report, name: str, check, todo: str) -> None:
    """Run a check, and report what it says or how it fails."""
    try:
        report.good(name, check())
    except Exception as error:
        text = str(error).strip().partition('\n')[0]
        report.bad(name, f'{type(error).__name__}: {text}', todo)


def check_torch(report: Report) -> None:
    """torch with its GPUs, and torchvision."""

    def describe():
        import torch
        if not (torch.ones(2, 2) @ torch.ones(2, 2) == 2).all():
            raise RuntimeError('a product of ones is wrong')
        return (f'works, for CUDA {torch.version.cuda or "none"}, '
                f'{torch.get_num_threads()} threads')

    attempt(report, 'torch', describe, SET_UP)
    torch = sys.modules.get('torch')
    if torch is None:
        return
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(index)
            report.good('GPU', f'{facts.name}, compute capability '
                        f'{facts.major}.{facts.minor}, '
                        f'{facts.total_memory / GIGABYTE:.0f} GB')
        nvcc = shutil.which('nvcc')
        if nvcc:
            report.good('nvcc', nvcc)
    else:
        report.note(
            'GPU', 'torch sees none; all works on the CPU, slowly',
            'nvidia-smi says whether the driver does' if torch.version.cuda
            else 'this build of torch is for the CPU only')

    def run_torchvision():
        import torchvision
        kept = torchvision.ops.nms(*boxes_and_scores(torch), 0.5).tolist()
        if kept != [1, 2]:
            raise RuntimeError(f'nms keeps {kept} of [1, 2]')
        return f'{torchvision.__version__}, its ops work'

    attempt(report, 'torchvision', run_torchvision,
            f'install the one made for torch {torch.__version__}: {SET_UP}')


def boxes_and_scores(torch):
    """Boxes of which nms keeps 1 and 2."""
    boxes = torch.tensor([[0., 0, 9, 9], [0, 0, 9, 8], [20, 20, 29, 29]])
    return boxes, torch.tensor([.5, .9, .7])


def check_ops(report: Report, missing: set[str]) -> None:
    """mmcv's ops are run: those compiled for another torch may load."""
    if {'mmcv', 'mmengine'} & missing:
        return
    torch = sys.modules['torch']
    todo = f'{SET_UP} (compiles mmcv for this torch)'

    def run_ops(device):
        from mmcv.ops import get_compiling_cuda_version, nms, roi_align
        cuda = get_compiling_cuda_version()
        boxes, scores = (x.to(device) for x in boxes_and_scores(torch))
        kept = nms(boxes, scores, 0.5)[1].tolist()
        if kept != [1, 2]:
            raise RuntimeError(f'nms keeps {kept} of [1, 2]')
        # Contiguous: the op assumes so.
        ramp = torch.arange(8.).repeat(1, 1, 8, 1).to(device).requires_grad_()
        roi = torch.tensor([[0, 1., 1, 5, 5]], device=device)
        pooled = roi_align(ramp, roi, (1, 1), 1.0, 2, 'avg', True)
        pooled.sum().backward()
        # A ramp's average over columns 1 to 5, seen from pixels' centres
        if abs(pooled.item() - 2.5) > 1e-4 or abs(ramp.grad.sum() - 1) > 1e-4:
            raise RuntimeError(f'RoIAlign gives {pooled.item()} for 2.5')
        target = 'the CPU alone' if cuda == 'not available' else f'CUDA {cuda}'
        return f'nms and RoIAlign work (compiled for {target})'

    attempt(report, 'mmcv ops', lambda: run_ops('cpu'), todo)
    if torch.cuda.is_available():
        attempt(report, 'on the GPU', lambda: run_ops('cuda'), todo)


def import_apis(module: str) -> str:
    importlib.import_module(f'{module}.apis')
    return 'imports'


def check_models(report: Report) -> None:
    """The packages' imports, and a FishNet's forward and backward pass."""
    for module in ('mmdet', 'mmpretrain', 'mmseg'):
        if installed_version(module):
            attempt(report, module, partial(import_apis, module), SET_UP)

    def run_backbone():
        import torch

        from mmfishnet.models import FishNet
        model = FishNet(depth=99, out_indices=(0, 1, 2, 3))
        features = model(torch.zeros(1, 3, 64, 64))
        sum(feature.mean() for feature in features).backward()
        return 'FishNet-99 runs forward and backward'

    attempt(report, 'backbone', run_backbone, 'please report it')

# Copyright (c) mmfishnet authors. All rights reserved.
"""What works in this Python. Each probe runs something, and says what it
found as JSON has it, or raises what is wrong.

The doctor reports them. The set-up runs this file in the environment that it
makes, where nothing may be installed yet.
"""
from __future__ import annotations

import importlib
import re
import shutil
import sys
import warnings
from contextlib import redirect_stdout
from importlib import metadata
from io import StringIO
from pathlib import Path

# The environment, with the CUDA libraries that torch brings, and what the
# installer keeps; the checkpoints of a run, with the optimizer's state.
NEEDED_GB = {'set-up': 8, 'training': 5}


def disk(job: str, folder: str | Path = '.') -> str:
    """Whether a folder's disk has room for a job of ``NEEDED_GB``."""
    free = shutil.disk_usage(folder).free / 1e9
    text = f'{free:.{int(free < 10)}f} GB free in {Path(folder).absolute()}'
    if free < NEEDED_GB[job]:
        raise OSError(f'{text}; the {job} needs {NEEDED_GB[job]}')
    return text


def python() -> tuple[int, ...]:
    """Python's version."""
    return sys.version_info[:3]


def installed() -> dict[str, str]:
    """The versions of what is installed, by pip's names."""
    found = {}
    for dist in metadata.distributions():
        name = re.sub('[-_.]+', '-', dist.metadata['Name'] or '').lower()
        found.setdefault(name, dist.version)
    return found


def check_nms(nms, device: str) -> None:
    """Check what nms(boxes, scores, threshold) keeps of three boxes."""
    from torch import tensor
    boxes = tensor([[0., 0, 9, 9], [0, 0, 9, 8], [20, 20, 29, 29]])
    scores = tensor([.5, .9, .7])
    kept = nms(boxes.to(device), scores.to(device), 0.5).tolist()
    if kept != [1, 2]:
        raise RuntimeError(f'nms keeps {kept} of [1, 2]')


def torch() -> dict:
    """torch's version, its CUDA (None without), and the GPUs it sees."""
    import torch
    if not (torch.ones(2, 2) @ torch.ones(2, 2) == 2).all():
        raise RuntimeError('a product of ones is wrong')
    return dict(version=torch.__version__, cuda=torch.version.cuda,
                threads=torch.get_num_threads(), gpus=[
                    f'{gpu.name}, compute capability {gpu.major}.{gpu.minor}, '
                    f'{gpu.total_memory / 1e9:.0f} GB'
                    for gpu in map(torch.cuda.get_device_properties,
                                   range(torch.cuda.device_count()))])


def torchvision() -> str:
    """Its ops, which belong to one build of torch."""
    import torchvision
    check_nms(torchvision.ops.nms, 'cpu')
    return f'{torchvision.__version__}, its ops work'


def mmcv_ops(*devices: str) -> str:
    """The CUDA that mmcv's ops were compiled with, '' without.

    They are run: those compiled for another torch may load.

    Args:
        devices (str): Where. Defaults to the CPU, and a GPU where there is
            one and they are compiled for it.
    """
    import torch
    from mmcv.ops import get_compiling_cuda_version, nms, roi_align
    cuda = get_compiling_cuda_version()
    cuda = '' if cuda == 'not available' else cuda
    with_gpu = cuda and torch.cuda.is_available()
    for device in devices or ['cpu'] + ['cuda'] * bool(with_gpu):
        check_nms(lambda *args: nms(*args)[1], device)
        # Contiguous: the op assumes so.
        ramp = torch.arange(8.).repeat(1, 1, 8, 1).to(device).requires_grad_()
        roi = torch.tensor([[0, 1., 1, 5, 5]], device=device)
        pooled = roi_align(ramp, roi, (1, 1), 1.0, 2, 'avg', True)
        pooled.sum().backward()
        # A ramp's average over columns 1 to 5, seen from pixels' centres
        if abs(pooled.item() - 2.5) > 1e-4 or abs(ramp.grad.sum() - 1) > 1e-4:
            raise RuntimeError(f'RoIAlign gives {pooled.item()} for 2.5')
    return cuda


def cv2() -> str:
    """Its version; it needs libraries of the system."""
    import cv2
    return cv2.__version__


def imports(*modules: str) -> str:
    """Import modules; what they print is of no use here."""
    with redirect_stdout(StringIO()), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for module in modules:
            importlib.import_module(module)
    return 'imports'

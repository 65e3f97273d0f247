# Copyright (c) mmfishnet authors. All rights reserved.
"""What operators read, write and hold, and what a device can do."""
from __future__ import annotations

import weakref
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import conv2d
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.benchmark import Timer


def _tensors(tree) -> list[Tensor]:
    return [x for x in tree_leaves(tree) if isinstance(x, Tensor)]


class Meter(TorchDispatchMode):
    """Counts what operators read, write and hold, parameters aside.

    Attributes:
        traffic (int): Bytes of all tensors that operators read and wrote,
            views aside.
        peak (int): The most bytes of tensors that lived at a time, of those
            that came to be while it counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.traffic = self.peak = self._live = 0
        self._known = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        returned = func(*args, **kwargs)
        read = _tensors((args, kwargs))
        written = _tensors(returned)
        given = {x.untyped_storage()._cdata for x in read}
        new = [x for x in written
               if x.untyped_storage()._cdata not in given]
        if new or func._schema.is_mutable:
            self.traffic += sum(
                x.numel() * x.element_size() for x in (*read, *written))
        for x in new:
            storage = x.untyped_storage()
            key = storage._cdata
            if key not in self._known:
                self._known[key] = storage.nbytes()
                self._live += storage.nbytes()
                weakref.finalize(storage, self._free, key)
        self.peak = max(self.peak, self._live)
        return returned

    def _free(self, key: int) -> None:
        self._live -= self._known.pop(key)


def measure_limits(device: str, bf16: bool,
                   threads: int) -> tuple[float, float]:
    """Measure what the device can do.

    Args:
        device (str): The device.
        bf16 (bool): Whether to multiply in bfloat16 or float32.
        threads (int): Threads of the CPU.

    Returns:
        tuple[float, float]: FLOP a second, two a multiply-add, in a large
        matrix product or 1x1 convolution; bytes a second read and written
        by a copy.
    """
    side = 8192 if device.startswith('cuda') else 1024
    matrix = torch.randn(side, side, device=device)
    images = torch.randn(4, side, 32, 32, device=device)
    big = torch.empty(2**25, device=device)
    if bf16:
        matrix, images = matrix.bfloat16(), images.bfloat16()
    names = dict(
        a=matrix,
        kernel=matrix[:, :, None, None],
        images=images.contiguous(memory_format=torch.channels_last),
        big=big,
        other=torch.empty_like(big),
        conv2d=conv2d)
    product, convolution, copy = (
        Timer(stmt, globals=names, num_threads=threads).blocked_autorange(
            min_run_time=0.1).median
        for stmt in ('a @ a', 'conv2d(images, kernel)', 'other.copy_(big)'))
    # On some CPUs convolutions have the faster library of the two.
    rate = 2 * side**2 * max(side / product, 4 * 32**2 / convolution)
    return rate, 2 * 4 * 2**25 / copy


def largest_error(found: Sequence[Tensor], truth: Sequence[Tensor]) -> float:
    """Largest difference, over the largest value, of any pair of tensors.

    Args:
        found (Sequence[Tensor]): What was computed.
        truth (Sequence[Tensor]): What it should be.

    Returns:
        float: The error; 0 for no tensors at all.
    """
    return max((float((a - b).abs().max() / b.abs().max().clamp(min=1e-300))
                for a, b in zip(found, truth, strict=True)), default=0.0)

# Copyright (c) mmfishnet authors. All rights reserved.
"""How features lie in memory, and what a compiler is told of their sizes."""
from __future__ import annotations

import torch
from torch import Tensor, nn

try:
    from torch.compiler import is_compiling, is_dynamo_compiling
except ImportError:  # torch < 2.2
    from torch._dynamo import is_compiling
    is_dynamo_compiling = is_compiling


def is_recorded(x: Tensor) -> bool:
    """Whether autograd, and nobody else, takes down what is done to x."""
    return (not is_compiling() and not torch.jit.is_tracing()
            and torch.is_grad_enabled() and isinstance(x, Tensor)
            and x.requires_grad)


def layout_of(x: Tensor) -> torch.memory_format:
    """Tell channels-last features (N, C, H, W) from others.

    Args:
        x (Tensor): The feature.

    Returns:
        torch.memory_format: ``torch.channels_last`` or
        ``torch.contiguous_format``, also where both are true.
    """
    # What traces a network has no layout.
    if (isinstance(x, Tensor)
            and x.is_contiguous(memory_format=torch.channels_last)
            and not x.is_contiguous()):
        return torch.channels_last
    return torch.contiguous_format


def to_fast_layout(x: Tensor) -> Tensor:
    """Lay images out as convolutions are computed fastest on a CPU.

    Features take the layout of the image, and oneDNN needs a third more time
    for channels that lie apart. What torch compiles wants it on any device:
    the code that it generates for the gradient of a convolution serves one
    size alone otherwise.

    Args:
        x (Tensor): Images (N, C, H, W).

    Returns:
        Tensor: The same in channels-last; x itself on other devices, and
        where a tracer or an exporter looks on.
    """
    if isinstance(x, Tensor) and not torch.jit.is_tracing() and (
            is_dynamo_compiling() or x.is_cpu and not is_compiling()):
        return x.contiguous(memory_format=torch.channels_last)
    return x


def laid_out_as(feature: Tensor, x: Tensor) -> Tensor:
    """Give a feature the layout of the image that it was computed from.

    Args:
        feature (Tensor): Feature (N, C, H / stride, W / stride).
        x (Tensor): The image (N, C, H, W) before :func:`to_fast_layout`.

    Returns:
        Tensor: The feature in the layout of x.
    """
    layout = layout_of(x)
    if layout_of(feature) == layout:
        return feature
    if is_recorded(feature):
        return _Laid.apply(feature, layout)
    return feature.contiguous(memory_format=layout)


class _Laid(torch.autograd.Function):
    """Another layout; the gradient gets back that of the feature, without
    which all gradients before it would have none that is fast."""

    @staticmethod
    def forward(x, layout):
        return x.contiguous(memory_format=layout)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.layout = layout_of(inputs[0])

    @staticmethod
    def backward(ctx, grad):
        return grad.contiguous(memory_format=ctx.layout), None


def open_size(x: Tensor, stride: int = 32) -> Tensor:
    """Let ``torch.compile`` know that the sizes of images divide evenly.

    Rounded up and down in each stage, the size of a feature becomes a formula
    that slows down its compiler, and what that compiles. In images of
    n * stride pixels every one is a multiple of n.

    Args:
        x (Tensor): Images (N, C, H, W).
        stride (int): That of the last stage. Defaults to 32.

    Returns:
        Tensor: x, its size said as ``stride * ceil(size / stride)`` if it is
        being compiled and a multiple.
    """
    if is_dynamo_compiling():
        height, width = ((size + stride - 1) // stride * stride
                         for size in x.shape[-2:])
        if height == x.shape[-2] and width == x.shape[-1]:
            return x.narrow(-2, 0, height).narrow(-1, 0, width)
    return x


def double(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Up-sample by nearest neighbours.

    Args:
        x (Tensor): Feature (N, C, ceil(H / 2), ceil(W / 2)).
        size (tuple[int, int]): H and W.

    Returns:
        Tensor: Feature (N, C, H, W), in the layout of x.
    """
    if not (is_dynamo_compiling() and x.requires_grad):
        return nn.functional.interpolate(x, size=size, mode='nearest')
    # In operators that inductor joins with those around, the gradient too: a
    # step takes 0.93 of the time.
    channels_last = layout_of(x) == torch.channels_last
    if channels_last:
        x = x.permute(0, 2, 3, 1)
    first = 1 if channels_last else 2
    for dim, length in enumerate(size, first):
        x = x.unsqueeze(dim + 1).expand(
            *x.shape[:dim + 1], 2, *x.shape[dim + 1:])
        x = x.flatten(dim, dim + 1).narrow(dim, 0, length)
    return x.permute(0, 3, 1, 2) if channels_last else x

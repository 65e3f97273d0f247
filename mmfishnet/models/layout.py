# Copyright (c) mmfishnet authors. All rights reserved.
"""How features lie in memory, and what a compiler is told of their sizes."""
from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual

try:
    from torch.compiler import is_compiling, is_dynamo_compiling
except ImportError:  # torch < 2.2
    from torch._dynamo import is_compiling
    is_dynamo_compiling = is_compiling

# Where what we do ourselves was tried to be what torch does.
DEVICES = ('cpu', 'cuda', 'meta')


def is_watched(*tensors: Tensor | None) -> bool:
    """Whether somebody takes down what is done to tensors who is not
    autograd's backward pass: a compiler, a tracer, an exporter, functorch,
    forward-mode differentiation, a class of tensors, a device of its own.
    """
    return is_compiling() or torch.jit.is_tracing() or not all(
        x is None or _is_plain(x) for x in tensors)


def _is_plain(x: Tensor) -> bool:
    if type(x) not in (Tensor, nn.Parameter) or x.device.type not in DEVICES:
        return False
    try:
        x.untyped_storage()
    except NotImplementedError:  # functorch's tensors have no memory
        return False
    return unpack_dual(x).tangent is None


def is_recorded(x: Tensor) -> bool:
    """Whether autograd, and nobody else, takes down what is done to x."""
    return (torch.is_grad_enabled() and isinstance(x, Tensor)
            and x.requires_grad and not is_watched(x))


def layout_of(x: Tensor) -> torch.memory_format:
    """Tell channels-last features (N, C, H, W) from others.

    Args:
        x (Tensor): The feature.

    Returns:
        torch.memory_format: ``torch.channels_last`` or
        ``torch.contiguous_format``, also where both are true.
    """
    # What traces a network has no layout, nor has what vmap makes.
    if ((is_compiling() or _is_plain(x))
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
    if is_dynamo_compiling() or not is_watched(x) and x.is_cpu:
        return channels_last(x)
    return x


def channels_last(x: Tensor) -> Tensor:
    """Lay images (N, C, H, W) out in channels-last.

    Where there is one channel, torch takes either layout for the other, and
    lets what follows have that of the strides.
    """
    if x.dim() == 4 and x.shape[1] == 1 and x.stride(1) != 1:
        return x.contiguous()[:, 0, :, :, None].permute(0, 3, 1, 2)
    return x.contiguous(memory_format=torch.channels_last)


def channels_first(feature: Tensor) -> Tensor:
    """Lay a feature out as others expect it.

    Args:
        feature (Tensor): Channels-last feature (N, C, H, W) of an image that
            :func:`to_fast_layout` has converted.

    Returns:
        Tensor: The feature, contiguous.
    """
    # Of what is contiguous a function would return a view.
    if is_recorded(feature) and not feature.is_contiguous():
        return _ChannelsFirst.apply(feature)
    return feature.contiguous()


class _ChannelsFirst(torch.autograd.Function):
    """The gradient gets the layout of the feature back, without which all
    before it would be in the slower one."""

    @staticmethod
    def forward(x):
        return x.contiguous()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, grad):
        return grad.contiguous(memory_format=torch.channels_last)


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
        Tensor: Feature (N, C, H, W), in the layout of x, which is
        channels-last where it is compiled.
    """
    if not (is_dynamo_compiling() and x.requires_grad):
        return nn.functional.interpolate(x, size=size, mode='nearest')
    # In operators that inductor joins with those around, the gradient too: a
    # step takes 0.93 of the time.
    x = x.permute(0, 2, 3, 1)
    for dim, length in enumerate(size, 1):
        x = x.unsqueeze(dim + 1).expand(
            *x.shape[:dim + 1], 2, *x.shape[dim + 1:])
        x = x.flatten(dim, dim + 1).narrow(dim, 0, length)
    return x.permute(0, 3, 1, 2)

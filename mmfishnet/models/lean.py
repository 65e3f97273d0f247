# Copyright (c) mmfishnet authors. All rights reserved.
"""Norm-ReLU and max-pooling that keep little for the backward pass.

They are torch's functions, to the bit; what autograd keeps of them differs.
Where somebody looks on (a compiler, an exporter, a tracer), torch's own
operators are what there is to see.
"""
from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

try:
    from torch.compiler import is_compiling, is_dynamo_compiling
except ImportError:  # torch < 2.2
    from torch._dynamo import is_compiling
    is_dynamo_compiling = is_compiling


def _is_recorded(x: Tensor) -> bool:
    """Whether autograd, and nobody else, takes down what is done to x."""
    return (not is_compiling() and not torch.jit.is_tracing()
            and torch.is_grad_enabled() and isinstance(x, Tensor)
            and x.requires_grad)


def norm_relu(norm: nn.Module, relu: nn.Module, x: Tensor) -> Tensor:
    """ReLU of a norm: what every norm-ReLU of our networks goes through.

    A batch norm with fixed statistics and a fixed affine (section 4.4 fixes
    them all) is a scaling. Its gradient needs no input, and that of the ReLU
    no more than the output, which the next convolution keeps anyway.

    Args:
        norm (nn.Module): The norm layer, or any other.
        relu (nn.Module): The ReLU behind it.
        x (Tensor): Feature (N, C, H, W).

    Returns:
        Tensor: ``relu(norm(x))``.
    """
    if (_is_recorded(x) and isinstance(norm, _BatchNorm)
            and not norm.training and norm.track_running_stats and norm.affine
            and not norm.weight.requires_grad
            and not norm.bias.requires_grad):
        return _FixedNormReLU.apply(x, norm, relu)
    return relu(norm(x))


class _FixedNormReLU(torch.autograd.Function):

    @staticmethod
    def forward(x, norm, relu):
        return relu(norm(x))

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, norm, _ = inputs
        ctx.eps = norm.eps
        ctx.save_for_backward(output, norm.weight, norm.running_var)

    @staticmethod
    def backward(ctx, grad):
        output, weight, var = ctx.saved_tensors
        # In the precision of the norm, whatever that of the feature is.
        scale = weight * (var + ctx.eps).rsqrt()
        grad = torch.ops.aten.threshold_backward(grad, output, 0)
        return grad.mul_(scale[:, None, None]), None, None


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


class MaxPool2x2(nn.MaxPool2d):
    """2x2 max-pooling, (N, C, H, W) to (N, C, ceil(H / 2), ceil(W / 2)).

    It keeps a byte an output, in which corner of its window the maximum is,
    instead of the input and an index of eight bytes.
    """

    def __init__(self) -> None:
        super().__init__(2, stride=2, ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        """Pool (N, C, H, W)."""
        if _is_recorded(x):
            return _MaxPool2x2.apply(x)[0]
        if is_compiling():
            # What ceil_mode makes of an odd size needs no question of
            # whether it is one: one graph serves all sizes.
            x = nn.functional.pad(x, (0, 1, 0, 1), value=float('-inf'))
            return nn.functional.max_pool2d(x, 2)
        return super().forward(x)


class _MaxPool2x2(torch.autograd.Function):

    @staticmethod
    def forward(x):
        layout = layout_of(x)
        if x.is_cpu:
            # torch pools channels-last features in a twentieth of the time.
            x = x.contiguous(memory_format=torch.channels_last)
        pooled, index = nn.functional.max_pool2d(
            x, 2, stride=2, ceil_mode=True, return_indices=True)
        height, width = pooled.shape[-2:]
        columns = x.shape[-1]
        # An index counts the places of the plane; from the window's first
        # corner on, 0 and 1 are in its upper row.
        first = torch.arange(height, device=x.device)[:, None] * columns
        index -= 2 * (first + torch.arange(width, device=x.device))
        lower = index >= columns
        corner = (index - lower * (columns - 2)).to(torch.uint8)
        return (pooled.contiguous(memory_format=layout),
                corner.contiguous(memory_format=layout))

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, corner = output
        ctx.mark_non_differentiable(corner)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(corner)
        ctx.shape, ctx.layout = inputs[0].shape, layout_of(inputs[0])

    @staticmethod
    def backward(ctx, grad, _):
        if grad is None:
            return None
        corner, = ctx.saved_tensors
        spread = torch.empty(
            ctx.shape,
            dtype=grad.dtype,
            device=grad.device,
            memory_format=ctx.layout)
        for i in range(4):
            place = spread[..., i // 2::2, i % 2::2]
            inside = (..., *map(slice, place.shape[-2:]))
            # Twice as fast as to select; the same unless grad is infinite.
            place.copy_(grad[inside] * (corner == i)[inside])
        return spread


def layout_of(x: Tensor) -> torch.memory_format:
    """Tell channels-last features (N, C, H, W) from others.

    Args:
        x (Tensor): The feature.

    Returns:
        torch.memory_format: ``torch.channels_last`` or
        ``torch.contiguous_format``, also where both are true.
    """
    if (x.is_contiguous(memory_format=torch.channels_last)
            and not x.is_contiguous()):
        return torch.channels_last
    return torch.contiguous_format

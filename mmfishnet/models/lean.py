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

from .layout import is_compiling, is_recorded, layout_of


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
    if (is_recorded(x) and isinstance(norm, _BatchNorm)
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


class MaxPool2x2(nn.MaxPool2d):
    """2x2 max-pooling, (N, C, H, W) to (N, C, ceil(H / 2), ceil(W / 2)).

    It keeps a byte an output, in which corner of its window the maximum is,
    instead of the input and an index of eight bytes.
    """

    def __init__(self) -> None:
        super().__init__(2, stride=2, ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        """Pool (N, C, H, W)."""
        if is_recorded(x):
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
        return pooled, corner

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

# Copyright (c) mmfishnet authors. All rights reserved.
"""Norm-ReLU-convolution and max-pooling that keep little for the backward
pass.

They are torch's functions, to the bit; what autograd keeps of them differs.
Where that is not known (a class of one's own, a hook on a layer), or where
somebody else looks on (a compiler, an exporter, a tracer, functorch), the
layers are called one after the other.
"""
from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn
from torch.nn.modules import module as torch_module
from torch.nn.modules.batchnorm import _BatchNorm

from .layout import is_compiling, is_recorded, is_watched, layout_of

HOOKS = ('_forward_hooks', '_forward_pre_hooks', '_backward_hooks',
         '_backward_pre_hooks')


def norm_relu_conv(norm: nn.Module, relu: nn.Module, conv: Callable | None,
                   x: Tensor) -> Tensor:
    """What every norm-ReLU-convolution of our networks goes through.

    Layer by layer, autograd keeps what the norm reads and what the
    convolution reads. One is enough. A batch norm with fixed statistics and a
    fixed affine (section 4.4 fixes them all) is a scaling, whose gradient
    needs no input; behind other norms, what the convolution reads is computed
    once more. A SyncBN that talks to other processes is left as it is.

    Args:
        norm (nn.Module): The norm layer, or any other.
        relu (nn.Module): The ReLU behind it.
        conv (Callable, optional): What reads it; None for nothing.
        x (Tensor): Feature (N, C, H, W).

    Returns:
        Tensor: ``conv(relu(norm(x)))``.
    """
    known = (
        _is_torchs(norm, _BatchNorm, nn.SyncBatchNorm, nn.GroupNorm)
        and _is_torchs(relu, nn.ReLU) and not is_watched(x))
    if known and norm.affine and x.dim() == 4:
        args = x, norm.weight, norm.bias
        if _is_fixed(norm):
            if is_recorded(x) and not is_watched(*args):
                x = _FixedNormReLU.apply(x, norm)
                return x if conv is None else conv(x)
        elif any(map(is_recorded, args)) and _can_join(norm, conv, x):
            args += conv.weight, conv.bias
            if not is_watched(*args):
                return _NormReLUConv.apply(*args, norm, conv)
    x = norm(x)
    # A hook would see, or forbid, what is done in place.
    x = x.relu_() if known else relu(x)
    return x if conv is None else conv(x)


def _is_torchs(module: Callable, *kinds: type[nn.Module]) -> bool:
    """Whether a module computes what torch's does, and nobody looks on."""
    forward = getattr(type(module), 'forward', None)
    return (any(forward is kind.forward for kind in kinds)
            and 'forward' not in vars(module) and not any(
                getattr(module, hooks) or getattr(
                    torch_module, f'_global{hooks}') for hooks in HOOKS))


def _is_live(norm: nn.Module) -> bool:
    return isinstance(norm, _BatchNorm) and (norm.training
                                             or norm.running_mean is None)


def _is_fixed(norm: nn.Module) -> bool:
    return (isinstance(norm, _BatchNorm) and not _is_live(norm)
            and not norm.weight.requires_grad and not norm.bias.requires_grad)


def _can_join(norm: nn.Module, conv: Callable | None, x: Tensor) -> bool:
    """Whether :class:`_NormReLUConv` computes what these layers do."""
    if not _is_torchs(conv, nn.Conv2d) or (
            conv.padding_mode != 'zeros' or isinstance(conv.padding, str)):
        return False
    in_company = (isinstance(norm, nn.SyncBatchNorm)
                  and distributed.is_available()
                  and distributed.is_initialized())
    # Of one value torch refuses to compute statistics.
    return not _is_live(norm) or (not in_company and norm.momentum is not None
                                  and x.numel() > x.shape[1])


class _FixedNormReLU(torch.autograd.Function):
    """Keeps its output, which the convolution behind it keeps anyway."""

    @staticmethod
    def forward(x, norm):
        return norm(x).relu_()

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, norm = inputs
        ctx.eps = norm.eps
        ctx.save_for_backward(output, norm.weight, norm.running_var)

    @staticmethod
    def backward(ctx, grad):
        output, weight, var = ctx.saved_tensors
        grad = torch.ops.aten.threshold_backward(grad, output, 0)
        return _scaled(grad, _inverse(var, ctx.eps), weight), None


def _inverse(var: Tensor, eps: float) -> Tensor:
    """The inverse deviation, as torch's backward has it."""
    return (var.double() + eps).rsqrt().to(var.dtype)


def _scaled(grad: Tensor, *factors: Tensor) -> Tensor:
    """In place, in the norm's precision and in torch's order, to the bit."""
    for factor in factors:
        grad = grad.to(factor.dtype).mul_(factor[:, None, None])
    return grad


class _NormReLUConv(torch.autograd.Function):
    """Keeps the norm's input, mean and inverse deviation, and computes the
    convolution's input once more."""

    @staticmethod
    def forward(ctx, x, weight, bias, kernel, kernel_bias, norm, conv):
        ctx.groups = getattr(norm, 'num_groups', None)
        ctx.live, ctx.eps = _is_live(norm), norm.eps
        ctx.conv = conv.stride, conv.padding, conv.dilation, conv.groups
        mean = var = inverse = None
        if isinstance(norm, _BatchNorm) and norm.track_running_stats:
            mean, var = norm.running_mean, norm.running_var
        if ctx.live:
            if mean is not None and norm.num_batches_tracked is not None:
                norm.num_batches_tracked.add_(1)
            # Those of the batch.
            y, mean, inverse = torch.native_batch_norm(
                x, weight, bias, mean, var, True, norm.momentum, ctx.eps)
        elif ctx.groups and x.dtype == weight.dtype:
            x = _in_order(x)
            y, mean, inverse = torch.native_group_norm(
                x, weight, bias, *_sizes(ctx, x), ctx.eps)
        else:
            y = _normalise(ctx, x, weight, bias, mean, var)
        ctx.dtype = y.dtype
        ctx.save_for_backward(x, weight, bias, kernel, kernel_bias, mean,
                              inverse, None if ctx.live else var)
        # Autocast would remember its copy of a parameter, without gradient.
        return F.conv2d(y.relu_(), *map(_detached, (kernel, kernel_bias)),
                        *ctx.conv)

    @staticmethod
    def backward(ctx, grad):
        if torch.is_grad_enabled():
            return _second_order(ctx, grad)
        x, weight, bias, kernel, kernel_bias, mean, inverse, var = \
            ctx.saved_tensors
        ops = torch.ops.aten
        x = x.to(ctx.dtype)
        if ctx.groups and mean is None:
            x = _in_order(x)
            y, mean, inverse = torch.native_group_norm(
                x, weight, bias, *_sizes(ctx, x), ctx.eps)
        else:
            if var is not None:  # as torch's forward has it
                inverse = (var + ctx.eps).rsqrt()
            y = _scale(ctx, x, weight, bias, mean, inverse)
        y.relu_()
        grad, *grads = ops.convolution_backward(
            grad, y.to(grad.dtype), kernel.to(grad.dtype),
            kernel_bias is not None and kernel_bias.shape or None,
            *ctx.conv[:3], False, (0, 0), ctx.conv[3],
            (True, *ctx.needs_input_grad[3:5]))
        grad = grad.to(y.dtype)
        # Nobody else has it: one feature less lives at the peak.
        ops.threshold_backward.grad_input(grad, y, 0, grad_input=grad)
        del y
        mask = ctx.needs_input_grad[:3]
        if ctx.groups:
            norm_grads = ops.native_group_norm_backward(
                _in_order(grad), x, mean, inverse, weight, *_sizes(ctx, x),
                mask)
        else:
            if var is not None:  # as its backward has it
                inverse = _inverse(var, ctx.eps)
            norm_grads = ops.native_batch_norm_backward(
                grad, x, weight, None, None, mean, inverse, True, ctx.eps,
                (mask[0] and ctx.live, *mask[1:]))
            if not ctx.live:  # a scaling
                norm_grads = _scaled(grad, inverse, weight), *norm_grads[1:]
        return *norm_grads, *grads, None, None


def _scale(ctx, x, weight, bias, mean, inverse):
    """The norm of what has this mean and inverse deviation, to the bit."""
    if ctx.groups:  # (N, groups), of channels one after the other
        each = x.shape[1] // ctx.groups
        mean, inverse = (t.repeat_interleave(each, 1) for t in (mean, inverse))
    scale = inverse * weight
    shift = torch.addcmul(bias, mean, scale, value=-1)
    return torch.addcmul(shift[..., None, None], x,
                         scale[..., None, None]).to(x.dtype)


def _in_order(x: Tensor) -> Tensor:
    """As torch's group norm wants to find it."""
    return x.contiguous(memory_format=layout_of(x) if x.is_cpu else
                        torch.contiguous_format)


def _sizes(ctx, x):
    return *x.shape[:2], x[0, 0].numel(), ctx.groups


def _detached(x: Tensor | None) -> Tensor | None:
    return x if x is None else x.detach()


def _normalise(ctx, x, weight, bias, mean, var):
    if ctx.groups:
        return F.group_norm(x, ctx.groups, weight, bias, ctx.eps)
    return F.batch_norm(x, mean, var, weight, bias, mean is None, 0., ctx.eps)


def _second_order(ctx, grad):
    """The gradients of torch's layers, to be derived once more."""
    x, weight, bias, kernel, kernel_bias, mean, _, var = ctx.saved_tensors
    if ctx.live:
        mean = None
    y = _normalise(ctx, x.to(ctx.dtype), weight, bias, mean, var).relu()
    inputs = x, weight, bias, kernel, kernel_bias
    out = F.conv2d(y.to(grad.dtype), kernel.to(grad.dtype), kernel_bias,
                   *ctx.conv)
    wanted = [i for i in range(5) if ctx.needs_input_grad[i]]
    grads = dict(zip(wanted, torch.autograd.grad(
        out, [inputs[i] for i in wanted], grad, create_graph=True)))
    return *map(grads.get, range(7)),


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

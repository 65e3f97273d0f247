# Copyright (c) mmfishnet authors. All rights reserved.
"""The parts of Figure 3: residual unit M, channel reduction r, transfer T,
UR-block and DR-block, and the bridge between tail and body.

Modules are registered in the order in which they run: MMCV's
``fuse_conv_bn`` folds a norm into the convolution registered before it.
"""
from __future__ import annotations

from functools import reduce
from operator import add

import torch
from mmcv.cnn import build_conv_layer, build_norm_layer
from mmengine.model import BaseModule, Sequential, constant_init
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..kinds import find_class
from .layout import double, layout_of
from .lean import norm_relu_conv
from .recompute import recompute

# How all of our modules start unless their ``init_cfg`` says otherwise.
INIT_CFG = [
    dict(type='Kaiming', layer='Conv2d'),
    dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm'])
]

# Fewer channels than this in a group normalise little but the noise.
MIN_GN_GROUP = 8


def build_norm(norm_cfg: dict, channels: int) -> nn.Module:
    """Build a norm layer; fit the number of GN groups to narrow layers.

    Many of FishNet's layers have widths that 32 does not divide (80, 208,
    400) or are as narrow as 16. For GN, ``num_groups`` is therefore taken as
    an upper bound: the largest divisor of ``channels`` up to it that leaves
    at least 8 channels in a group (one group where there is none).

    Args:
        norm_cfg (dict): MMCV's config of a norm layer.
        channels (int): Channels of the feature to be normalised.

    Returns:
        nn.Module: The norm layer.

    Raises:
        ValueError: If ``num_groups`` of GN is missing.
    """
    kind = find_class(MODELS, norm_cfg)
    if kind is nn.GroupNorm:
        if 'num_groups' not in norm_cfg:
            raise ValueError(
                f'norm_cfg={norm_cfg!r} lacks num_groups, a positive number '
                "such as 32: norm_cfg=dict(type='GN', num_groups=32).")
        most = min(norm_cfg['num_groups'], channels // MIN_GN_GROUP)
        groups = next((g for g in range(most, 0, -1) if channels % g == 0), 1)
        norm_cfg = dict(norm_cfg, num_groups=groups)
    return build_norm_layer(
        dict(norm_cfg, type=kind or norm_cfg['type']), channels)[1]


class Layers(Sequential):
    """Layers in a row; a norm goes with the ReLU and convolution behind it."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute one after the other."""
        layers = list(self)
        while layers:
            layer = layers.pop(0)
            if layers and isinstance(layers[0], nn.ReLU):
                relu, conv = layers.pop(0), None
                if layers and isinstance(layers[0], nn.Conv2d):
                    conv = layers.pop(0)
                x = norm_relu_conv(layer, relu, conv, x)
            else:
                x = layer(x)
        return x


class _SparseConv1x1(nn.Conv2d):
    """A strided 1x1 convolution that picks its places itself.

    The gradient of torch 2.13's own writes beyond its memory, on a CPU and in
    channels-last, where there are fewer than 16 input channels.
    """

    def forward(self, x: Tensor) -> Tensor:
        height, width = self.stride
        return nn.functional.conv2d(x[..., ::height, ::width], self.weight,
                                    self.bias)


def conv1x1(in_channels: int,
            out_channels: int,
            stride: int = 1) -> nn.Conv2d:
    """Build a 1x1 convolution without bias.

    Args:
        in_channels (int): Input channels.
        out_channels (int): Output channels.
        stride (int): Stride. Defaults to 1.

    Returns:
        nn.Conv2d: The convolution.
    """
    narrow = stride > 1 and in_channels < 16
    kind = _SparseConv1x1 if narrow else nn.Conv2d
    return kind(in_channels, out_channels, 1, stride=stride, bias=False)


def pre_act_conv(in_channels: int,
                 out_channels: int,
                 norm_cfg: dict,
                 stride: int = 1) -> Layers:
    """Norm, ReLU and an isolated 1x1 convolution (section 2).

    Args:
        in_channels (int): Input channels.
        out_channels (int): Output channels.
        norm_cfg (dict): Config of the norm layer.
        stride (int): Stride of the convolution. Defaults to 1.

    Returns:
        Layers: The three layers.
    """
    return Layers(
        build_norm(norm_cfg, in_channels), nn.ReLU(),
        conv1x1(in_channels, out_channels, stride))


class ChannelReduction(nn.Module):
    """Channel-wise reduction r(x) of the UR-block (eq. 8).

    Sums every k adjacent channels into one, element by element. It has no
    weight, so the gradient passes it unchanged.

    Args:
        k (int): Reduction rate, c_in / c_out.
    """

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    def forward(self, x: Tensor) -> Tensor:
        """Reduce (N, C, H, W) to (N, C / k, H, W), in the layout of x."""
        # A sum over a dimension of (N, C / k, k, H, W) would return, and its
        # gradient have, the layout of those who keep channels first.
        if layout_of(x) == torch.channels_last:
            parts = x.permute(0, 2, 3, 1).unflatten(3, (-1, self.k)).unbind(4)
            return reduce(add, parts).permute(0, 3, 1, 2)
        parts = x.unflatten(1, (-1, self.k)).unbind(2)
        return reduce(add, (parts[i] for i in range(self.k)))

    def extra_repr(self) -> str:
        return f'k={self.k}'


class Bottleneck(BaseModule):
    """Pre-activation bottleneck: shortcut(x) + M(x) (eq. 1, 6 and 9).

    M is norm-ReLU-1x1, norm-ReLU-3x3, norm-ReLU-1x1 convolution.

    Args:
        in_channels (int): Input channels.
        out_channels (int): Output channels.
        expansion (int): Output channels over those of the 3x3 convolution.
            Defaults to 4.
        group_width (int, optional): Channels in a group of the 3x3
            convolution; None for no grouping. Defaults to None.
        stride (int): Stride of the 3x3 convolution. Defaults to 1.
        dilation (int): Dilation of the 3x3 convolution. Defaults to 1.
        shortcut (nn.Module, optional): What x passes beside M; None for the
            identity. Defaults to None.
        norm_cfg (dict): Config of the norm layers.
            Defaults to ``dict(type='BN')``.
        conv_cfg (dict, optional): Config of the 3x3 convolution, such as
            ``dict(type='DCNv2')``. Defaults to None, a plain one.
    """

    def __init__(self,
                 in_channels: int,
                 out_channels: int,
                 expansion: int = 4,
                 group_width: int | None = None,
                 stride: int = 1,
                 dilation: int = 1,
                 shortcut: nn.Module | None = None,
                 norm_cfg: dict = dict(type='BN'),
                 conv_cfg: dict | None = None) -> None:
        super().__init__()
        mid = out_channels // expansion
        groups = mid // group_width if group_width else 1
        self.norm1 = build_norm(norm_cfg, in_channels)
        self.conv1 = conv1x1(in_channels, mid)
        self.norm2 = build_norm(norm_cfg, mid)
        self.conv2 = build_conv_layer(
            conv_cfg,
            mid,
            mid,
            3,
            stride=stride,
            padding=dilation,
            dilation=dilation,
            groups=groups,
            bias=False)
        self.norm3 = build_norm(norm_cfg, mid)
        self.conv3 = conv1x1(mid, out_channels)
        self.relu = nn.ReLU()
        self.shortcut = shortcut or nn.Identity()
        self.deformable = conv_cfg is not None

    def init_weights(self) -> None:
        """Let a deformable convolution start as a plain one."""
        super().init_weights()
        if hasattr(self.conv2, 'conv_offset'):
            constant_init(self.conv2.conv_offset, 0)

    def _apply(self, fn, *args, **kwargs) -> Bottleneck:
        super()._apply(fn, *args, **kwargs)
        if self.deformable:
            # MMCV's operators take every tensor for a contiguous one, so
            # their weights do not follow a model into channels-last.
            for param in self.conv2.parameters():
                param.data = param.data.contiguous()
        return self

    def _deform(self, x: Tensor) -> Tensor:
        layout = layout_of(x)
        return self.conv2(x.contiguous()).contiguous(memory_format=layout)

    def message(self, x: Tensor) -> Tensor:
        """M(x): (N, C_in, H, W) to (N, C_out, H / stride, W / stride)."""
        conv2 = self._deform if self.deformable else self.conv2
        x = norm_relu_conv(self.norm1, self.relu, self.conv1, x)
        x = norm_relu_conv(self.norm2, self.relu, conv2, x)
        return norm_relu_conv(self.norm3, self.relu, self.conv3, x)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, H / stride, W / stride)."""
        return self.shortcut(x) + self.message(x)


class Bridge(BaseModule):
    """What refines between tail and body, with a SE gate (section 3.2).

    Args:
        channels (int): Channels of the last tail stage and of the output.
        blocks (nn.Module): Residual blocks from ``2 * channels`` to
            ``channels``.
        norm_cfg (dict): Config of the norm layers.
            Defaults to ``dict(type='BN')``.
    """

    def __init__(self,
                 channels: int,
                 blocks: nn.Module,
                 norm_cfg: dict = dict(type='BN')) -> None:
        super().__init__()
        squeezed, expanded = channels // 2, channels * 2
        hidden = channels // 16
        self.squeeze = Layers(
            *pre_act_conv(channels, squeezed, norm_cfg),
            build_norm(norm_cfg, squeezed), nn.ReLU())
        self.expand = nn.Conv2d(squeezed, expanded, 1)
        self.gate = Layers(
            build_norm(norm_cfg, expanded), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(expanded, hidden, 1),
            nn.ReLU(), nn.Conv2d(hidden, channels, 1),
            nn.Sigmoid())
        self.blocks = blocks

    def forward(self, x: Tensor) -> Tensor:
        """Refine (N, C, H, W) to (N, C, H, W)."""
        x = self.expand(self.squeeze(x))
        gate = self.gate(x)
        x = self.blocks(x)
        # Expanded, so that an exporter need not ask whether H and W are 1.
        gate = gate.expand_as(x)
        return x * gate + gate


class Stage(BaseModule):
    """A stage of the fish: refine, resample, concatenate.

    The paper's blocks begin with the concatenation (eq. 7); here, as in the
    authors' code, it ends the stage before, so that the output of a stage is
    all that the next one reads.

    Args:
        refine (nn.Module): What refines the input at its own resolution:
            residual blocks, or the bridge.
        down (nn.Module, optional): Down-sampling. Defaults to None.
        transfer (nn.Module, optional): Residual blocks T through which the
            joined feature passes (eq. 4); None where nothing is joined.
            Defaults to None.
        with_cp (bool): Whether to recompute ``refine`` and ``transfer`` in
            the backward pass instead of keeping their inside. Defaults to
            False.
    """

    def __init__(self,
                 refine: nn.Module,
                 down: nn.Module | None = None,
                 transfer: nn.Module | None = None,
                 with_cp: bool = False) -> None:
        super().__init__()
        self.refine = refine
        self.down = down
        self.transfer = transfer
        self.with_cp = with_cp

    def resample(self, refined: Tensor, joined: Tensor | None) -> Tensor:
        """Bring what was refined to the resolution of the output."""
        if self.down is None:
            return refined
        # Of a pooling there is nothing to recompute.
        strided = isinstance(self.down, Bottleneck)
        return recompute(self.down, refined, self.with_cp and strided)

    def forward(self,
                x: Tensor,
                joined: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compute the refined feature and the output.

        Args:
            x (Tensor): What the stage reads, (N, C_in, H, W).
            joined (Tensor, optional): What it joins, at the resolution of its
                output. Defaults to None.

        Returns:
            tuple[Tensor, Tensor]: The refined feature (N, C, H, W), and the
            output: that, resampled, and the transferred ``joined``.
        """
        refined = recompute(self.refine, x, self.with_cp)
        output = self.resample(refined, joined)
        if self.transfer is not None:
            transferred = recompute(self.transfer, joined, self.with_cp)
            output = torch.cat([output, transferred], dim=1)
        return refined, output


class DRBlock(Stage):
    """Down-sampling and refinement block of the head (Figure 3c, eq. 9).

    Refines by residual blocks, M(x) + x, down-samples, and concatenates the
    transferred feature of the body.
    """


class URBlock(Stage):
    """Up-sampling and refinement block of the body (Figure 3b, eq. 5 to 8).

    Refines by M(x) + r(x), with the channel reduction r in its first residual
    block, up-samples, and concatenates the transferred feature of the tail.
    """

    def resample(self, refined: Tensor, joined: Tensor | None) -> Tensor:
        """Up-sample to the size of what is joined: twice its own, unless H or
        W of the image is no multiple of 32."""
        return double(refined, joined.shape[-2:])

# Copyright (c) mmfishnet authors. All rights reserved.
"""The parts of Figure 3: residual unit, channel reduction, bridge, stages.

Modules are registered in the order in which they run: MMCV's
``fuse_conv_bn`` folds a norm into the convolution registered before it.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
import torch.utils.checkpoint as cp
from mmcv.cnn import build_conv_layer, build_norm_layer
from mmengine.model import BaseModule, Sequential, constant_init
from torch import Tensor, nn

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
    """
    if norm_cfg['type'] == 'GN':
        most = min(norm_cfg['num_groups'], channels // MIN_GN_GROUP)
        groups = next((g for g in range(most, 0, -1) if channels % g == 0), 1)
        norm_cfg = dict(norm_cfg, num_groups=groups)
    return build_norm_layer(norm_cfg, channels)[1]


def pre_act_conv(in_channels: int,
                 out_channels: int,
                 norm_cfg: dict,
                 stride: int = 1) -> Sequential:
    """Norm, ReLU and an isolated 1x1 convolution (section 2).

    Args:
        in_channels (int): Input channels.
        out_channels (int): Output channels.
        norm_cfg (dict): Config of the norm layer.
        stride (int): Stride of the convolution. Defaults to 1.

    Returns:
        Sequential: The three layers.
    """
    return Sequential(
        build_norm(norm_cfg, in_channels), nn.ReLU(inplace=True),
        nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False))


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
        """Reduce (N, C, H, W) to (N, C / k, H, W)."""
        n, c, h, w = x.shape
        return x.view(n, c // self.k, self.k, h, w).sum(2)

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
        with_cp (bool): Whether to recompute the block in the backward pass
            instead of storing its inside. Defaults to False.
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
                 conv_cfg: dict | None = None,
                 with_cp: bool = False) -> None:
        super().__init__()
        mid = out_channels // expansion
        groups = mid // group_width if group_width else 1
        self.norm1 = build_norm(norm_cfg, in_channels)
        self.conv1 = nn.Conv2d(in_channels, mid, 1, bias=False)
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
        self.conv3 = nn.Conv2d(mid, out_channels, 1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = shortcut or nn.Identity()
        self.with_cp = with_cp

    def init_weights(self) -> None:
        """Let a deformable convolution start as a plain one."""
        super().init_weights()
        if hasattr(self.conv2, 'conv_offset'):
            constant_init(self.conv2.conv_offset, 0)

    def message(self, x: Tensor) -> Tensor:
        """M(x): (N, C_in, H, W) to (N, C_out, H / stride, W / stride)."""
        x = self.conv1(self.relu(self.norm1(x)))
        x = self.conv2(self.relu(self.norm2(x)))
        return self.conv3(self.relu(self.norm3(x)))

    def _forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.message(x)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, H / stride, W / stride)."""
        if self.with_cp and x.requires_grad:
            return cp.checkpoint(self._forward, x, use_reentrant=False)
        return self._forward(x)


class Stage(BaseModule):
    """A stage of the fish: refine, resample, join by concatenation.

    Args:
        refine (nn.Module): What refines the input at its own resolution:
            residual blocks, or the bridge.
        down (nn.Module, optional): Down-sampling; None to up-sample to the
            size of the feature that is joined, or (in a stage that joins
            nothing) to keep the size. Defaults to None.
        transfer (nn.Module, optional): Residual blocks T through which the
            joined feature passes (eq. 4); None where nothing is joined.
            Defaults to None.
    """

    def __init__(self,
                 refine: nn.Module,
                 down: nn.Module | None = None,
                 transfer: nn.Module | None = None) -> None:
        super().__init__()
        self.refine = refine
        self.down = down
        self.transfer = transfer

    def join(self, refined: Tensor, joined: Tensor | None = None) -> Tensor:
        """Resample and concatenate: down(x) or up(x), then T(joined).

        Up-sampling goes to the size of what is joined and not by a factor of
        two, which is the same unless H or W is no multiple of 32.

        Args:
            refined (Tensor): What ``refine`` returned, (N, C, H, W).
            joined (Tensor, optional): The output of another stage, at the
                output resolution of this one. Defaults to None.

        Returns:
            Tensor: The output of the stage.
        """
        if self.down is not None:
            x = self.down(refined)
        elif joined is not None:
            x = F.interpolate(refined, size=joined.shape[-2:], mode='nearest')
        else:
            x = refined
        if self.transfer is None:
            return x
        return torch.cat([x, self.transfer(joined)], dim=1)


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
        self.squeeze = Sequential(
            *pre_act_conv(channels, squeezed, norm_cfg),
            build_norm(norm_cfg, squeezed), nn.ReLU(inplace=True))
        self.expand = nn.Conv2d(squeezed, expanded, 1)
        self.gate = Sequential(
            build_norm(norm_cfg, expanded), nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(expanded, hidden, 1),
            nn.ReLU(inplace=True), nn.Conv2d(hidden, channels, 1),
            nn.Sigmoid())
        self.blocks = blocks

    def forward(self, x: Tensor) -> Tensor:
        """Refine (N, C, H, W) to (N, C, H, W)."""
        x = self.expand(self.squeeze(x))
        gate = self.gate(x)
        return self.blocks(x) * gate + gate

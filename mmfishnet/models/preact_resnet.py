# Copyright (c) mmfishnet authors. All rights reserved.
from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import Sequential
from torch import Tensor, nn

from ..registry import MODELS, register
from .backbone import Backbone
from .blocks import Bottleneck, Layers, build_norm, pre_act_conv
from .layout import channels_first, to_fast_layout
from .recompute import recompute


@register(MODELS)
class PreActResNet(Backbone):
    """ResNet with pre-activation (He et al., "Identity Mappings in Deep
    Residual Networks", 2016): what the paper compares FishNet with.

    Its blocks are FishNet's own, so that the two differ in wiring alone. The
    stride is that of a block's 3x3 convolution.

    The features of an image (N, C, H, W) are (N, 4 * base_channels * 2**i,
    ceil(H / 2**(i+2)), ceil(W / 2**(i+2))) for i in ``out_indices``.

    Args:
        depth (int | Sequence[int]): 50 or 101, or the numbers of residual
            blocks of the four stages. Defaults to 50.
        in_channels (int): Channels of the image. Defaults to 3.
        base_channels (int): Channels of the stem and of the 3x3 convolutions
            of the first stage. Defaults to 64.
        out_indices (Sequence[int]): Which stages to return, in ascending
            order: 0, 1, 2, 3 are at strides 4, 8, 16, 32. The last of them,
            once normalised and rectified, is what a classifier reads.
            Defaults to (3, ).
        frozen_stages (int): Parts that are neither trained nor update their
            statistics: 0 is the stem, n the stem and the first n stages; -1
            freezes nothing. Defaults to -1.
        norm_cfg (dict): Config of the norm layers.
            Defaults to ``dict(type='BN', requires_grad=True)``.
        norm_eval (bool): Whether batch norm layers stay in evaluation mode,
            that is, keep their statistics. Defaults to False.
        with_cp (bool): Whether to recompute each stage in the backward pass
            to save memory. Defaults to False.
        init_cfg (dict | list[dict], optional): Initialisation. Defaults to
            None: Kaiming for convolutions, ones for norms.

    Raises:
        ValueError: If an argument is not allowed; the message names it.
    """

    arch_settings = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}

    def __init__(self,
                 depth: int | Sequence[int] = 50,
                 in_channels: int = 3,
                 base_channels: int = 64,
                 out_indices: Sequence[int] = (3, ),
                 frozen_stages: int = -1,
                 norm_cfg: dict = dict(type='BN', requires_grad=True),
                 norm_eval: bool = False,
                 with_cp: bool = False,
                 init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(frozen_stages, norm_eval, init_cfg)
        num_blocks = self._num_blocks(depth)
        num_stages = len(num_blocks)
        self._check_out_indices(out_indices, num_stages)
        self._check_choice('frozen_stages', frozen_stages,
                           range(-1, num_stages + 1))
        self.out_indices = tuple(out_indices)

        self.with_cp = with_cp
        self.stem = Layers(
            nn.Conv2d(
                in_channels, base_channels, 7, stride=2, padding=3,
                bias=False), build_norm(norm_cfg, base_channels),
            nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1))
        self.stage_names = [
            f'stage{i + 1}' for i in range(max(out_indices) + 1)
        ]
        channels, out_channels = base_channels, 4 * base_channels
        for i, name in enumerate(self.stage_names):
            blocks = []
            for j in range(num_blocks[i]):
                stride = 2 if i > 0 and j == 0 else 1
                shortcut = None
                if j == 0:
                    shortcut = pre_act_conv(channels, out_channels, norm_cfg,
                                            stride)
                blocks.append(
                    Bottleneck(
                        channels,
                        out_channels,
                        stride=stride,
                        shortcut=shortcut,
                        norm_cfg=norm_cfg))
                channels = out_channels
            self.add_module(name, Sequential(*blocks))
            out_channels *= 2
        # Nothing normalises and rectifies the last sum but this.
        self.final = Layers()
        if num_stages - 1 in self.out_indices:
            self.final = Layers(
                build_norm(norm_cfg, channels), nn.ReLU())
        self._freeze_stages()

    def _num_blocks(self, depth: int | Sequence[int]) -> Sequence[int]:
        if isinstance(depth, int) and depth in self.arch_settings:
            return self.arch_settings[depth]
        if isinstance(depth, Sequence) and len(depth) == 4 and all(
                isinstance(n, int) and n > 0 for n in depth):
            return depth
        raise ValueError(
            f'PreActResNet: depth={depth!r} is not allowed; it should be one '
            f'of {[*self.arch_settings]} or four positive numbers of blocks.')

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the chosen features.

        Args:
            x (Tensor): Images (N, C, H, W).

        Returns:
            tuple[Tensor]: One feature an index in ``out_indices``.
        """
        images = to_fast_layout(x)
        y = self.stem(images)
        features = []
        for name in self.stage_names:
            y = recompute(getattr(self, name), y, self.with_cp)
            features.append(y)
        features[-1] = self.final(y)
        outs = (features[i] for i in self.out_indices)
        return tuple(outs if images is x else map(channels_first, outs))

# Copyright (c) mmfishnet authors. All rights reserved.
from __future__ import annotations

import torch
from torch import Tensor, nn

from ..registry import MODELS, register
from .blocks import INIT_CFG, Layers, build_norm, pre_act_conv
from .pretrained_module import PretrainedModule


@register(MODELS)
class FishNetScore(PretrainedModule):
    """What stands between the head of the fish and a linear classifier.

    Norm-ReLU-1x1 convolution to half the channels, norm-ReLU, global average
    pooling: the authors' score layers up to their last convolution, which is
    a linear layer (MMPretrain's ``LinearClsHead``). It is a classifier's
    ``neck``.

    Args:
        in_channels (int): Channels of the head's last output.
            Defaults to 2112.
        norm_cfg (dict): Config of the norm layers.
            Defaults to ``dict(type='BN', requires_grad=True)``.
        init_cfg (dict | list[dict], optional): Initialisation. Defaults to
            None: Kaiming for the convolution, ones for norms.

    Attributes:
        in_channels (int): As given.
        out_channels (int): Half of ``in_channels``.
    """

    part = 'neck.'

    def __init__(self,
                 in_channels: int = 2112,
                 norm_cfg: dict = dict(type='BN', requires_grad=True),
                 init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg or INIT_CFG)
        self.in_channels = in_channels
        self.out_channels = in_channels // 2
        self.layers = Layers(
            *pre_act_conv(in_channels, self.out_channels, norm_cfg),
            build_norm(norm_cfg, self.out_channels), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, feats: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Pool the last feature.

        Args:
            feats (tuple[Tensor]): Features of the backbone; the last one,
                (N, ``in_channels``, H, W), is used.

        Returns:
            tuple[Tensor]: One tensor (N, ``out_channels``).
        """
        return (self.layers(feats[-1]), )


@register(MODELS)
class ConcatenatedFeatures(nn.Module):
    """Several features side by side, as a descriptor for retrieval.

    It stands behind MMPretrain's ``GeneralizedMeanPooling``, which leaves a
    vector for each of a backbone's features.
    """

    def forward(self, feats: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Concatenate them.

        Args:
            feats (tuple[Tensor]): Features (N, C_i), of any number of
                channels each.

        Returns:
            tuple[Tensor]: One tensor (N, C), C the sum of the C_i.
        """
        return (torch.cat(feats, 1), )

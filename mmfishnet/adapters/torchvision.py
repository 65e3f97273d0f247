# Copyright (c) mmfishnet authors. All rights reserved.
"""FishNet in torchvision's detectors."""
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor, nn
from torchvision.ops.feature_pyramid_network import (
    ExtraFPNBlock,
    FeaturePyramidNetwork,
    LastLevelMaxPool,
)


class BackboneWithFPN(nn.Module):
    """A backbone of ours and torchvision's FPN.

    It is what torchvision's class of this name is, which takes the backbone
    apart into a sequence of its children; a fish is none.

    ``MaskRCNN`` and ``FasterRCNN`` read it with their default anchors and
    RoIAlign, for which it needs the features at strides 4 to 32. They scale
    pixels to [0, 1] and normalise RGB as FishNet's released weights expect.

    Args:
        backbone (nn.Module): FishNet, FishNeXt or any other with
            ``out_channels``, the channels of the features that it returns.
        out_channels (int): Channels of the pyramid. Defaults to 256.
        extra_blocks (ExtraFPNBlock, optional): What gives coarser levels.
            Defaults to None: ``LastLevelMaxPool``, one level more.
        norm_layer (Callable, optional): Norms of the pyramid. Defaults to
            None, for none.

    Attributes:
        out_channels (int): Channels of the pyramid.

    Example:
        >>> import torch
        >>> from torchvision.models.detection import MaskRCNN
        >>> from mmfishnet.models import FishNet
        >>> fish = FishNet(150, frozen_stages=0, norm_eval=True,
        ...                norm_cfg=dict(type='BN', requires_grad=False))
        >>> # With init_cfg=dict(type='Pretrained', checkpoint=...), too:
        >>> fish.init_weights()
        >>> model = MaskRCNN(BackboneWithFPN(fish), num_classes=91).eval()
        >>> sorted(model([torch.rand(3, 64, 96)])[0])
        ['boxes', 'labels', 'masks', 'scores']
    """

    def __init__(
            self,
            backbone: nn.Module,
            out_channels: int = 256,
            extra_blocks: ExtraFPNBlock | None = None,
            norm_layer: Callable[..., nn.Module] | None = None) -> None:
        super().__init__()
        self.body = backbone
        self.fpn = FeaturePyramidNetwork(
            list(backbone.out_channels), out_channels,
            extra_blocks or LastLevelMaxPool(), norm_layer)
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """Compute the pyramid.

        Args:
            x (Tensor): Images (N, C, H, W).

        Returns:
            OrderedDict[str, Tensor]: (N, ``out_channels``, h, w) by level,
            '0' for the finest, 'pool' for the one of ``LastLevelMaxPool``.
        """
        features = self.body(x)
        return self.fpn(
            OrderedDict((str(i), feat) for i, feat in enumerate(features)))

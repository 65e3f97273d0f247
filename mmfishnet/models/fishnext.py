# Copyright (c) mmfishnet authors. All rights reserved.
from __future__ import annotations

from ..archs import FISHNEXT
from ..registry import MODELS, register
from .fishnet import FishNet


@register(MODELS)
class FishNeXt(FishNet):
    """FishNeXt: FishNet with grouped 3x3 convolutions (section 4.2).

    The group width is the same for all blocks that work at one resolution,
    transfers included, and doubles from each resolution to the next coarser
    one. The middle width of a block is half of its output channels.

    Args:
        depth (int | dict): 150, as in the paper, or 229, the backbone of the
            COCO 2018 challenge, or a stage table. The stages of 229 were
            never published: ours has 72 residual blocks, so that the
            convolutions (3 in a block, 3 in the stem, 2 each in squeeze,
            gate and score, 4 on shortcuts) are 229. The authors' own count,
            150 = 3 * 46 + 12, leaves out the score's last one, and reaches
            229 with no whole number of blocks. Defaults to 150.
        group_width (int): Channels in a group at stride 4, the paper's "4d".
            Defaults to 4.
        **kwargs: Those of :class:`FishNet`.

    Raises:
        ValueError: If ``group_width`` does not divide the middle width of a
            block.
    """

    expansion = 2

    arch_settings = FISHNEXT

    def __init__(self,
                 depth: int | dict = 150,
                 group_width: int = 4,
                 **kwargs) -> None:
        self.group_width = group_width
        super().__init__(depth, **kwargs)

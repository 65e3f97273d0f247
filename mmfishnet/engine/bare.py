# Copyright (c) mmfishnet authors. All rights reserved.
from __future__ import annotations

from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn


def bare_model(model: nn.Module) -> nn.Module:
    """Take a runner's model out of what it is wrapped in.

    Args:
        model (nn.Module): A model, or one for several processes or for
            test-time augmentation, in any order, that holds it.

    Returns:
        nn.Module: The detector, classifier or segmenter itself.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model

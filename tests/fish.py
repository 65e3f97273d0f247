# Copyright (c) mmfishnet authors. All rights reserved.
"""Fish for tests: every stage is there, and a step takes no time."""
from torch import nn

SMALL = dict(
    stem_channels=16,
    tail=(1, 2, 1),
    tail_channels=(32, 48, 64),
    bridge=2,
    body=(1, 1, 2),
    head=(1, 2, 1),
    body_transfer=(1, 1, 1),
    head_transfer=(1, 1, 2))
# The smallest that has all.
TINY = dict(
    stem_channels=16,
    tail=(1, 1, 1),
    tail_channels=(16, 32, 64),
    bridge=1,
    body=(1, 1, 1),
    head=(1, 1, 1),
    body_transfer=(1, 1, 1),
    head_transfer=(1, 1, 1))
# Section 4.4.
RECIPE = dict(
    frozen_stages=0,
    norm_cfg=dict(type='BN', requires_grad=False),
    norm_eval=True)


def fill_norms(model, std):
    """Give batch norms weights and statistics as if trained."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                nn.init.normal_(tensor, std=std)

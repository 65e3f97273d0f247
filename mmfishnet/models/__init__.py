# Copyright (c) mmfishnet authors. All rights reserved.
from .fishnet import FishNet
from .fishnext import FishNeXt
from .preact_resnet import PreActResNet
from .score import ConcatenatedFeatures, FishNetScore

__all__ = [
    'ConcatenatedFeatures', 'FishNeXt', 'FishNet', 'FishNetScore',
    'PreActResNet'
]

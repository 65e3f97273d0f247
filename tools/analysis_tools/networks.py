# Copyright (c) mmfishnet authors. All rights reserved.
"""FishNet's variants and the networks that the paper compares it with."""
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torchvision.models as tv
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn

from mmfishnet.kinds import scope_of, type_name
from mmfishnet.models import FishNet, FishNetScore, FishNeXt, PreActResNet

PAPER = 'paper'
AUTHORS = "FishNet authors' page"
DENSENET = "DenseNet authors' page"
RESNET = "ResNet authors' page"


class Classifier(nn.Module):
    """A backbone, what pools its last feature to (N, ``channels``), and a
    linear layer."""

    def __init__(self, backbone: nn.Module, pool: nn.Module, channels: int,
                 num_classes: int = 1000) -> None:
        super().__init__()
        self.backbone = backbone
        self.pool = pool
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, W) to logits (N, ``num_classes``)."""
        return self.fc(self.pool(self.backbone(x)[-1]))


@dataclass(frozen=True)
class Network:
    """A network, and what was published about it."""

    title: str  # its name in the paper's spelling
    family: str  # the curve of Figure 4 that it belongs to, or empty
    build: Callable[[], nn.Module]  # the 1000-class ImageNet classifier
    params: float | None = None  # millions of parameters as printed
    # Top-1 error on ImageNet, in %, one 224x224 crop, as published, and by
    # whom; nothing here was trained by us.
    error: float | None = None
    source: str = ''

    def backbone(self) -> nn.Module:
        """Build it without what pools and classifies."""
        model = self.build()
        if isinstance(model, Classifier):
            return model.backbone
        if isinstance(model, tv.DenseNet):
            return model.features
        if isinstance(model, tv.ResNet):
            # All but avgpool and fc.
            return nn.Sequential(OrderedDict([*model.named_children()][:-2]))
        return model


def _fish(depth: int = 150, cls: type = FishNet, **kwargs) -> Classifier:
    fish = cls(depth, out_indices=(3, ), **kwargs)
    score = FishNetScore(fish.out_channels[-1])
    return Classifier(fish, score.layers, score.out_channels)


def _preact(depth: int) -> Classifier:
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Classifier(PreActResNet(depth), pool, 2048)


def _variant(title: str, params: float | None = None,
             error: float | None = None,
             **kwargs) -> Network:
    return Network(f'FishNet-150, {title}', '', partial(_fish, **kwargs),
                   params, error, PAPER if error else '')


NETWORKS = {
    'fishnet99': Network('FishNet-99', 'FishNet', partial(_fish, 99), None,
                         22.59, AUTHORS),
    'fishnet150': Network('FishNet-150', 'FishNet', _fish, 26.4, 21.93, PAPER),
    'fishnet201': Network('FishNet-201', 'FishNet', partial(_fish, 201), None,
                          21.24, AUTHORS),
    'fishnext150': Network('FishNeXt-150 (4d)', '',
                           partial(_fish, 150, FishNeXt), 26.2, 21.5, PAPER),
    'fishnext229': Network('FishNeXt-229 (ours)', '',
                           partial(_fish, 229, FishNeXt)),
    # Table 2 and section 4.3
    'fishnet150-max3': _variant('3x3 max-pooling', 26.4, 22.51,
                                down_sample='max3'),
    'fishnet150-avg2': _variant('2x2 average pooling', 26.4, 22.86,
                                down_sample='avg2'),
    'fishnet150-conv': _variant('stride-2 convolution', 30.2, 22.75,
                                down_sample='conv'),
    'fishnet150-undilated': _variant('no dilation', dilated_parts=()),
    'fishnet150-dilated': _variant('dilated head too',
                                   dilated_parts=('body', 'head')),
    'fishnet150-7x7': _variant('7x7 stem', stem='conv7x7'),
    'fishnet150-residual': _variant('residual stem', stem='residual'),
    # The paper's ResNets are pre-activated ones.
    'preact_resnet50': Network('ResNet-50, pre-activated', 'ResNet',
                               partial(_preact, 50), 25.5, 23.78, PAPER),
    'preact_resnet101': Network('ResNet-101, pre-activated', 'ResNet',
                                partial(_preact, 101), 44.5, 22.30, PAPER),
    'resnet50': Network('ResNet-50', '', tv.resnet50, None, 24.7, RESNET),
    'resnet101': Network('ResNet-101', '', tv.resnet101, None, 23.6, RESNET),
    'resnext50': Network('ResNeXt-50 (32x4d)', '', tv.resnext50_32x4d, 25.0,
                         22.2, PAPER),
    **{f'densenet{depth}': Network(title, 'DenseNet', build, None, error,
                                   DENSENET)
       for depth, title, build, error in (
           (121, 'DenseNet-121', tv.densenet121, 25.0),
           (169, 'DenseNet-169', tv.densenet169, 23.6),
           (201, 'DenseNet-201', tv.densenet201, 22.5),
           (161, 'DenseNet-161 (k=48)', tv.densenet161, 22.2))},
}


def find_network(model: str) -> Network:
    """Find a network by its name in :data:`NETWORKS`, or make one of the
    backbone of a config of any package of OpenMMLab."""
    if model in NETWORKS:
        return NETWORKS[model]
    if not model.endswith('.py'):
        raise ValueError(f'there is no network {model!r}; it should be one of '
                         f'{", ".join(NETWORKS)}, or the path of a config.')
    config = Config.fromfile(model)
    backbone = config.get('model', {}).get('backbone')
    if backbone is None:
        raise ValueError(f'{model} has no model.backbone.')

    def build():
        init_default_scope(scope_of(config) or 'mmengine')
        return MODELS.build(backbone)

    return Network(f'{type_name(backbone)} of {Path(model).name}', '', build)

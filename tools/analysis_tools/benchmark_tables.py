# Copyright (c) mmfishnet authors. All rights reserved.
"""What the benchmark goes through, a row each: networks, the regimes of
their norms, variants, marks and shapes."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import gcd
from typing import NamedTuple

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmfishnet.models import FishNet
from networks import NETWORKS


@dataclass(frozen=True)
class Regime:
    """What a training step does with norms and stem."""

    title: str
    norm_eval: bool = False  # whether batch norms keep their statistics
    train_affine: bool = True  # whether the norms' weights are trained
    train_stem: bool = True
    group_norm: bool = False  # at most 32 groups, in place of batch norms


REGIMES = {
    # Section 4.4.
    'fixed': Regime('norms and stem fixed', True, False, False),
    # MMDetection's own default.
    'affine': Regime('statistics and stem fixed', True, True, False),
    'live': Regime('live batch norms'),
    'gn': Regime('group norms', group_norm=True),
}

# Networks --------------------------------------------------------------------

OURS, AUTHORS = 'FishNet-150', 'FishNet-150, pytorchcv'


class Peer(nn.Sequential):
    """A network of others (``layers``, the stem first), its norms and its
    stem as a regime says."""

    def __init__(self, layers: Iterator[nn.Module], regime: Regime) -> None:
        super().__init__(*layers)
        self.regime = regime
        for module in [*self.modules()] if regime.group_norm else ():
            for name, child in module.named_children():
                if isinstance(child, _BatchNorm):
                    channels = child.num_features
                    setattr(module, name,
                            nn.GroupNorm(gcd(32, channels), channels))
        for norm in find_norms(self):
            norm.requires_grad_(regime.train_affine)
        if not regime.train_stem:
            self[0].requires_grad_(False)

    def train(self, mode: bool = True) -> Peer:
        super().train(mode)
        for norm in find_norms(self) if self.regime.norm_eval else ():
            norm.eval()
        return self


def find_norms(model: nn.Module) -> list[nn.Module]:
    """The batch and group norms of a model."""
    return [module for module in model.modules()
            if isinstance(module, (_BatchNorm, nn.GroupNorm))]


def _fishnet(regime: Regime, with_cp: bool) -> nn.Module:
    norm = dict(type='GN', num_groups=32) if regime.group_norm else dict(
        type='BN')
    return FishNet(150, out_indices=(3, ), with_cp=with_cp,
                   norm_eval=regime.norm_eval,
                   frozen_stages=-1 if regime.train_stem else 0,
                   norm_cfg=dict(norm, requires_grad=regime.train_affine))


def _pytorchcv(regime: Regime, with_cp: bool) -> nn.Module:
    # Here: an optional package. It is the authors' code in other words, and
    # computes what ours does with out_indices=(3, ).
    from pytorchcv.models.fishnet import fishnet150
    features = fishnet150().features
    return Peer((features.init_block, features.hg), regime)


def _torchvision(name: str) -> Callable[[Regime, bool], nn.Module]:
    return lambda regime, with_cp: Peer(
        NETWORKS[name].backbone().children(), regime)


# From the name to what builds the backbone, of a regime and with_cp, which is
# ours alone.
BACKBONES: dict[str, Callable[[Regime, bool], nn.Module]] = {
    AUTHORS: _pytorchcv,
    OURS: _fishnet,
    'ResNet-50': _torchvision('resnet50'),
    'DenseNet-161': _torchvision('densenet161'),
}

# Variants --------------------------------------------------------------------


@dataclass(frozen=True)
class Variant:
    """A way to run a backbone."""

    name: str
    channels_last: bool = False  # weights and images
    compiled: bool = False
    open_sizes: bool = False  # compiled for all sizes, or the one at hand
    bf16: bool = False  # convolutions; norms compute in float32
    with_cp: bool = False


PLAIN = Variant('fp32')
WITH_CP = Variant('fp32, with_cp', with_cp=True)
CHANNELS_LAST = Variant('fp32, channels-last', channels_last=True)
COMPILED = replace(
    CHANNELS_LAST, name='fp32, channels-last, compiled', compiled=True)
OPEN_SIZES = replace(
    COMPILED, name='fp32, channels-last, compiled for all sizes',
    open_sizes=True)
BF16 = Variant('bf16, channels-last', channels_last=True, bf16=True)
BF16_COMPILED = replace(
    BF16, name='bf16, channels-last, compiled', compiled=True)
# Of ours; those of others are the two layouts.
VARIANTS = dict(
    inference=(PLAIN, CHANNELS_LAST, COMPILED, BF16, BF16_COMPILED),
    step=(PLAIN, WITH_CP, CHANNELS_LAST, COMPILED, OPEN_SIZES, BF16))

# Marks -----------------------------------------------------------------------


class Mark(NamedTuple):
    """The most that our network in a variant should take of a quantity (a
    field of ``Result``), over what a peer takes in fp32."""

    section: str  # 'inference' or 'step'
    variant: Variant
    quantity: str
    bound: float
    regime: str = 'fixed'
    peer: str = AUTHORS


MARKS = (Mark('inference', CHANNELS_LAST, 'seconds', 0.77),
         Mark('inference', COMPILED, 'seconds', 0.68),
         Mark('inference', BF16, 'seconds', 0.42),
         Mark('inference', BF16_COMPILED, 'seconds', 0.38),
         Mark('step', PLAIN, 'kept', 0.47),
         Mark('step', PLAIN, 'seconds', 0.95),
         Mark('step', WITH_CP, 'kept', 0.12),
         Mark('step', WITH_CP, 'held', 0.22),
         Mark('step', COMPILED, 'seconds', 0.87))

# Shapes ----------------------------------------------------------------------

SHAPES = dict(
    cpu=dict(inference=('4x224x224', '1x800x1344'), step=('1x512x512', )),
    cuda=dict.fromkeys(('inference', 'step'),
                       ('1x800x1344', '8x800x1344', '256x224x224')))
# Of pictures of COCO, resized to 1333x800 and padded to multiples of 32.
SIZES = ((800, 1344), (1344, 800), (800, 1088), (800, 1216), (1216, 800),
         (800, 1056), (800, 1248), (800, 800), (1088, 800), (672, 1344))
SIDES, BATCHES = (256, 384, 512, 768, 1024, 1344), (2, 4, 8)
# The most MiB that Mask R-CNN's step at 800x1344 should hold, by with_cp.
DETECTOR = {False: 2450, True: 1700}

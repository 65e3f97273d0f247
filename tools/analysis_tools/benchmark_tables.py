# Copyright (c) mmfishnet authors. All rights reserved.
"""What the benchmark goes through, a row each: networks, the regimes of
their norms, variants, marks and shapes."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import gcd
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models.resnet import Bottleneck as ResNetBlock

from mmfishnet.models import FishNet
from mmfishnet.models.recompute import recompute
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
# Ours, where norm, ReLU and convolution are three layers for autograd.
LAYERS = 'FishNet-150, layer by layer'


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


def _layer_by_layer(regime: Regime, with_cp: bool) -> nn.Module:
    model = _fishnet(regime, with_cp)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            # What has a hook is called by itself.
            module.register_forward_pre_hook(_do_nothing)
    return model


def _do_nothing(module: nn.Module, args: tuple) -> None:
    pass


def _pytorchcv(regime: Regime, with_cp: bool) -> nn.Module:
    # Here: an optional package. It is the authors' code in other words, and
    # computes what ours does with out_indices=(3, ).
    from pytorchcv.models.fishnet import fishnet150
    features = fishnet150().features
    return Peer((features.init_block, features.hg), regime)


class Recomputed(nn.Module):
    """A block with ``with_cp``, as those of MMDetection's ResNet."""

    with_cp = True

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        return recompute(self.block, x, self.with_cp)


def _torchvision(name: str) -> Callable[[Regime, bool], nn.Module]:
    """As lean as a library offers, with ``with_cp``: a ResNet's blocks are
    computed once more, a DenseNet is torchvision's memory-efficient one."""

    def build(regime: Regime, with_cp: bool) -> nn.Module:
        backbone = NETWORKS[name].backbone()
        for module in [*backbone.modules()] if with_cp else ():
            if hasattr(module, 'memory_efficient'):
                module.memory_efficient = True
            for child_name, child in module.named_children():
                if isinstance(child, ResNetBlock):
                    setattr(module, child_name, Recomputed(child))
        layers = [*backbone.children()]
        # Convolution, norm, ReLU and pooling.
        return Peer((nn.Sequential(*layers[:4]), *layers[4:]), regime)

    return build


# From the name to what builds the backbone, of a regime and with_cp.
BACKBONES: dict[str, Callable[[Regime, bool], nn.Module]] = {
    AUTHORS: _pytorchcv,
    OURS: _fishnet,
    LAYERS: _layer_by_layer,
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
VARIANTS = dict(
    inference=(PLAIN, CHANNELS_LAST, COMPILED, BF16, BF16_COMPILED),
    step=(PLAIN, WITH_CP, CHANNELS_LAST, COMPILED, OPEN_SIZES, BF16))


def find_variants(network: str, section: str) -> tuple[Variant, ...]:
    """Those in which a network is measured: ours in all of them."""
    if network == LAYERS:
        return (PLAIN, ) if section == 'step' else ()
    if network == OURS:
        return VARIANTS[section]
    lean = (WITH_CP, ) if network != AUTHORS and section == 'step' else ()
    return PLAIN, *lean, CHANNELS_LAST


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


MARKS = (
    Mark('inference', CHANNELS_LAST, 'seconds', 0.77),
    Mark('inference', COMPILED, 'seconds', 0.68),
    Mark('inference', BF16, 'seconds', 0.42),
    Mark('inference', BF16_COMPILED, 'seconds', 0.38),
    Mark('step', PLAIN, 'kept', 0.47),
    Mark('step', PLAIN, 'seconds', 0.88),
    Mark('step', WITH_CP, 'kept', 0.12),
    Mark('step', WITH_CP, 'held', 0.22),
    Mark('step', COMPILED, 'seconds', 0.87),
    *(Mark('step', PLAIN, 'kept', 0.52, regime)
      for regime in REGIMES if regime != 'fixed'),
    *(Mark('step', PLAIN, 'seconds', 1.00, regime, LAYERS)
      for regime in REGIMES if regime != 'fixed'),
    *(Mark('step', WITH_CP, 'peak', 0.25, regime) for regime in REGIMES),
    Mark('step', PLAIN, 'kept', 0.80, 'live', 'ResNet-50'),
)

# Shapes ----------------------------------------------------------------------

SHAPES = dict(
    cpu=dict(inference=('4x224x224', '1x800x1344'), step=('1x512x512', )),
    cuda=dict.fromkeys(('inference', 'step'),
                       ('1x800x1344', '8x800x1344', '256x224x224')),
    # Bytes alone.
    meta=dict(inference=(), step=('4x224x224', )))
# Of pictures of COCO, resized to 1333x800 and padded to multiples of 32.
SIZES = ((800, 1344), (1344, 800), (800, 1088), (800, 1216), (1216, 800),
         (800, 1056), (800, 1248), (800, 800), (1088, 800), (672, 1344))
SIDES, BATCHES = (256, 384, 512, 768, 1024, 1344), (2, 4, 8)
# For the memory budgets: a fish that is compiled in a minute.
SMALL = dict(
    stem_channels=16,
    tail=(1, 1, 1),
    tail_channels=(32, 64, 128),
    bridge=1,
    body=(1, 1, 1),
    head=(1, 1, 1),
    body_transfer=(1, 1, 1),
    head_transfer=(1, 1, 1))
BUDGETS = (1.0, 0.75, 0.5, 0.25, 0.0)
# The most MiB that Mask R-CNN's step at 800x1344 should hold, by with_cp.
DETECTOR = {False: 2450, True: 1700}

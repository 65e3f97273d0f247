# Copyright (c) mmfishnet authors. All rights reserved.
"""FishNet in timm's ``features_only`` form.

Importing this module makes the names below known to timm, and to what builds
its backbones with timm::

    import mmfishnet.adapters.timm
    model = timm.create_model(
        'fishnet150', features_only=True, pretrained=True,
        pretrained_cfg_overlay=dict(file='checkpoints/fishnet150_in1k.pth'))
    model.feature_info.channels()  # [320, 832, 1600, 2112]
"""
from __future__ import annotations

from collections.abc import Sequence

from timm.models import FeatureInfo, register_model
from torch import Tensor, nn

from ..models import FishNet, FishNeXt
from ..wiring import OUTPUTS, lay_out


class FeatureList(nn.Module):
    """A FishNet whose features timm's users find as they find any others'.

    Args:
        backbone (FishNet): The backbone.

    Attributes:
        feature_info (timm.models.FeatureInfo): ``channels()``,
            ``reduction()`` (the stride) and ``module_name()`` (the module in
            ``backbone`` that computes it) of every returned feature.
    """

    def __init__(self, backbone: FishNet) -> None:
        super().__init__()
        self.backbone = backbone
        # Of the whole fish, from which out_indices choose.
        specs = {spec.name: spec for spec in lay_out(backbone.arch)}
        info = []
        for name, feature in OUTPUTS:
            spec = specs[name]
            whole = feature == 'output'
            info.append(
                dict(
                    num_chs=spec.out_channels if whole else spec.channels,
                    reduction=spec.out_stride if whole else spec.in_stride,
                    module=name if whole else f'{name}.refine'))
        self.feature_info = FeatureInfo(info, backbone.out_indices)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Compute the features.

        Args:
            x (Tensor): Images (N, C, H, W).

        Returns:
            list[Tensor]: One feature an index in ``out_indices``.
        """
        return list(self.backbone(x))


def _create(model: type[FishNet],
            depth: int,
            pretrained: bool = False,
            features_only: bool = False,
            in_chans: int = 3,
            out_indices: int | Sequence[int] = (0, 1, 2, 3),
            pretrained_cfg: dict | None = None,
            pretrained_cfg_overlay: dict | None = None,
            cache_dir: str | None = None,
            **kwargs) -> FeatureList:
    name = f'{model.__name__.lower()}{depth}'
    if not features_only:
        raise ValueError(f'{name} is a backbone in timm: pass '
                         "features_only=True. As a classifier it is "
                         "MMPretrain's, see docs/classification.md.")
    if pretrained:
        file = (pretrained_cfg_overlay or {}).get('file')
        if file is None:
            raise ValueError(
                f'{name}: pretrained=True needs to know the file of weights, '
                'pretrained_cfg_overlay=dict(file=...). '
                f'`python tools/get_weights.py {name}` gets one.')
        kwargs['init_cfg'] = dict(type='Pretrained', checkpoint=str(file))
    if isinstance(out_indices, int):  # the last ones, as everywhere in timm
        out_indices = range(-out_indices, 0)
    backbone = model(
        depth,
        in_channels=in_chans,
        out_indices=[i % len(OUTPUTS) if i < 0 else i for i in out_indices],
        **kwargs)
    backbone.init_weights()
    return FeatureList(backbone)


@register_model
def fishnet99(pretrained: bool = False, **kwargs) -> FeatureList:
    """FishNet-99; ``kwargs`` are timm's, or FishNet's own."""
    return _create(FishNet, 99, pretrained, **kwargs)


@register_model
def fishnet150(pretrained: bool = False, **kwargs) -> FeatureList:
    """FishNet-150; ``kwargs`` are timm's, or FishNet's own."""
    return _create(FishNet, 150, pretrained, **kwargs)


@register_model
def fishnet201(pretrained: bool = False, **kwargs) -> FeatureList:
    """FishNet-201; ``kwargs`` are timm's, or FishNet's own."""
    return _create(FishNet, 201, pretrained, **kwargs)


@register_model
def fishnext150(pretrained: bool = False, **kwargs) -> FeatureList:
    """FishNeXt-150; ``kwargs`` are timm's, or FishNet's own."""
    return _create(FishNeXt, 150, pretrained, **kwargs)

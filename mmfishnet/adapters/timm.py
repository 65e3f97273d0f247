# Copyright (c) mmfishnet authors. All rights reserved.
"""FishNet among timm's models.

Importing this module registers the names below with timm, whose
``create_model`` then builds them as it builds its own, as classifiers and
with ``features_only``::

    import mmfishnet.adapters.timm
    model = timm.create_model('fishnet150', pretrained=True, num_classes=10)
"""
from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import initialize
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import ClassifierHead
from timm.models import (
    FeatureInfo,
    build_model_with_cfg,
    generate_default_cfgs,
    register_model,
    resolve_pretrained_cfg,
)
from torch import Tensor, nn

from ..checkpoints.fit import fit
from ..checkpoints.published import SCHEME, SOURCES, find_published
from ..checkpoints.read import read_checkpoint
from ..checkpoints.weights import CLASSIFIER
from ..models import FishNet, FishNetScore, FishNeXt
from ..models.blocks import Layers
from ..wiring import OUTPUTS, lay_out

ALL = range(len(OUTPUTS))


class FishClassifier(nn.Module):
    """FishNet with the interface of timm's models.

    The names in its state dict are those of MMPretrain's classifier, so that
    the files of one fit the other.

    Args:
        fish (type[FishNet]): Class of the backbone.
        depth (int): Its depth.
        num_classes (int): Classes; 0 for pooled features. Defaults to 1000.
        in_chans (int): Channels of the images. Defaults to 3.
        global_pool (str): One of timm's poolings; '' for none. Defaults to
            'avg'.
        output_stride (int): 32, the only one that there is.
        drop_rate (float): Dropout before the classifier. Defaults to 0.
        drop_path_rate (float): 0, since FishNet has no stochastic depth.
        features (Sequence[int], optional): Which of the four features the
            backbone computes, in rising order, for :class:`FishFeatures`.
            Defaults to None: all, with score layers and a classifier.
        device (str | torch.device, optional): Where to build it.
        dtype (torch.dtype, optional): Type of the weights.
        options: Other arguments of the backbone.

    Attributes:
        num_features (int): Channels of ``forward_features``, which are those
            of the classifier (``head_hidden_size``), too.
        feature_info (list[dict]): ``num_chs``, ``reduction`` (the stride) and
            ``module`` of each of the four features.

    Raises:
        ValueError: If an argument is not allowed.
    """

    def __init__(self,
                 fish: type[FishNet],
                 depth: int,
                 num_classes: int = 1000,
                 in_chans: int = 3,
                 global_pool: str = 'avg',
                 output_stride: int = 32,
                 drop_rate: float = 0.,
                 drop_path_rate: float = 0.,
                 features: Sequence[int] | None = None,
                 device=None,
                 dtype=None,
                 **options) -> None:
        super().__init__()
        for name, value, only in (('output_stride', output_stride, 32),
                                  ('drop_path_rate', drop_path_rate, 0)):
            if value != only:
                raise ValueError(f'{fish.__name__}: {name}={value} is not '
                                 f'allowed; it should be {only}.')
        self.backbone = fish(depth, in_channels=in_chans,
                             out_indices=features or ALL, **options)
        self.num_classes, self.in_chans = num_classes, in_chans
        self.feature_info = _feature_info(self.backbone)
        width = self.backbone.out_channels[-1]
        self.num_features = self.head_hidden_size = width
        self.neck = self.head = nn.Identity()
        if features is None:
            self.neck = FishNetScore(width, self.backbone.norm_cfg)
            self.num_features = self.head_hidden_size = self.neck.out_channels
            # The head pools.
            self.neck.layers = Layers(*list(self.neck.layers)[:-2])
            self.head = ClassifierHead(
                self.num_features, num_classes, global_pool, drop_rate)
        for part in (self.backbone, self.neck):
            # BaseModule.init_weights() would log a line for each weight.
            initialize(part, getattr(part, 'init_cfg', None) or [])
        for module in self.modules():
            if hasattr(module, 'conv_offset'):  # starts as a plain one
                initialize(module.conv_offset, dict(
                    type='Constant', val=0, layer='Conv2d'))
        self.to(device, dtype)

    def load_pretrained(self, checkpoint_path: str, prefix: str = '') -> None:
        """Load a file of ours, of the authors or of pytorchcv.

        Args:
            checkpoint_path (str): The file. A stem for three channels is
                adapted to another number; another number of classes than
                ``pretrained_cfg`` says leaves the classifier as it is.
            prefix (str): What stands before the backbone's names in it.
                Defaults to '': it is found.

        Raises:
            CheckpointError: If it does not fit.
        """
        content = read_checkpoint(checkpoint_path)
        parts = [(self.backbone, self.backbone.part, prefix or None)]
        if isinstance(self.neck, FishNetScore):
            parts.append((self.neck, self.neck.part, None))
            if self.num_classes == self.pretrained_cfg['num_classes']:
                parts.append((self.get_classifier(), CLASSIFIER, CLASSIFIER))
        weights = [fit(content, part.state_dict(), checkpoint_path,
                       type(part).__name__, name, below, adapt_stem=True)
                   for part, name, below in parts]
        for (part, *_), state in zip(parts, weights):
            part.load_state_dict(state, strict=False)

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.head.fc

    def reset_classifier(self,
                         num_classes: int,
                         global_pool: str | None = None) -> None:
        """Replace the last layer; ``global_pool=None`` keeps the pooling."""
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool)
        weight = next(self.backbone.parameters())
        self.head.to(weight.device, weight.dtype).train(self.training)

    def group_matcher(self, coarse: bool = False) -> dict:
        """Which parameters belong together, for learning rates by depth: a
        stage is a group, coarse or not."""
        parts = [*(rf'^backbone\.{name}\.'
                   for name in self.backbone.stage_names), r'^neck']
        return dict(
            stem=r'^backbone\.stem',
            blocks=[(part, (i, )) for i, part in enumerate(parts)])

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the blocks of each stage in the backward pass."""
        for name in self.backbone.stage_names:
            getattr(self.backbone, name).with_cp = enable

    def no_weight_decay(self) -> set[str]:
        """Parameters without weight decay: none, as in the paper."""
        return set()

    def forward_features(self, x: Tensor) -> Tensor:
        """What the head pools, (N, ``num_features``, h, w), of images."""
        return self.neck(self.backbone(x))[-1]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool and, unless ``pre_logits``, classify what
        :meth:`forward_features` returned."""
        return self.head(x, pre_logits)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, ``num_classes``) of images (N, C, H, W)."""
        return self.forward_head(self.forward_features(x))


class FishFeatures(nn.Module):
    """What timm's ``features_only`` gives.

    Args:
        model (FishClassifier): Its backbone computes these features alone.
        out_indices (Sequence[int]): Which, from 0 to 3, in any order.

    Attributes:
        feature_info (FeatureInfo): Their channels and strides.
    """

    def __init__(self, model: FishClassifier,
                 out_indices: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        self.feature_info = FeatureInfo(model.feature_info, out_indices)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The features of images (N, C, H, W), in the order asked for."""
        backbone = self.model.backbone
        found = dict(zip(backbone.out_indices, backbone(x)))
        return [found[i] for i in self.feature_info.out_indices]


def _feature_info(backbone: FishNet) -> list[dict]:
    specs = {spec.name: spec for spec in lay_out(backbone.arch)}
    info = []
    for name, feature in OUTPUTS:
        spec, module = specs[name], f'backbone.{name}'
        if feature == 'output':
            info.append(dict(num_chs=spec.out_channels, module=module,
                             reduction=spec.out_stride))
        else:
            info.append(dict(num_chs=spec.channels, module=f'{module}.refine',
                             reduction=spec.in_stride))
    return info


def _chosen(fish: type[FishNet], indices: int | Sequence[int]) -> list[int]:
    """Indices counted from 0; a number means so many of the last."""
    if isinstance(indices, int):
        indices = range(-indices, 0)
    for i in indices:
        if i not in range(-len(ALL), len(ALL)):
            raise ValueError(f'{fish.__name__}: out_indices={i} is not '
                             f'allowed; there are {len(ALL)} features.')
    return [i % len(ALL) for i in indices]


def _cfg(url: str = '') -> dict:
    return dict(
        url=url, custom_load=bool(url), num_classes=1000,
        input_size=(3, 224, 224), pool_size=(7, 7), crop_pct=0.875,
        interpolation='bilinear', mean=IMAGENET_DEFAULT_MEAN,
        std=IMAGENET_DEFAULT_STD, first_conv='backbone.stem.0',
        classifier='head.fc', paper_ids='arXiv:1901.03495')


default_cfgs = generate_default_cfgs({
    **{f'{name}.{source}_in1k': _cfg(f'{SCHEME}{name}/{source}')
       for name, found in SOURCES.items() for source in found},
    'fishnext150.untrained': _cfg(),
})


def _register(name: str, fish: type[FishNet], depth: int):
    """Make a network known to timm, and give the function that builds it."""

    def create(pretrained: bool = False, pretrained_cfg=None,
               pretrained_cfg_overlay: dict | None = None,
               **kwargs) -> nn.Module:
        cfg = resolve_pretrained_cfg(name, pretrained_cfg,
                                     pretrained_cfg_overlay)
        overlay = dict(pretrained_cfg_overlay or {})
        if cfg.file:
            overlay.update(custom_load=True)
        elif pretrained and (cfg.url or '').startswith(SCHEME):
            # The default source may be in checkpoints/, as for configs.
            address = cfg.url.removesuffix(f'/{next(iter(SOURCES[name]))}')
            overlay.update(file=find_published(address), custom_load=True)
        if kwargs.get('features_only'):
            chosen = _chosen(fish, kwargs.get('out_indices', ALL))
            kwargs.update(out_indices=chosen, features=sorted({*chosen}))
        return build_model_with_cfg(
            FishClassifier, name, pretrained, pretrained_cfg, overlay,
            feature_cfg=dict(feature_cls=FishFeatures), fish=fish,
            depth=depth, **kwargs)

    create.__name__ = create.__qualname__ = name
    create.__doc__ = (f'{fish.__name__}-{depth}; ``kwargs`` are '
                      "``timm.create_model``'s, or the backbone's own.")
    return register_model(create)


fishnet99 = _register('fishnet99', FishNet, 99)
fishnet150 = _register('fishnet150', FishNet, 150)
fishnet201 = _register('fishnet201', FishNet, 201)
fishnext150 = _register('fishnext150', FishNeXt, 150)

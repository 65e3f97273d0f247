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
        score (bool): Whether there are score layers and a classifier, or the
            backbone alone. Defaults to True.
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
                 score: bool = True,
                 device=None,
                 dtype=None,
                 **options) -> None:
        super().__init__()
        for name, value, only in (('output_stride', output_stride, 32),
                                  ('drop_path_rate', drop_path_rate, 0)):
            if value != only:
                raise ValueError(f'{fish.__name__}: {name}={value} is not '
                                 f'allowed; it should be {only}.')
        self._build = dict(options, depth=depth, in_channels=in_chans)
        self.backbone = fish(**self._build)
        self.num_classes, self.in_chans = num_classes, in_chans
        self.feature_info = _feature_info(self.backbone)
        width = self.backbone.out_channels[-1]
        self.num_features = self.head_hidden_size = width
        self.neck = self.head = nn.Identity()
        if score:
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

    def _take(self, indices: int | Sequence[int] | None) -> list[int]:
        count = len(self.feature_info)
        if indices is None or isinstance(indices, int):
            last = count if indices is None else indices
            indices = range(-last, 0)
        for i in indices:
            if i not in range(-count, count):
                raise ValueError(
                    f'{type(self.backbone).__name__}: out_indices={i} is not '
                    f'allowed; there are {count} features.')
        return [i % count for i in indices]

    def forward_intermediates(self,
                              x: Tensor,
                              indices: int | Sequence[int] | None = None,
                              norm: bool = False,
                              stop_early: bool = False,
                              output_fmt: str = 'NCHW',
                              intermediates_only: bool = False):
        """Compute features.

        Args:
            x (Tensor): Images (N, C, H, W).
            indices (int | Sequence[int], optional): Which of the four; a
                number for the last ones. Defaults to None, for all.
            norm, stop_early: Without meaning here.
            output_fmt (str): 'NCHW'.
            intermediates_only (bool): Whether to return the features alone.
                Defaults to False.

        Returns:
            list[Tensor] | tuple[Tensor, list[Tensor]]: The features, behind
            what :meth:`forward_features` returns.
        """
        if output_fmt != 'NCHW':
            raise ValueError(f'output_fmt={output_fmt!r} is not allowed; it '
                             "should be 'NCHW'.")
        chosen = self._take(indices)
        found = dict(zip(self.backbone.out_indices, self.backbone(x)))
        features = [found[i] for i in chosen]
        if intermediates_only:
            return features
        return self.neck([found[i] for i in sorted(found)])[-1], features

    def prune_intermediate_layers(self,
                                  indices: int | Sequence[int] = 1,
                                  prune_norm: bool = False,
                                  prune_head: bool = True) -> list[int]:
        """Leave out what the chosen features do not need.

        Args:
            indices (int | Sequence[int]): Which, as for
                :meth:`forward_intermediates`.
            prune_norm (bool): Leave out the score layers. Defaults to False.
            prune_head (bool): Leave out the classifier. Defaults to True.

        Returns:
            list[int]: The chosen features, counted from 0.
        """
        chosen = self._take(indices)
        whole = self.backbone
        self.backbone = type(whole)(
            **self._build, out_indices=sorted({*chosen}))
        weight = next(whole.parameters())
        self.backbone.to(weight.device, weight.dtype).train(whole.training)
        state = self.backbone.state_dict()
        self.backbone.load_state_dict(
            {k: v for k, v in whole.state_dict().items() if k in state})
        if prune_norm or max(chosen) < len(OUTPUTS) - 1:
            self.neck = nn.Identity()
            self.num_features = self.backbone.out_channels[-1]
        if prune_head and isinstance(self.head, ClassifierHead):
            self.reset_classifier(0, '')
        return chosen

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


def _feature_info(backbone: FishNet) -> list[dict]:
    specs = {spec.name: spec for spec in lay_out(backbone.arch)}
    whole = [(specs[name], feature == 'output') for name, feature in OUTPUTS]
    return [
        dict(num_chs=spec.out_channels, reduction=spec.out_stride,
             module=f'backbone.{spec.name}') if output else
        dict(num_chs=spec.channels, reduction=spec.in_stride,
             module=f'backbone.{spec.name}.refine') for spec, output in whole
    ]


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


def _create(variant: str,
            fish: type[FishNet],
            depth: int,
            pretrained: bool = False,
            pretrained_cfg=None,
            pretrained_cfg_overlay: dict | None = None,
            **kwargs) -> nn.Module:
    cfg = resolve_pretrained_cfg(variant, pretrained_cfg,
                                 pretrained_cfg_overlay)
    overlay = dict(pretrained_cfg_overlay or {})
    if cfg.file:
        overlay.update(custom_load=True)
    elif pretrained and (cfg.url or '').startswith(SCHEME):
        # The default source may be in checkpoints/, as for configs.
        address = cfg.url.removesuffix(f'/{next(iter(SOURCES[variant]))}')
        overlay.update(file=find_published(address), custom_load=True)
    return build_model_with_cfg(
        FishClassifier, variant, pretrained, pretrained_cfg, overlay,
        feature_cfg=dict(
            feature_cls='getter', out_indices=range(len(OUTPUTS))),
        fish=fish, depth=depth, score=not kwargs.get('features_only'),
        **kwargs)


def _register(name: str, fish: type[FishNet], depth: int):
    def create(pretrained: bool = False, **kwargs) -> nn.Module:
        return _create(name, fish, depth, pretrained, **kwargs)

    create.__name__ = create.__qualname__ = name
    create.__doc__ = (f'{fish.__name__}-{depth}; ``kwargs`` are '
                      "``timm.create_model``'s, or the backbone's own.")
    return register_model(create)


fishnet99 = _register('fishnet99', FishNet, 99)
fishnet150 = _register('fishnet150', FishNet, 150)
fishnet201 = _register('fishnet201', FishNet, 201)
fishnext150 = _register('fishnext150', FishNeXt, 150)

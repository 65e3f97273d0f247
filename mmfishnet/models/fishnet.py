# Copyright (c) mmfishnet authors. All rights reserved.
from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from mmengine.model import Sequential
from torch import Tensor, nn

from ..archs import FISHNET
from ..registry import MODELS, register
from ..wiring import OUTPUTS, STEM_STRIDE, StageSpec, check_arch, lay_out
from .backbone import Backbone
from .blocks import (
    Bottleneck,
    Bridge,
    ChannelReduction,
    DRBlock,
    Layers,
    Stage,
    URBlock,
    build_norm,
    conv1x1,
    pre_act_conv,
)
from .layout import channels_first, open_size, to_fast_layout
from .lean import MaxPool2x2
from .recompute import recompute

# Down-sampling of tail and head (Table 2). All of them give ceil(H / 2), as
# the strided convolutions of other backbones do.
POOLINGS = dict(
    max2=MaxPool2x2,
    max3=partial(nn.MaxPool2d, 3, stride=2, padding=1),
    avg2=partial(nn.AvgPool2d, 2, stride=2, ceil_mode=True))
DOWN_SAMPLES = (*POOLINGS, 'conv')
STEMS = ('conv3x3', 'conv7x7', 'residual')


def _conv_norm_relu(in_channels: int, out_channels: int, kernel: int,
                    stride: int, norm_cfg: dict) -> list[nn.Module]:
    return [
        nn.Conv2d(
            in_channels,
            out_channels,
            kernel,
            stride=stride,
            padding=kernel // 2,
            bias=False),
        build_norm(norm_cfg, out_channels),
        nn.ReLU()
    ]


@register(MODELS)
class FishNet(Backbone):
    """FishNet backbone (Sun et al., NeurIPS 2018).

    A tail that goes down to stride 32, a bridge, a body of UR-blocks that
    comes back up to stride 4 and a head of DR-blocks that goes down again
    (Figure 2, section 3); who reads whom stands in ``wiring.py``.

    The features of an image (N, C, H, W) with H, W >= 32 are
    (N, ``out_channels[i]``, ceil(H / ``out_strides[i]``),
    ceil(W / ``out_strides[i]``)).

    Args:
        depth (int | dict): 99, 150 or 201, the authors' released models, or
            a stage table of one's own, see
            :func:`~mmfishnet.wiring.check_arch`. Defaults to 150.
        in_channels (int): Channels of the image. Defaults to 3.
        out_indices (Sequence[int]): Which features of the head to return: 0,
            1, 2 are the refined features at strides 4, 8, 16, and 3 is the
            last concatenation, at stride 32. What they do not need is not
            built. Defaults to (0, 1, 2, 3).
        frozen_stages (int): Parts that are neither trained nor update their
            statistics: 0 is the stem, n the stem and the first n of the
            ten stages tail1 to head3; -1 freezes nothing. Defaults to -1.
        norm_cfg (dict): Config of the norm layers (BN, SyncBN or GN; for GN
            ``num_groups`` is an upper bound that narrow layers lower).
            Defaults to ``dict(type='BN', requires_grad=True)``.
        norm_eval (bool): Whether batch norm layers stay in evaluation mode,
            that is, keep their statistics. Defaults to False.
        with_cp (bool): Whether to recompute the stem, each stage's blocks and
            those of its transfer in the backward pass to save memory.
            Defaults to False.
        stem (str): What comes before the tail, from the image to stride 4:
            three 3x3 convolutions ('conv3x3', the released models), a 7x7
            one ('conv7x7') or two residual blocks ('residual', section 4.3),
            each followed by a 3x3 max-pooling. Defaults to 'conv3x3'.
        down_sample (str): Down-sampling of tail and head (Table 2): 'max2'
            and 'max3' are 2x2 and 3x3 max-pooling, 'avg2' is 2x2 average
            pooling, 'conv' gives the last residual block of each stage of
            tail and head a stride of 2; a head stage of one block gets
            another for that. Defaults to 'max2'.
        dilated_parts (Sequence[str]): Which of 'body' and 'head' use
            dilated convolutions (section 4.3). Defaults to ('body', ).
        dcn (dict, optional): Config of deformable convolutions, such as
            ``dict(type='DCNv2', deform_groups=1)``; with
            ``fallback_on_stride=True`` strided ones stay plain. Defaults to
            None.
        stage_with_dcn (Sequence[str]): Stages, such as 'head3', in whose
            blocks, those of the transfer included, the 3x3 convolutions are
            deformable. Defaults to ().
        init_cfg (dict | list[dict], optional): Initialisation. Defaults to
            None: Kaiming for convolutions, ones for norms.

    Attributes:
        out_channels (tuple[int]): Channels of the returned features.
        out_strides (tuple[int]): Their strides.
        specs (tuple[StageSpec]): The numbers of every stage that was built.

    Raises:
        KeyError, TypeError, ValueError: If an argument or an entry of the
            stage table is not allowed; the message names it.

    Example:
        >>> import torch
        >>> from mmfishnet.models import FishNet
        >>> model = FishNet(150).eval()
        >>> for feature in model(torch.rand(1, 3, 64, 64)):
        ...     print(tuple(feature.shape))
        (1, 320, 16, 16)
        (1, 832, 8, 8)
        (1, 1600, 4, 4)
        (1, 2112, 2, 2)
    """

    # Output channels of a residual block over those of its 3x3 convolution.
    expansion = 4
    # Channels in a group of a 3x3 convolution at stride 4, None for no groups.
    group_width: int | None = None

    arch_settings = FISHNET

    def __init__(self,
                 depth: int | dict = 150,
                 in_channels: int = 3,
                 out_indices: Sequence[int] = (0, 1, 2, 3),
                 frozen_stages: int = -1,
                 norm_cfg: dict = dict(type='BN', requires_grad=True),
                 norm_eval: bool = False,
                 with_cp: bool = False,
                 stem: str = 'conv3x3',
                 down_sample: str = 'max2',
                 dilated_parts: Sequence[str] = ('body', ),
                 dcn: dict | None = None,
                 stage_with_dcn: Sequence[str] = (),
                 init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(frozen_stages, norm_eval, init_cfg)
        self._check_choice('stem', stem, STEMS)
        self._check_choice('down_sample', down_sample, DOWN_SAMPLES)
        for part in dilated_parts:
            self._check_choice('dilated_parts', part, ('body', 'head'))
        self._check_out_indices(out_indices, len(OUTPUTS))
        if isinstance(depth, dict):
            arch = depth
        else:
            self._check_choice('depth', depth, self.arch_settings,
                               'or a dict with a stage table')
            arch = self.arch_settings[depth]

        self.arch = check_arch(arch, type(self).__name__)
        self.out_indices = tuple(out_indices)
        self.norm_cfg = norm_cfg
        self.with_cp = with_cp
        self.down_sample = down_sample
        self.dcn = dcn
        self.stage_with_dcn = tuple(stage_with_dcn)

        last, feature = OUTPUTS[max(out_indices)]
        self.specs = lay_out(
            self.arch,
            last=last,
            join_last=feature == 'output',
            dilated_parts=tuple(dilated_parts))
        self.stage_names = tuple(spec.name for spec in self.specs)
        self._check_choice('frozen_stages', frozen_stages,
                           range(-1,
                                 len(self.specs) + 1))
        for stage in stage_with_dcn:
            self._check_choice('stage_with_dcn', stage, self.stage_names)
        if (dcn is None) != (len(stage_with_dcn) == 0):
            raise ValueError(
                f'{type(self).__name__}: dcn={dcn!r} and stage_with_dcn='
                f'{stage_with_dcn!r} should be given together.')
        if dcn is not None:
            # Registers them; not there where MMCV was built without.
            import mmcv.ops  # noqa: F401

        self.stem = self._make_stem(stem, in_channels)
        for spec in self.specs:
            self.add_module(spec.name, self._make_stage(spec))

        of = {(spec.name, feature): numbers for spec in self.specs
              for feature, *numbers in (
                  ('refined', spec.channels, spec.in_stride),
                  ('output', spec.out_channels, spec.out_stride))}
        self.out_channels, self.out_strides = zip(
            *(of[OUTPUTS[i]] for i in self.out_indices))
        self._freeze_stages()

    def _make_stem(self, stem: str, in_channels: int) -> Layers:
        out = self.arch['stem_channels']
        mid = out // 2
        conv = partial(_conv_norm_relu, norm_cfg=self.norm_cfg)
        if stem == 'conv3x3':
            layers = [
                *conv(in_channels, mid, 3, stride=2),
                *conv(mid, mid, 3, stride=1), *conv(mid, out, 3, stride=1)
            ]
        elif stem == 'conv7x7':
            layers = conv(in_channels, out, 7, stride=2)
        else:
            # Post-activation: pre-activation would normalise and rectify the
            # pixels themselves.
            # Here, to save the time where no stem is of this kind.
            from torchvision.models.resnet import BasicBlock
            norm = partial(build_norm, self.norm_cfg)
            layers = [
                BasicBlock(i, o, s, self._project(i, o, s), norm_layer=norm)
                for i, o, s in ((in_channels, mid, 2), (mid, out, 1))
            ]
        return Layers(*layers, nn.MaxPool2d(3, stride=2, padding=1))

    def _project(self, in_channels: int, out_channels: int,
                 stride: int) -> Sequential:
        return Sequential(
            conv1x1(in_channels, out_channels, stride),
            build_norm(self.norm_cfg, out_channels))

    def _make_blocks(self,
                     num_blocks: int,
                     in_channels: int,
                     channels: int,
                     stride: int,
                     reduction: int = 1,
                     dilation: int = 1,
                     strided: bool = False,
                     deformable: bool = False) -> list[Bottleneck]:
        """Residual blocks that work at one stride.

        Where the number of channels changes, the first block's shortcut is
        the channel reduction (UR-block) or an isolated convolution (tail and
        bridge, section 4.3's footnote). ``strided`` down-samples in the last
        block, by a strided isolated convolution on its shortcut.
        """
        conv_cfg = dict(self.dcn) if deformable else {}
        fallback = conv_cfg.pop('fallback_on_stride', False)
        blocks = []
        for i in range(num_blocks):
            block_stride = 2 if strided and i == num_blocks - 1 else 1
            if reduction > 1 and i == 0:
                shortcut = ChannelReduction(reduction)
            elif in_channels != channels or block_stride > 1:
                shortcut = pre_act_conv(in_channels, channels, self.norm_cfg,
                                        block_stride)
            else:
                shortcut = None
            plain = fallback and block_stride > 1
            blocks.append(
                Bottleneck(
                    in_channels,
                    channels,
                    expansion=self.expansion,
                    group_width=self._group_width(channels, stride),
                    stride=block_stride,
                    dilation=dilation,
                    shortcut=shortcut,
                    norm_cfg=self.norm_cfg,
                    conv_cfg=None if plain else conv_cfg or None))
            in_channels = channels
        return blocks

    def _group_width(self, channels: int, stride: int) -> int | None:
        """Channels in a group of 3x3 convolutions, None for no grouping."""
        width = self.group_width and self.group_width * stride // STEM_STRIDE
        multiple = self.expansion * (width or 1)
        if channels % multiple:
            grouped = f' with group_width={self.group_width}' if width else ''
            raise ValueError(
                f'{type(self).__name__}: a stage at stride {stride} would '
                f'have {channels} channels{grouped}; the stage table should '
                f'give a multiple of {multiple}.')
        return width

    def _make_stage(self, spec: StageSpec) -> Stage:
        deformable = spec.name in self.stage_with_dcn
        if spec.part == 'bridge':
            return Stage(self._make_bridge(spec, deformable),
                         with_cp=self.with_cp)
        strided = self.down_sample == 'conv' and spec.part != 'body'
        # Who reads a stage of the head reads what its blocks refined.
        least = 2 if strided and spec.part == 'head' else 1
        blocks = self._make_blocks(
            max(spec.blocks, least), spec.in_channels, spec.channels,
            spec.in_stride, spec.reduction, spec.dilation, strided, deformable)
        down = transfer = None
        if strided:
            *blocks, down = blocks
        elif spec.part != 'body':
            down = POOLINGS[self.down_sample]()
        if spec.out_stride == spec.in_stride:
            # The last stage, of which the refined feature alone is needed.
            down = None
        if spec.joins:
            transfer = Sequential(
                *self._make_blocks(
                    spec.transfer_blocks,
                    spec.joined_channels,
                    spec.joined_channels,
                    spec.joined_stride,
                    deformable=deformable))
        stage = dict(tail=Stage, body=URBlock, head=DRBlock)[spec.part]
        return stage(Sequential(*blocks), down, transfer, self.with_cp)

    def _make_bridge(self, spec: StageSpec, deformable: bool) -> Bridge:
        if spec.channels % 16:
            raise ValueError(
                f'{type(self).__name__}: tail_channels[2]={spec.channels} '
                'should be a multiple of 16, for the gate of the bridge.')
        blocks = self._make_blocks(
            spec.blocks,
            2 * spec.channels,
            spec.channels,
            spec.in_stride,
            deformable=deformable)
        return Bridge(spec.channels, Sequential(*blocks), self.norm_cfg)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the chosen features of the head.

        Args:
            x (Tensor): Images (N, C, H, W) with H, W >= 32.

        Returns:
            tuple[Tensor]: One feature an index in ``out_indices``.

        Raises:
            ValueError: If H or W is below 32.
        """
        # A tracer's proxy has no size, and an exporter does not know which
        # of the two is the smaller one.
        if isinstance(x, Tensor) and (x.shape[-2] < 32 or x.shape[-1] < 32):
            raise ValueError(
                f'{type(self).__name__}: the image of {x.shape[-2]}x'
                f'{x.shape[-1]} pixels is too small; H and W should be at '
                'least 32, the stride of the last stage.')
        images = to_fast_layout(x)
        stem = recompute(self.stem, open_size(images), self.with_cp)
        refined, output = {}, {'stem': stem}
        for spec in self.specs:
            stage = getattr(self, spec.name)
            refined[spec.name], output[spec.name] = stage(
                output[spec.reads], output.get(spec.joins))
        features = dict(refined=refined, output=output)
        chosen = (OUTPUTS[i] for i in self.out_indices)
        outs = (features[feature][name] for name, feature in chosen)
        return tuple(outs if images is x else map(channels_first, outs))

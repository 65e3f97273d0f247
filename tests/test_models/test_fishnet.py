# Copyright (c) mmfishnet authors. All rights reserved.
import math
import re

import pytest
import torch
from mmcv.cnn.utils import fuse_conv_bn
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from fish import RECIPE, SMALL
from mmfishnet.models import FishNet, FishNeXt
from mmfishnet.models.blocks import (
    Bottleneck,
    ChannelReduction,
    DRBlock,
    URBlock,
    build_norm,
)
from mmfishnet.models.built import image_channels


def step(model, size=64, batch=2):
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], lr=0.01)
    features = model(torch.randn(batch, image_channels(model), size, size))
    sum(f.square().mean() for f in features).backward()
    optimizer.step()
    return features


def test_fishnext():
    """The group width doubles with each stride, in every block."""
    with torch.device('meta'):
        model, named = FishNeXt(150), FishNeXt(229)
    for spec in model.specs:
        stage = getattr(model, spec.name)
        for part, stride in ((stage.refine, spec.in_stride),
                             (stage.transfer, spec.joined_stride)):
            blocks = [m for m in (part.modules() if part else ())
                      if isinstance(m, Bottleneck)]
            assert blocks or part is None
            for block in blocks:
                conv = block.conv2
                assert conv.in_channels // conv.groups == stride
                assert conv.in_channels * 2 == block.conv3.out_channels
    # Named after its convolutions, with two in the score.
    assert sum(isinstance(m, nn.Conv2d) for m in named.modules()) + 2 == 229


@pytest.mark.parametrize('arguments', [
    *(dict(down_sample=d) for d in ('max3', 'avg2', 'conv')),
    *(dict(stem=s) for s in ('conv7x7', 'residual')),
    *(dict(dilated_parts=p) for p in ((), ('body', 'head'))),
    dict(with_cp=True),
    dict(norm_cfg=dict(type='GN', num_groups=32)),
    dict(in_channels=1),
])
def test_every_variant_trains_a_step(arguments):
    model = FishNet(SMALL, **arguments)
    # Of the four units in so small a gate, none is dead.
    nn.init.ones_(model.bridge.refine.gate[3].bias)
    before = {n: p.clone() for n, p in model.named_parameters()}
    features = step(model.train())
    assert [f.shape[-1] for f in features] == [16, 8, 4, 2]
    assert [f.shape[1] for f in features] == list(model.out_channels)
    unchanged = [
        n for n, p in model.named_parameters() if torch.equal(p, before[n])
    ]
    # A bias before a norm has no gradient but rounding; all else must move.
    assert [n for n in unchanged if not n.endswith('bias')] == []


def test_variants_change_what_they_name():
    dilations = {
        parts: [(p.name, p.dilation)
                for p in FishNet(SMALL, dilated_parts=parts).specs
                if p.dilation > 1]
        for parts in ((), ('body', ), ('body', 'head'))
    }
    assert dilations[()] == []
    assert dilations[('body', )] == [('body2', 2), ('body3', 4)]
    assert dilations[('body', 'head')] == [('body2', 2), ('body3', 4),
                                           ('head1', 4), ('head2', 2)]
    strided = [
        n for n, m in FishNet(SMALL, down_sample='conv').named_modules()
        if isinstance(m, nn.Conv2d) and m.stride == (2, 2)
        and not n.startswith('stem')
    ]
    assert len(strided) == 12 and all('.down.' in n for n in strided)


@pytest.mark.parametrize('out_indices', [(0, ), (1, ), (2, ), (3, ), (1, 3)])
@pytest.mark.parametrize('down_sample', ['max2', 'conv'])
def test_nothing_is_built_that_is_not_used(out_indices, down_sample):
    model = FishNet(SMALL, out_indices=out_indices, down_sample=down_sample)
    features = model(torch.randn(2, 3, 64, 64))
    sum(f.sum() for f in features).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    with torch.device('meta'):
        channels, strides = FishNet(SMALL).out_channels, (4, 8, 16, 32)
    assert model.out_channels == tuple(channels[i] for i in out_indices)
    assert model.out_strides == tuple(strides[i] for i in out_indices)
    assert [f.shape[1] for f in features] == list(model.out_channels)


@pytest.mark.parametrize('down_sample', ['max2', 'max3', 'avg2', 'conv'])
def test_any_image_size(down_sample):
    model = FishNet(SMALL, down_sample=down_sample).eval()
    with torch.no_grad():
        for height, width in (32, 32), (33, 47), (64, 95), (100, 65):
            features = model(torch.randn(1, 3, height, width))
            assert [feature.shape[-2:] for feature in features] == [
                (math.ceil(height / stride), math.ceil(width / stride))
                for stride in model.out_strides]
    with pytest.raises(ValueError, match='31x64'):
        model(torch.rand(1, 3, 31, 64))


def test_channel_reduction_sums_adjacent_channels():
    x = torch.arange(12.).reshape(1, 6, 1, 2)
    reduced = ChannelReduction(3)(x)
    # Eq. 8: channels 0-2 and 3-5.
    assert reduced.flatten().tolist() == [0 + 2 + 4, 1 + 3 + 5, 6 + 8 + 10,
                                          7 + 9 + 11]


@pytest.mark.parametrize('channels, groups', [(4, 1), (16, 2), (80, 10),
                                              (208, 26), (320, 32), (400, 25),
                                              (1600, 32)])
def test_group_norm_fits_narrow_layers(channels, groups):
    for kind in 'GN', nn.GroupNorm, 'mmengine.GN':
        norm = build_norm(dict(type=kind, num_groups=32), channels)
        assert (norm.num_groups, norm.num_channels) == (groups, channels)


@pytest.mark.parametrize('frozen, norm_eval', [(2, True), (0, False)])
def test_frozen_stages_and_norm_eval(frozen, norm_eval):
    """What is frozen keeps its statistics; the rest with norm_eval, too."""
    model = FishNet(SMALL, frozen_stages=frozen, norm_eval=norm_eval).train()
    parts = ['stem', *model.stage_names]
    assert all(p.requires_grad == (n.split('.')[0] in parts[frozen + 1:])
               for n, p in model.named_parameters())
    before = {n: b.clone() for n, b in model.named_buffers()}
    step(model)
    updated = {n.split('.')[0] for n, b in model.named_buffers()
               if not torch.equal(b, before[n])}
    assert updated == (set() if norm_eval else {*parts[frozen + 1:]})


def test_fused_norms_give_the_same_features():
    model = FishNet(SMALL).train()
    model.init_weights()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(4, 3, 64, 64) * 2 + 1)
        x = torch.randn(1, 3, 64, 96).double()
        expected = model.eval().double()(x)
        norms = sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())
        fused = fuse_conv_bn(model)
        assert sum(isinstance(m, nn.BatchNorm2d)
                   for m in fused.modules()) < norms
        for a, b in zip(expected, fused(x)):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_stages_are_the_blocks_of_figure_3():
    model = FishNet(SMALL)
    kinds = {
        spec.name: type(getattr(model, spec.name))
        for spec in model.specs
    }
    assert [n for n, kind in kinds.items() if kind is URBlock] == [
        'body1', 'body2', 'body3']
    assert [n for n, kind in kinds.items() if kind is DRBlock] == [
        'head1', 'head2', 'head3']
    seen = {}
    for name in kinds:
        getattr(model, name).register_forward_hook(
            lambda module, args, outputs, name=name: seen.update(
                {name: outputs}))
    features = model(torch.randn(2, 3, 64, 96))
    for i in range(3):
        assert torch.equal(features[i], seen[f'head{i + 1}'][0])
    assert torch.equal(features[3], seen['head3'][1])
    for spec in model.specs:
        refined, output = seen[spec.name]
        assert refined.shape[1] == spec.channels
        assert output.shape[1] == spec.out_channels
        assert output.shape[-1] == 96 // spec.out_stride


@pytest.mark.parametrize('fixed', [True, False])
def test_low_precision_is_sound(fixed):
    """bf16 and fp16 stay finite and close to float64, in the deepest, too."""
    model = FishNet(201, **(RECIPE if fixed else {})).train()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        # Keeps sums of many blocks in range, as training does.
        if isinstance(module, Bottleneck):
            nn.init.constant_(module.norm3.weight, 0.2)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = {'float32': model(x)}
        for name in ('bfloat16', 'float16'):
            with torch.autocast('cpu', getattr(torch, name)):
                features[name] = model(x)
        expected = model.double()(x.double())
    for name, most in (('float32', 1e-4), ('float16', 0.05),
                       ('bfloat16', 0.2)):
        for feature, exact in zip(features[name], expected):
            error = (feature.double() - exact).norm() / exact.norm()
            assert error < most, (name, error)


def test_name_resolves_under_every_scope():
    for scope in 'mmengine', 'mmdet', 'mmpretrain':
        for name in 'FishNet', 'mmfishnet.FishNet':
            DefaultScope.get_instance(
                f'{scope}-{name}', scope_name=scope)  # the latest is current
            with torch.device('meta'):
                model = MODELS.build(dict(type=name, depth=SMALL))
            assert type(model) is FishNet


@pytest.mark.parametrize('arguments, error, message', [
    (dict(depth=50), ValueError, r'depth=50 .*\[99, 150, 201\]'),
    (dict(out_indices=(4, )), ValueError, r'out_indices=4'),
    (dict(out_indices=()), ValueError, r'not empty'),
    (dict(out_indices=(1, 0)), ValueError, r'ascending'),
    (dict(frozen_stages=11), ValueError, r'frozen_stages=11'),
    (dict(stem='3x3'), ValueError, r"stem='3x3' .*conv7x7"),
    (dict(down_sample='mean'), ValueError, r"down_sample='mean'"),
    (dict(dilated_parts=('tail', )), ValueError, r"dilated_parts='tail'"),
    (dict(depth={**SMALL, 'neck': 1}), KeyError, r"unknown entries \['neck'"),
    (dict(depth={k: v for k, v in SMALL.items() if k != 'head'}), KeyError,
     r"missing entries \['head'"),
    (dict(depth={**SMALL, 'tail': (1, 2)}), TypeError, r'tail=\(1, 2\)'),
    (dict(depth={**SMALL, 'tail': (1, 2, 0)}), ValueError, r'tail\[2\]=0'),
    (dict(depth={**SMALL, 'bridge': 1.5}), TypeError, r'bridge=1.5'),
    (dict(depth={**SMALL, 'body_reduction': (1, 5, 2)}), ValueError,
     r'body_reduction\[1\]=5 .*112 channels'),
    (dict(depth={**SMALL, 'tail_channels': (34, 48, 64)}), ValueError,
     r'34 channels.*multiple of 4'),
    (dict(depth={**SMALL, 'tail_channels': (32, 48, 68)}), ValueError,
     r'tail_channels\[2\]=68.*16'),
    (dict(depth=150, group_width=3), ValueError, 'group_width=3'),
])
def test_errors_name_the_value(arguments, error, message):
    with pytest.raises(error) as info:
        (FishNeXt if 'group_width' in arguments else FishNet)(**arguments)
    assert re.search(message, str(info.value))

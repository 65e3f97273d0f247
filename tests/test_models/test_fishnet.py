# Copyright (c) mmfishnet authors. All rights reserved.
import math
import re

import pytest
import torch
from mmcv.cnn.utils import fuse_conv_bn
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from fish import RECIPE, SMALL
from mmfishnet.models import FishNet, FishNetScore, FishNeXt
from mmfishnet.models.blocks import (
    Bottleneck,
    ChannelReduction,
    DRBlock,
    URBlock,
    build_norm,
)


def count(*modules):
    return sum(p.numel() for m in modules for p in m.parameters())


def with_score(model, classes=1000):
    """Parameters of a model together with its score layers."""
    score = FishNetScore(model.out_channels[-1])
    return count(model, score, nn.Linear(score.out_channels, classes))


def kaiming(model, seed=0):
    """A model whose features neither vanish nor explode, on any torch."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            with torch.no_grad():
                module.weight.normal_(
                    0, math.sqrt(1 / fan_in), generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
    return model


def step(model, size=64, batch=2):
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], lr=0.01)
    features = model(torch.randn(batch, model_in_channels(model), size, size))
    sum(f.square().mean() for f in features).backward()
    optimizer.step()
    return features


def model_in_channels(model):
    return next(m for m in model.modules()
                if isinstance(m, nn.Conv2d)).in_channels


@pytest.mark.parametrize('depth, params', [(99, 16_628_904),
                                           (150, 24_959_400),
                                           (201, 44_584_552)])
def test_parameters_of_released_models(depth, params):
    assert with_score(FishNet(depth)) == params


def test_parameters_of_fishnext():
    # The widths of FishNet-150 with the grouping rule of section 4.2.
    assert with_score(FishNeXt(150)) == 25_738_024


def test_fishnext_229_is_named_after_its_convolutions():
    model = FishNeXt(229)
    convolutions = sum(isinstance(m, nn.Conv2d) for m in model.modules())
    assert convolutions + 2 == 229  # and two in the score


def test_fishnext_group_width_doubles_with_each_stride():
    model = FishNeXt(150)
    widths = dict(zip((4, 8, 16, 32), (4, 8, 16, 32)))
    for spec in model.specs:
        stage = getattr(model, spec.name)
        for part, stride in ((stage.refine, spec.in_stride),
                             (stage.transfer, spec.joined_stride)):
            blocks = [
                m for m in (part.modules() if part else ())
                if isinstance(m, Bottleneck)
            ]
            assert blocks or part is None
            for block in blocks:
                conv = block.conv2
                assert conv.in_channels // conv.groups == widths[stride]
                assert conv.in_channels * 2 == block.conv3.out_channels


# Table 2 counts 26.4M for pooling and 30.2M for convolution (+3.8M).
@pytest.mark.parametrize('down_sample, more', [('max2', 0), ('max3', 0),
                                               ('avg2', 0),
                                               ('conv', 3_710_000)])
def test_down_sampling_parameters(down_sample, more):
    ours = with_score(FishNet(150, down_sample=down_sample))
    assert ours - 24_959_400 == pytest.approx(more, rel=0.01)


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


@pytest.mark.parametrize('out_indices', [(0, ), (1, ), (2, ), (3, ), (0, 1),
                                         (1, 2, 3), (0, 1, 2, 3)])
@pytest.mark.parametrize('down_sample', ['max2', 'conv'])
def test_nothing_is_built_that_is_not_used(out_indices, down_sample):
    model = FishNet(SMALL, out_indices=out_indices, down_sample=down_sample)
    features = model(torch.randn(2, 3, 64, 64))
    sum(f.sum() for f in features).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    channels, strides = FishNet(SMALL).out_channels, (4, 8, 16, 32)
    assert model.out_channels == tuple(channels[i] for i in out_indices)
    assert model.out_strides == tuple(strides[i] for i in out_indices)
    assert [f.shape[1] for f in features] == list(model.out_channels)


@pytest.mark.parametrize('height, width', [(32, 32), (33, 47), (64, 95),
                                           (100, 65)])
@pytest.mark.parametrize('down_sample', ['max2', 'max3', 'avg2', 'conv'])
def test_any_image_size(height, width, down_sample):
    model = FishNet(SMALL, down_sample=down_sample).eval()
    with torch.no_grad():
        features = model(torch.randn(1, 3, height, width))
    for feature, stride in zip(features, model.out_strides):
        assert feature.shape[-2:] == (math.ceil(height / stride),
                                      math.ceil(width / stride))


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


def test_frozen_stages_and_norm_eval():
    model = FishNet(SMALL, frozen_stages=2, norm_eval=True).train()
    frozen = {
        n.split('.')[0]
        for n, p in model.named_parameters() if not p.requires_grad
    }
    assert frozen == {'stem', 'tail1', 'tail2'}
    assert all(p.requires_grad for n, p in model.named_parameters()
               if n.split('.')[0] not in frozen)
    before = {n: b.clone() for n, b in model.named_buffers()}
    step(model)
    assert all(torch.equal(b, before[n]) for n, b in model.named_buffers())


def test_frozen_stem_keeps_its_statistics_only():
    model = FishNet(SMALL, frozen_stages=0).train()
    before = {n: b.clone() for n, b in model.named_buffers()}
    step(model)
    updated = {
        n.split('.')[0]
        for n, b in model.named_buffers() if not torch.equal(b, before[n])
    }
    assert updated == {spec.name for spec in model.specs}


def test_recipe_norms_are_fixed():
    model = FishNet(SMALL, **RECIPE).train()
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    norms = {
        id(p)
        for m in model.modules()
        if isinstance(m, nn.BatchNorm2d) for p in m.parameters()
    }
    assert trainable and not any(
        id(p) in norms for n, p in model.named_parameters() if n in trainable)


def test_fused_norms_give_the_same_features():
    model = kaiming(FishNet(SMALL)).train()
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
@pytest.mark.parametrize('depth', [99, 150, 201])
def test_low_precision_is_sound(depth, fixed):
    """bf16 and fp16 stay finite and close to float64, at any depth."""
    torch.manual_seed(0)
    model = FishNet(depth, **(RECIPE if fixed else {})).train()
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


@pytest.mark.parametrize('scope', ['mmengine', 'mmdet', 'mmpretrain'])
@pytest.mark.parametrize('name', ['FishNet', 'mmfishnet.FishNet'])
def test_name_resolves_under_every_scope(scope, name):
    DefaultScope.get_instance(
        f'{scope}-{name}', scope_name=scope)  # the latest one is current
    model = MODELS.build(dict(type=name, depth=SMALL, out_indices=(0, )))
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
])
def test_errors_name_the_value(arguments, error, message):
    with pytest.raises(error) as info:
        FishNet(**arguments)
    assert re.search(message, str(info.value))


def test_fishnext_group_width_error():
    with pytest.raises(ValueError, match='group_width=3'):
        FishNeXt(150, group_width=3)


def test_small_image_error():
    with pytest.raises(ValueError, match='31x64'):
        FishNet(SMALL)(torch.rand(1, 3, 31, 64))

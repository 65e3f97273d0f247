# Copyright (c) mmfishnet authors. All rights reserved.
"""How features lie in memory, whatever is given."""
from copy import deepcopy

import pytest
import torch
from torch import nn

from fish import RECIPE, SMALL
from mmfishnet.models import FishNet, FishNeXt, PreActResNet
from mmfishnet.models.blocks import ChannelReduction, conv1x1
from mmfishnet.models.layout import channels_last


@pytest.mark.parametrize('size', [(64, 96), (33, 7)])
def test_strided_convolution_of_few_channels(size):
    """Not torch's, which breaks its memory in channels-last."""
    ours = conv1x1(3, 8, stride=2).double()
    theirs = nn.Conv2d(3, 8, 1, stride=2, bias=False).double()
    theirs.load_state_dict(ours.state_dict())
    assert type(ours) is not type(theirs) is type(conv1x1(16, 8, stride=2))
    x = torch.randn(2, 3, *size, dtype=torch.double)
    for function in (ours, theirs):
        function(x).square().sum().backward()
    assert torch.equal(ours(x), theirs(x))
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)


def variants():
    yield 'released', lambda: FishNet(SMALL)
    yield 'recipe', lambda: FishNet(SMALL, **RECIPE)
    yield 'with_cp', lambda: FishNet(SMALL, with_cp=True)
    yield 'GN', lambda: FishNet(
        SMALL, norm_cfg=dict(type='GN', num_groups=32))
    for name in ('max3', 'avg2', 'conv'):
        yield name, lambda name=name: FishNet(SMALL, down_sample=name)
    for name in ('conv7x7', 'residual'):
        yield name, lambda name=name: FishNet(SMALL, stem=name)
    yield 'DCN', lambda: FishNet(
        SMALL,
        dcn=dict(type='DCNv2', deform_groups=1),
        stage_with_dcn=('head3', ))
    yield 'FishNeXt', lambda: FishNeXt(
        dict(SMALL, tail_channels=(32, 64, 128)), group_width=2)
    yield 'PreActResNet', lambda: PreActResNet((1, 1, 1, 1))


@pytest.mark.parametrize('name, build', [*variants()])
def test_channels_last_stays(name, build):
    """No module returns another layout, and the values are the same."""
    model = build()
    for key, value in model.named_parameters():
        if 'conv_offset' in key:
            nn.init.normal_(value, 0, 0.1)
    x = torch.randn(2, 3, 64, 96)
    original = deepcopy(model)
    with torch.no_grad():
        expected = [model.train(mode)(x) for mode in (True, False)]
    for features in expected:
        assert all(feature.is_contiguous() for feature in features)
    model = original.to(memory_format=torch.channels_last)
    lost = []

    def look(module, args, outputs):
        for x in outputs if isinstance(outputs, tuple) else (outputs, ):
            # Of one place or one channel, each layout is another's.
            if min(x.shape[1:]) > 1 and not x.is_contiguous(
                    memory_format=torch.channels_last):
                lost.append(type(module).__name__)

    for key, module in model.named_modules():
        # MMCV's deformable convolutions are given the layout they want.
        if not (name == 'DCN' and '.conv2' in key):
            module.register_forward_hook(look)
    for mode, others in zip((True, False), expected):
        with torch.set_grad_enabled(mode):
            features = model.train(mode)(
                x.contiguous(memory_format=torch.channels_last))
        assert not lost
        torch.testing.assert_close(features, others, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('given', [
    torch.contiguous_format, torch.channels_last])
def test_fast_whatever_is_given(given, channels):
    """On a CPU, features and their gradients inside are channels-last, and
    those that are given and returned lie as the image does."""
    model = FishNet(SMALL, in_channels=channels, **RECIPE).train()
    inside = []

    def look(module, args, output):
        inside.append(output)
        output.register_hook(inside.append)

    for module in model.modules():
        if isinstance(module, ChannelReduction):
            module.register_forward_hook(look)
    image = torch.randn(2, channels, 64, 96)
    if given == torch.channels_last:
        image = channels_last(image)
    features = model(image)
    torch.autograd.backward(features, [torch.randn_like(f) for f in features])
    assert all(f.is_contiguous(memory_format=given) for f in features)
    assert len(inside) == 4
    assert all(x.stride(1) == 1 for x in inside)


def test_features_may_be_changed_in_place():
    """Of the smallest image, too, whose last feature is one pixel."""
    model = FishNet(SMALL).train()
    features = model(torch.randn(2, 3, 32, 32))
    sum(f.mul_(2).sum() for f in features).backward()

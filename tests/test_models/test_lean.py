# Copyright (c) mmfishnet authors. All rights reserved.
"""Leaner than torch, and the same function."""
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from torch import nn

from mmfishnet.models import FishNet, FishNeXt, PreActResNet, lean
from mmfishnet.models.blocks import (
    Bottleneck,
    Bridge,
    ChannelReduction,
    DRBlock,
    URBlock,
    conv1x1,
)
from mmfishnet.models.lean import MaxPool2x2, norm_relu

SMALL = dict(
    stem_channels=16,
    tail=(1, 2, 1),
    tail_channels=(32, 48, 64),
    bridge=2,
    body=(1, 1, 2),
    head=(1, 2, 1),
    body_transfer=(1, 1, 1),
    head_transfer=(1, 1, 2))
# Section 4.4.
RECIPE = dict(
    frozen_stages=0,
    norm_cfg=dict(type='BN', requires_grad=False),
    norm_eval=True)


def fix(model):
    """Statistics and affine as of a trained norm, fixed."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval().requires_grad_(False)
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            module.weight.uniform_(-1, 1.5)
            module.bias.normal_(0, 0.3)
    return model


def kept_bytes(function, *args):
    """Bytes that autograd keeps, parameters and buffers aside."""
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        output = function(*args)
    own = [
        t.untyped_storage().data_ptr()
        for t in (*function.parameters(), *function.buffers())
    ]
    return sum(kept[pointer] for pointer in kept if pointer not in own), output


@pytest.mark.parametrize('kind', ['BN', 'SyncBN'])
def test_norm_relu_is_the_same_function(kind):
    norm = fix(build_norm_layer(dict(type=kind), 6)[1].double())
    relu = nn.ReLU(inplace=True)
    x = torch.randn(2, 6, 5, 7, dtype=torch.double, requires_grad=True)
    expected = F.relu(
        F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight,
                     norm.bias))
    assert torch.equal(norm_relu(norm, relu, x), expected)
    function = lambda x: norm_relu(norm, relu, x)  # noqa: E731
    assert torch.autograd.gradcheck(function, x)
    assert torch.autograd.gradgradcheck(function, x)


@pytest.mark.parametrize('trained', ['weight', 'bias', 'statistics'])
def test_what_is_trained_takes_the_ordinary_path(trained):
    norm = fix(nn.BatchNorm2d(3))
    if trained == 'statistics':
        norm.train()
    else:
        getattr(norm, trained).requires_grad_()
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    norm_relu(norm, nn.ReLU(), x).sum().backward()
    if trained != 'statistics':
        assert getattr(norm, trained).grad is not None
    assert x.grad is not None


@pytest.mark.parametrize('size', [(4, 6), (5, 7), (1, 1), (2, 1), (33, 3)])
@pytest.mark.parametrize('layout',
                         [torch.contiguous_format, torch.channels_last])
def test_pool_is_the_same_function_in_ties_too(size, layout):
    # Few values: most windows have their maximum in several corners.
    x = torch.randint(0, 3, (2, 3, *size)).double()
    x = x.contiguous(memory_format=layout).requires_grad_()
    expected = nn.MaxPool2d(2, 2, ceil_mode=True)(x)
    grad = torch.randn_like(expected)
    expected_grad, = torch.autograd.grad(expected, x, grad)
    pooled = MaxPool2x2()(x)
    pooled_grad, = torch.autograd.grad(pooled, x, grad)
    assert torch.equal(pooled, expected)
    assert torch.equal(pooled_grad, expected_grad)
    assert pooled_grad.is_contiguous(memory_format=layout)
    apart = torch.randperm(x.numel()).double().reshape(x.shape)
    for check in torch.autograd.gradcheck, torch.autograd.gradgradcheck:
        assert check(MaxPool2x2(), apart.requires_grad_())


@pytest.mark.parametrize('block', [
    Bottleneck(8, 8),
    Bottleneck(16, 8, shortcut=ChannelReduction(2), dilation=2),
    Bridge(16, Bottleneck(32, 16, shortcut=ChannelReduction(2))),
], ids=['DR', 'UR', 'bridge'])
@pytest.mark.parametrize('fixed', [True, False])
def test_gradients_of_each_block(block, fixed):
    block = fix(block.double())
    if not fixed:
        block.train().requires_grad_()
    channels = 16 if isinstance(block, Bridge) else block.conv1.in_channels
    x = torch.randn(2, channels, 3, 2, dtype=torch.double, requires_grad=True)
    # Running statistics would differ from one evaluation to the next.
    with mock.patch.object(nn.BatchNorm2d, 'momentum', 0., create=True):
        assert torch.autograd.gradcheck(block, x, fast_mode=True)


@pytest.mark.parametrize('with_cp', [False, True])
@pytest.mark.parametrize('size', [(64, 96), (65, 97)])
def test_fish_is_the_same_with_and_without(with_cp, size):
    """Features to the bit, gradients in float64 to its rounding."""
    model = FishNet(SMALL, with_cp=with_cp, **RECIPE).double().train()
    fix(model)
    x = torch.randn(2, 3, *size, dtype=torch.double)
    results = []
    for plain in (False, True):
        model.zero_grad()
        with mock.patch.object(lean, 'is_recorded', lambda x: False) if (
                plain) else mock.MagicMock():
            kept, features = kept_bytes(model, x)
            sum(f.square().sum() for f in features).backward()
        grads = [p.grad for p in model.parameters() if p.requires_grad]
        results.append((features, grads, kept))
    assert all(map(torch.equal, results[0][0], results[1][0]))
    for grad, expected in zip(results[0][1], results[1][1]):
        torch.testing.assert_close(grad, expected, rtol=1e-12, atol=1e-12)
    if not with_cp:
        assert results[0][2] < 0.55 * results[1][2]


def test_bytes_against_pytorchcv():
    """Half of what another FishNet-150 keeps; a tenth with with_cp."""
    model_provider = pytest.importorskip('pytorchcv.model_provider')
    theirs = model_provider.get_model('fishnet150').features
    fix(theirs).init_block.requires_grad_(False)
    with torch.device('meta'):
        ours = [
            FishNet(150, out_indices=(3, ), with_cp=with_cp, **RECIPE)
            for with_cp in (False, True)
        ]
    image = torch.randn(1, 3, 224, 224)
    reference, _ = kept_bytes(theirs, image)
    lean_, recomputed = (
        kept_bytes(
            model.to_empty(device='cpu').train(), image)[0] for model in ours)
    assert lean_ < 0.47 * reference
    assert recomputed < 0.12 * reference


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
@pytest.mark.parametrize('training', [True, False])
def test_channels_last_stays(name, build, training):
    """No module returns another layout, and the values are the same."""
    torch.manual_seed(0)
    model = build().train(training)
    for key, value in model.named_parameters():
        if 'conv_offset' in key:
            nn.init.normal_(value, 0, 0.1)
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = model(x)
        assert all(feature.is_contiguous() for feature in expected)
    model.to(memory_format=torch.channels_last)
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
    with torch.set_grad_enabled(training):
        features = model(x.contiguous(memory_format=torch.channels_last))
    assert not lost
    for feature, other in zip(features, expected):
        torch.testing.assert_close(feature, other, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('given', [
    torch.contiguous_format, torch.channels_last])
def test_fast_whatever_is_given(given):
    """On a CPU, features and their gradients inside are channels-last, and
    those that are given and returned lie as the image does."""
    model = FishNet(SMALL, **RECIPE).train()
    inside = []

    def look(module, args, output):
        inside.append(output)
        output.register_hook(inside.append)

    for module in model.modules():
        if isinstance(module, ChannelReduction):
            module.register_forward_hook(look)
    image = torch.randn(2, 3, 64, 96).contiguous(memory_format=given)
    features = model(image)
    torch.autograd.backward(features, [torch.randn_like(f) for f in features])
    assert all(f.is_contiguous(memory_format=given) for f in features)
    assert len(inside) == 4
    assert all(x.stride(1) == 1 for x in inside)


@pytest.mark.parametrize('arguments', [{}, RECIPE, dict(with_cp=True)])
@pytest.mark.parametrize('training', [True, False])
def test_symbolic_trace(arguments, training):
    model = FishNet(SMALL, **arguments).double().train(training)
    traced = torch.fx.symbolic_trace(model)
    # The graph shows layers, not what is lean in them.
    calls = [n for n in traced.graph.nodes if n.op == 'call_function']
    assert not any('NormReLU' in str(node.target) for node in calls)
    x = torch.randn(2, 3, 64, 96, dtype=torch.double)
    for feature, expected in zip(traced(x), model(x)):
        torch.testing.assert_close(feature, expected)


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

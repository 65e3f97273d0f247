# Copyright (c) mmfishnet authors. All rights reserved.
"""Leaner than torch, and the same function."""
from contextlib import nullcontext
from copy import deepcopy
from functools import partial
from unittest import mock

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from torch import nn
from torch.autograd import forward_ad

from fish import RECIPE, SMALL
from mmfishnet.models import FishNet, lean
from mmfishnet.models.lean import MaxPool2x2, norm_relu_conv


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
        kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        output = function(*args)
    own = [
        t.untyped_storage()._cdata
        for t in (*function.parameters(), *function.buffers())
    ]
    return sum(kept[pointer] for pointer in kept if pointer not in own), output


NORMS = dict(
    live=nn.BatchNorm2d,
    untracked=partial(nn.BatchNorm2d, track_running_stats=False),
    cumulative=partial(nn.BatchNorm2d, momentum=None),
    affine_trained=lambda c: nn.BatchNorm2d(c).eval(),
    fixed=lambda c: nn.BatchNorm2d(c).eval().requires_grad_(False),
    sync=nn.SyncBatchNorm,
    sync_fixed=lambda c: nn.SyncBatchNorm(c).eval().requires_grad_(False),
    group=partial(nn.GroupNorm, 4),
    group_fixed=lambda c: nn.GroupNorm(4, c).requires_grad_(False))
CONVS = dict(
    plain=dict(kernel_size=1, bias=False),
    biased=dict(kernel_size=3),
    dilated=dict(kernel_size=3, padding=2, dilation=2, groups=4, bias=False),
    strided=dict(kernel_size=3, stride=2, padding=1),
    frozen=dict(kernel_size=1),
    reflected=dict(kernel_size=3, padding=1, padding_mode='reflect'),
    same=dict(kernel_size=3, padding='same'))


def trio(norm, conv='plain', channels=16):
    """A norm, a ReLU and a convolution as of a network that was trained."""
    model = nn.Sequential(
        NORMS[norm](channels), nn.ReLU(),
        nn.Conv2d(channels, 16, **CONVS[conv]))
    model[2].requires_grad_(conv != 'frozen')
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            value.normal_(0.3)
        if 'var' in name:
            value.abs_().add_(0.1)
    return model


def joined(model, x):
    norm, relu, conv = model
    return norm_relu_conv(norm, relu, conv, x)


def results(function, model, x, autocast=False):
    """Output, gradients and buffers of a step; the model is a copy."""
    model = deepcopy(model)
    x = x.detach().requires_grad_()
    with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        # Not a leaf, and as a norm's input in a network it has the layout.
        output = function(model, x * 1)
    generator = torch.Generator().manual_seed(0)
    grad = torch.empty_like(output).normal_(generator=generator)
    output.backward(grad)
    return [output, x.grad, *(p.grad for p in model.parameters()
                              if p.requires_grad), *model.buffers()]


def assert_same(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected):
        assert a.stride() == b.stride()
        assert torch.equal(a, b)


@pytest.mark.parametrize('conv', CONVS)
@pytest.mark.parametrize('norm', NORMS)
def test_same_to_the_bit(norm, conv):
    """As torch's layers in a row, statistics and layouts included."""
    for dtype, autocast in ((torch.float, False), (torch.float, True),
                            (torch.double, False)):
        for shape in (2, 16, 17, 19), (1, 32, 24, 24), (3, 16, 3, 3):
            model = trio(norm, conv, shape[1]).to(dtype)
            for layout in torch.contiguous_format, torch.channels_last:
                x = torch.randn(shape, dtype=dtype).contiguous(
                    memory_format=layout)
                assert_same(
                    results(joined, model, x, autocast),
                    results(lambda model, x: model(x), model, x, autocast))


@pytest.mark.parametrize('norm', [n for n in NORMS if n != 'cumulative'])
def test_first_and_second_derivatives(norm):
    model = trio(norm, 'dilated', 8).double()
    x = torch.randn(2, 8, 4, 3, dtype=torch.double, requires_grad=True)
    params = [p for p in model.parameters() if p.requires_grad]
    for check in torch.autograd.gradcheck, torch.autograd.gradgradcheck:
        assert check(lambda x, *params: joined(model, x), (x, *params))


class Other(nn.BatchNorm2d):

    def forward(self, x):
        return 2 * super().forward(x)


def patch(model):
    forward = model[0].forward
    model[0].forward = lambda x: 3 * forward(x)


CHANGES = dict(
    leaky=lambda m: m.__setitem__(1, nn.LeakyReLU(0.1)),
    subclass=lambda m: setattr(m[0], '__class__', Other),
    patched=patch,
    parametrized=lambda m: nn.utils.parametrizations.weight_norm(m[2]),
    norm_hook=lambda m: m[0].register_forward_hook(lambda m, i, out: 2 * out),
    norm_pre_hook=lambda m: m[0].register_forward_pre_hook(
        lambda m, args: 2 * args[0]),
    relu_hook=lambda m: m[1].register_forward_hook(lambda m, i, out: 3 * out),
    conv_hook=lambda m: m[2].register_forward_hook(lambda m, i, out: out**2),
    backward_hook=lambda m: m[0].register_full_backward_hook(
        lambda m, given, grads: (2 * given[0], )),
    backward_pre_hook=lambda m: m[2].register_full_backward_pre_hook(
        lambda m, grads: (3 * grads[0], )))


@pytest.mark.parametrize('change', CHANGES)
@pytest.mark.parametrize('norm', ['live', 'affine_trained', 'fixed'])
def test_what_somebody_changed(norm, change):
    """Hooks fire, and what is of another class is computed as such."""
    def changed(function):
        def run(model, x):
            CHANGES[change](model)
            return function(model, x)
        return run

    model = trio(norm)
    x = torch.randn(2, 16, 5, 7)
    found, expected, as_it_was = (
        results(f, model, x) for f in (
            changed(joined), changed(lambda model, x: model(x)), joined))
    assert_same(found[:2], expected[:2])
    if change != 'parametrized':
        assert_same(found, expected)
        assert not torch.equal(found[1], as_it_was[1])


@pytest.mark.parametrize('arguments', [{}, RECIPE])
def test_hooks_of_a_network(arguments):
    """Grad-CAM on a ReLU, full backward hooks, hooks on every module."""
    model = FishNet(SMALL, **arguments).train()
    seen, everywhere = {}, []
    relu = model.head3.refine[0].relu
    relu.register_forward_hook(
        lambda module, args, out: seen.update(relu=out))
    norm = model.head2.refine[0].norm1
    norm.register_full_backward_hook(
        lambda module, given, grads: seen.update(norm=grads[0]))
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, args, out: everywhere.append(module))
    features = model(torch.randn(2, 3, 64, 64))
    handle.remove()
    assert {*everywhere} == {*model.modules()} - {
        m for m in model.modules() if isinstance(m, nn.ModuleList)}
    grad, = torch.autograd.grad(features[3].sum(), seen['relu'],
                                retain_graph=True)
    features[3].sum().backward()
    assert grad.abs().sum() > 0 and seen['norm'].abs().sum() > 0


@pytest.mark.parametrize('arguments', [
    RECIPE, dict(norm_eval=True), dict(norm_cfg=dict(type='GN', num_groups=8))
])
def test_functorch_and_forward_mode(arguments):
    model = FishNet(SMALL, out_indices=(2, 3), **arguments).double().train()
    x, v = torch.randn(2, 2, 3, 32, 64, dtype=torch.double)
    features, backward = torch.func.vjp(model, x)
    u = tuple(map(torch.randn_like, features))
    expected = (backward(u)[0] * v).sum()
    tangents = torch.func.jvp(model, (x, ), (v, ))[1]
    with forward_ad.dual_level():
        outs = model(forward_ad.make_dual(x, v))
        duals = [forward_ad.unpack_dual(out).tangent for out in outs]
    for pushed in tangents, duals:
        torch.testing.assert_close(
            sum((a * b).sum() for a, b in zip(u, pushed)), expected)
    for a, b in zip(torch.vmap(model)(x[:, None]), model(x)):
        torch.testing.assert_close(a[:, 0], b)


@pytest.mark.parametrize('size', [(4, 6), (5, 7), (1, 1), (33, 3)])
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


REGIMES = dict(
    fixed=RECIPE,
    affine_trained=dict(norm_eval=True),
    live={},
    group=dict(norm_cfg=dict(type='GN', num_groups=32)))


@pytest.mark.parametrize('size', [(64, 96), (65, 97)])
@pytest.mark.parametrize('regime', REGIMES)
def test_fish_is_the_same(regime, size):
    """Layer by layer, lean, and with ``with_cp``, which changes no bit:
    features, gradients and running statistics of two steps."""
    found, sizes = [], []
    for with_cp, plain in (False, True), (False, False), (True, False):
        torch.manual_seed(0)
        model = FishNet(SMALL, with_cp=with_cp, **REGIMES[regime]).double()
        if regime == 'fixed':
            fix(model)
        with mock.patch.object(lean, 'is_recorded', lambda x: False) if (
                plain) else nullcontext():
            for _ in range(2):
                x = torch.randn(2, 3, *size, dtype=torch.double)
                kept, features = kept_bytes(model.train(), x)
                sum(f.square().mean() for f in features).backward()
        sizes.append(kept)
        found.append([
            *features, *(p.grad for p in model.parameters()
                         if p.requires_grad), *model.buffers()
        ])
    plain, lean_, recomputed = found
    for a, b, c in zip(plain, lean_, recomputed, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
        assert torch.equal(b, c)
    assert sizes[2] < sizes[1] < sizes[0]


@pytest.mark.parametrize('regime', REGIMES)
def test_bytes_against_pytorchcv(regime):
    """Half of what another FishNet-150 keeps; a tenth with with_cp."""
    model_provider = pytest.importorskip('pytorchcv.model_provider')
    with torch.device('meta'):
        theirs = model_provider.get_model('fishnet150').features.train()
        ours, recomputing = (
            FishNet(150, out_indices=(3, ), with_cp=with_cp,
                    **REGIMES[regime]).train() for with_cp in (False, True))
        image = torch.randn(2, 3, 224, 224)
    if regime in ('fixed', 'affine_trained'):
        for module in theirs.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval().requires_grad_(regime != 'fixed')
    if regime == 'fixed':
        theirs.init_block.requires_grad_(False)
    reference, kept, least = (
        kept_bytes(model, image)[0] for model in (theirs, ours, recomputing))
    assert kept < (0.47 if regime == 'fixed' else 0.5) * reference
    assert least < (0.12 if regime == 'fixed' else 0.25) * reference


@pytest.mark.parametrize('arguments, training', [
    ({}, True), (RECIPE, True), (RECIPE, False), (dict(with_cp=True), True)])
def test_symbolic_trace(arguments, training):
    model = FishNet(SMALL, **arguments).double().train(training)
    traced = torch.fx.symbolic_trace(model)
    # The graph shows layers, not what is lean in them.
    calls = [n for n in traced.graph.nodes if n.op == 'call_function']
    assert not any('NormReLU' in str(node.target) for node in calls)
    x = torch.randn(2, 3, 64, 96, dtype=torch.double)
    for feature, expected in zip(traced(x), model(x)):
        torch.testing.assert_close(feature, expected)


@pytest.mark.parametrize('arguments', [{}, RECIPE])
def test_copies_averages_and_exports(arguments):
    """What EMA averages and what is exported is the network as it is."""
    model = FishNet(SMALL, **arguments).double().train()
    x = torch.randn(2, 3, 64, 64, dtype=torch.double)
    ema = ExponentialMovingAverage(model, momentum=0.5, update_buffers=True)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    states = []
    for _ in range(2):
        optimizer.zero_grad()
        sum(f.square().mean() for f in model(x)).backward()
        optimizer.step()
        ema.update_parameters(model)
        states.append(deepcopy(model.state_dict()))
    # The first was copied.
    for name, value in ema.module.state_dict().items():
        first, second = (state[name] for state in states)
        if value.is_floating_point():
            torch.testing.assert_close(value, (first + second) / 2)
    expected = model.eval()(x)
    exported = torch.export.export(model, (x, )).module()
    for found in deepcopy(model)(x), exported(x):
        torch.testing.assert_close(found, expected)

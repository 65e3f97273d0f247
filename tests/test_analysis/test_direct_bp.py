# Copyright (c) mmfishnet authors. All rights reserved.
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn

from direct_bp import tabulate_isolated, tabulate_paths
from direct_paths import find_direct_paths, find_stages, measure_gradients
from fish import fill_norms
from mmfishnet.models import FishNet
from mmfishnet.wiring import STAGES
from networks import NETWORKS

FISH_TAIL = [
    'stem.0', 'stem.3', 'stem.6', 'tail1.refine.0.shortcut.2',
    'tail2.refine.0.shortcut.2', 'tail3.refine.0.shortcut.2',
    'bridge.refine.squeeze.2', 'bridge.refine.expand',
    'bridge.refine.blocks.0.shortcut.2'
]


def isolated(paths):
    return [conv.module for conv in paths.isolated]


@pytest.mark.parametrize('name', ['fishnet99', 'fishnet150', 'fishnext150'])
def test_fish_has_none_in_body_and_head(name):
    paths = find_direct_paths(NETWORKS[name].backbone())
    assert isolated(paths) == FISH_TAIL
    assert paths.outputs == ('output', )
    # What the bridge reads is the one feature that nothing else reads.
    assert paths.direct() == tuple(
        name for name in ('stem', *STAGES, 'output') if name != 'tail3')
    assert paths.convs['output', 'tail3'] == 3
    assert paths.convs['output', 'image'] == 3
    by_name = {feature.name: feature for feature in paths.features}
    assert (by_name['head2'].channels, by_name['head2'].stride) == (832, 8)
    assert (by_name['output'].channels, by_name['output'].stride) == (2112, 32)


def test_strided_convolution_isolates_the_head():
    paths = find_direct_paths(NETWORKS['fishnet150-conv'].backbone())
    found = isolated(paths)
    head = [f'head{i}.down.shortcut.2' for i in (1, 2, 3)]
    tail = [f'tail{i}.down.shortcut.2' for i in (1, 2, 3)]
    assert sorted(found) == sorted(FISH_TAIL + tail + head)
    assert paths.direct() == ('bridge', 'output')
    down = next(c for c in paths.isolated if c.module == tail[1])
    assert down.before == ('tail2', )
    assert set(down.after) == {'tail3', 'body2', 'head3'}


@pytest.mark.parametrize('name, convs, direct', [
    ('preact_resnet50',
     ['stem.0', *(f'stage{i}.0.shortcut.2' for i in (1, 2, 3, 4))],
     ('stage4', 'final')),
    ('resnet50',
     ['conv1', *(f'layer{i}.0.downsample.0' for i in (1, 2, 3, 4))],
     ('layer4', )),
    ('densenet161', ['conv0', *(f'transition{i}.conv' for i in (1, 2, 3))],
     ('transition3', 'denseblock4', 'output')),
])
def test_peers(name, convs, direct):
    paths = find_direct_paths(NETWORKS[name].backbone(), size=32)
    assert isolated(paths) == convs
    assert paths.direct() == direct


class Net(nn.Module):
    """A stem, and what is to be judged after it."""

    def __init__(self, forward, **modules):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.ModuleDict(modules)
        self.forward = lambda x: forward(self.stem(x), self.body)


def conv(inputs=8, outputs=8, **kwargs):
    return nn.Conv2d(inputs, outputs, 1, **kwargs)


# Each with the isolated convolutions after the stem.
@pytest.mark.parametrize('forward, modules, expected', [
    (lambda x, m: m['a'](x), dict(a=conv()), ['a']),
    (lambda x, m: x + m['b'](m['a'](x)), dict(a=conv(), b=conv()), []),
    (lambda x, m: torch.cat([x, m['a'](x)], 1), dict(a=conv()), []),
    (lambda x, m: m['s'](x) + m['b'](m['a'](x)),
     dict(a=conv(), b=conv(), s=conv()), ['s']),
    # Both are the shortest way.
    (lambda x, m: m['a'](x) + m['b'](x), dict(a=conv(), b=conv()),
     ['a', 'b']),
    # A gate scales; the way through it is a message.
    (lambda x, m: x * m['a'](x).sigmoid(), dict(a=conv()), []),
    (lambda x, m: m['a'](x).sigmoid() * m['b'](x), dict(a=conv(), b=conv()),
     ['a', 'b']),
    # Norms, activations, resampling, slices and sums are no convolutions.
    (lambda x, m: F.interpolate(
        F.max_pool2d(F.relu(m['n'](x)), 2), scale_factor=2)[:, 2:6].view(
            1, 2, 2, 16, 16).sum(2), dict(n=nn.BatchNorm2d(8)), []),
    # A depthwise convolution, and a linear layer on channels, do mix.
    (lambda x, m: m['a'](x), dict(a=conv(groups=8)), ['a']),
    (lambda x, m: m['a'](x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
     dict(a=nn.Linear(8, 8)), ['a']),
    # Frozen convolutions are convolutions.
    (lambda x, m: m['a'](x), dict(a=conv().requires_grad_(False)), ['a']),
])
def test_rules(forward, modules, expected):
    net = Net(forward, **modules)
    paths = find_direct_paths(net, size=16, stages=dict(stem='stem'))
    assert isolated(paths) == [
        'stem', *(f'body.{name}' for name in expected)
    ]
    assert paths.is_direct('output', 'stem') == (not expected)


def test_bad_input():
    with pytest.raises(ValueError, match='has no module neck; it has stem'):
        find_direct_paths(FishNet(99), stages=dict(neck='neck'))

    net = Net(lambda x, m: torch.utils.checkpoint.checkpoint(
        m['a'], x, use_reentrant=True), a=conv())
    with pytest.raises(ValueError, match='with_cp=False'):
        find_direct_paths(net, size=16, stages={})


def test_nothing_of_the_backbone_changes():
    torch.manual_seed(0)
    fish = FishNet(99, frozen_stages=1, norm_eval=True).train()

    def state():
        return ([p.requires_grad for p in fish.parameters()],
                [m.training for m in fish.modules()],
                [len(m._forward_hooks) + len(m._forward_pre_hooks)
                 for m in fish.modules()])

    before, tensors = state(), deepcopy(fish.state_dict())
    paths = find_direct_paths(fish)
    measure_gradients(fish, paths, torch.rand(1, 3, 64, 64), isolated=False)
    assert state() == before
    assert all(torch.equal(value, tensors[key])
               for key, value in fish.state_dict().items())
    assert paths.outputs == ('head1', 'head2', 'head3', 'output3')


class ClosedForm:
    """Forward and backward of the fish without messages, by hand.

    All that is left of a residual block is its shortcut, so that the head
    and body only repeat, sum, pool and stack what the tail gave.
    """

    def __init__(self, weights):
        self.weights = weights

    def norm_relu(self, x, key):
        return F.batch_norm(
            x, *(self.weights[f'{key}.{name}']
                 for name in ('running_mean', 'running_var', 'weight',
                              'bias'))).relu()

    def conv(self, x, key):
        return F.conv2d(x, self.weights[f'{key}.weight'],
                        self.weights.get(f'{key}.bias'))

    def tail(self, i, x):
        key = f'tail{i}.refine.0.shortcut'
        x = self.conv(self.norm_relu(x, f'{key}.0'), f'{key}.2')
        return F.max_pool2d(x, 2)

    def bridge(self, x):
        key = 'bridge.refine'
        x = self.conv(
            self.norm_relu(x, f'{key}.squeeze.0'), f'{key}.squeeze.2')
        x = self.conv(self.norm_relu(x, f'{key}.squeeze.3'), f'{key}.expand')
        gate = self.weights[f'{key}.gate.5.bias'].sigmoid()[:, None, None]
        key += '.blocks.0.shortcut'
        x = self.conv(self.norm_relu(x, f'{key}.0'), f'{key}.2')
        return x * gate + gate

    def direct(self, stem, tail1, tail2, bridge, gradient):
        """Gradients of the four features that the body and head read."""

        def up(x, k=1):
            n, c, h, w = x.shape
            x = x.reshape(n, c // k, k, h, w).sum(2)
            return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

        def up_transposed(g, k=1):
            n, c, h, w = g.shape
            g = g.reshape(n, c, h // 2, 2, w // 2, 2).sum((3, 5))
            return g.repeat_interleave(k, 1)

        body1 = torch.cat([up(bridge), tail2], 1)
        body2 = torch.cat([up(body1, 2), tail1], 1)
        body3 = torch.cat([up(body2, 2), stem], 1)
        pooled, where1 = F.max_pool2d(body3, 2, return_indices=True)
        head1 = torch.cat([pooled, body2], 1)
        pooled, where2 = F.max_pool2d(head1, 2, return_indices=True)
        head2 = torch.cat([pooled, body1], 1)
        where3 = F.max_pool2d(head2, 2, return_indices=True)[1]

        to_head2, to_bridge = gradient.split([1600, 512], 1)
        to_head2 = F.max_unpool2d(to_head2, where3, 2)
        to_head1, to_body1 = to_head2.split([832, 768], 1)
        to_head1 = F.max_unpool2d(to_head1, where2, 2)
        to_body3, to_body2 = to_head1.split([320, 512], 1)
        to_body3 = F.max_unpool2d(to_body3, where1, 2)
        from_body3, to_stem = to_body3.split([256, 64], 1)
        to_body2 = to_body2 + up_transposed(from_body3, 2)
        from_body2, to_tail1 = to_body2.split([384, 128], 1)
        to_body1 = to_body1 + up_transposed(from_body2, 2)
        from_body1, to_tail2 = to_body1.split([512, 256], 1)
        to_bridge = to_bridge + up_transposed(from_body1)
        return to_stem, to_tail1, to_tail2, to_bridge


def test_gradients_are_the_analytic_ones():
    """Of a FishNet-99, with statistics as if trained."""
    trained_fish = FishNet(99, out_indices=(3, )).double().eval()
    fill_norms(trained_fish, 0.3)
    outputs = dict(
        stem='stem',
        tail1='tail1.down',
        tail2='tail2.down',
        tail3='tail3.down',
        bridge='bridge.refine')
    paths = find_direct_paths(trained_fish, stages=outputs)
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, 3, 64, 64, generator=generator).double()
    gradient = torch.randn(2, 2112, 2, 2, generator=generator).double()

    form = ClosedForm(trained_fish.state_dict())
    values = dict(stem=trained_fish.stem(images).detach().requires_grad_())
    previous = values['stem']
    for i in (1, 2, 3):
        previous = form.tail(i, previous.detach().requires_grad_())
        values[f'tail{i}'] = previous.detach().requires_grad_()
    values['bridge'] = form.bridge(previous)
    with torch.no_grad():
        names = ('stem', 'tail1', 'tail2', 'bridge')
        direct = dict(
            zip(names,
                form.direct(*(values[name] for name in names), gradient)))
    direct['tail3'] = torch.zeros_like(values['tail3'])

    # Along direct paths alone: the closed form as it is.
    measured = measure_gradients(
        trained_fish, paths, images, [gradient], isolated=False)
    for name, expected in direct.items():
        torch.testing.assert_close(
            measured[name], expected, rtol=1e-10, atol=1e-12)

    # The real gradient, of all paths: what the isolated convolutions of the
    # next stages bring back comes on top.
    full = dict(bridge=direct['bridge'])
    for name, after, function in (
        ('tail3', 'bridge', form.bridge),
        ('tail2', 'tail3', lambda x: form.tail(3, x)),
        ('tail1', 'tail2', lambda x: form.tail(2, x)),
        ('stem', 'tail1', lambda x: form.tail(1, x)),
    ):
        indirect, = torch.autograd.grad(
            function(values[name]), values[name], full[after])
        full[name] = direct[name] + indirect
    measured = measure_gradients(trained_fish, paths, images, [gradient])
    for name, expected in full.items():
        torch.testing.assert_close(
            measured[name], expected, rtol=1e-10, atol=1e-12)
    # Those of the features, not of what is returned in their place, whatever
    # layout the images have.
    laid_out = measure_gradients(
        trained_fish, paths,
        images.contiguous(memory_format=torch.channels_last), [gradient])
    torch.testing.assert_close(laid_out, measured)


def test_resnet():
    """Its direct gradients vanish, and its tables say so."""
    torch.manual_seed(0)
    backbone = NETWORKS['preact_resnet50'].backbone()
    paths = find_direct_paths(backbone, 32)
    images = torch.rand(1, 3, 32, 32)
    direct = measure_gradients(backbone, paths, images, isolated=False)
    assert {name for name, gradient in direct.items()
            if gradient.any()} == {'stage4', 'final'}
    every = measure_gradients(backbone, paths, images)
    assert all(gradient.any() for gradient in every.values())

    rows = tabulate_paths(backbone, paths, 32, 'ResNet').rows
    assert len(rows) == len(paths.features)
    last, stage3 = rows[-1], rows[4]
    assert last[0] == '[bold green]final[/]'
    # From the final feature: 5 convolutions to the image, none to stage4.
    assert last[3] == '5' and '✓' in last[8]
    assert stage3[-1] == '0' and float(stage3[-2]) > 0
    assert len(tabulate_isolated(backbone, paths).rows) == 5
    stages = find_stages(NETWORKS['resnet50'].backbone())
    assert [*stages] == ['maxpool', 'layer1', 'layer2', 'layer3', 'layer4']

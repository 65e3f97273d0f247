# Copyright (c) mmfishnet authors. All rights reserved.
"""What timm's own tests ask of its models, and where our weights go."""
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmfishnet.checkpoints import CheckpointError
from mmfishnet.models import FishNet, FishNeXt

timm = pytest.importorskip('timm')
import mmfishnet.adapters.timm  # noqa: E402, F401
from mmfishnet.checkpoints.published import SOURCES  # noqa: E402

CHANNELS = [320, 832, 1600, 2112]


@pytest.fixture(scope='module')
def net():
    return timm.create_model('fishnet99', num_classes=5).eval()


def test_names():
    assert sorted(timm.list_models('fishn*')) == [
        'fishnet150', 'fishnet201', 'fishnet99', 'fishnext150']
    assert set(timm.list_pretrained('fishn*')) == {
        f'{name}.{source}_in1k' for name in SOURCES for source in SOURCES[name]
    }
    assert timm.get_pretrained_cfg('fishnet150').tag == 'pytorchcv_in1k'


def test_nothing_is_printed():
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', 'import timm; '
         'import mmfishnet.adapters.timm; timm.create_model("fishnet99")'],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert (done.returncode, done.stdout) == (0, '')


@pytest.mark.parametrize('name, fish, parameters', [
    ('fishnet99', FishNet, 16_628_904), ('fishnet150', FishNet, 24_959_400),
    ('fishnet201', FishNet, 44_584_552), ('fishnext150', FishNeXt, 25_738_024)
])
def test_feature_info_and_size(name, fish, parameters):
    with torch.device('meta'):
        model = timm.create_model(name)
        assert sum(p.numel() for p in model.parameters()) == parameters
        features = timm.create_model(name, features_only=True).eval()
        found = features(torch.empty(2, 3, 96, 128))
    assert isinstance(features.model.backbone, fish)
    assert features.feature_info.channels() == CHANNELS
    for feature, channels, stride in zip(found, CHANNELS,
                                         features.feature_info.reduction()):
        assert feature.shape == (2, channels, 96 // stride, 128 // stride)


def test_a_classifier_as_timm_has_them(net):
    cfg, image = net.default_cfg, torch.rand(1, *net.default_cfg['input_size'])
    pool = tuple(cfg['pool_size'])
    state = net.state_dict()
    for name in cfg['first_conv'], cfg['classifier']:
        assert f'{name}.weight' in state
    with torch.no_grad():
        features = net.forward_features(image)
        assert features.shape == (1, net.num_features, *pool)
        logits = net(image)
        assert logits.shape == (1, 5)
        torch.testing.assert_close(logits, net.forward_head(features))
        pooled = net.forward_head(features, pre_logits=True)
        assert pooled.shape == (1, net.head_hidden_size)
        last, found = net.forward_intermediates(image)
        torch.testing.assert_close(last, features)
        assert [f.shape[1] for f in found] == CHANNELS
        net.reset_classifier(0)
        torch.testing.assert_close(net(image), pooled)
        net.reset_classifier(0, '')
        torch.testing.assert_close(net(image), features)
        net.reset_classifier(5, 'avg')
    assert net.get_classifier().weight.shape == (5, net.num_features)


def test_gradients_groups_and_checkpointing(net):
    image = torch.rand(2, 3, 64, 64)
    gradients = []
    for recompute in False, True:
        net.set_grad_checkpointing(recompute)
        net.zero_grad()
        net(image).sum().backward()
        gradients.append([p.grad.clone() for p in net.parameters()])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)
    net.set_grad_checkpointing(False)
    from timm.models import group_parameters
    groups = group_parameters(net, net.group_matcher())
    # Stem, ten stages, score, classifier, in this order.
    assert [names[0].split('.')[:2] for _, names in sorted(groups.items())
            ] == [['backbone', part] for part in
                  ('stem', *net.backbone.stage_names)] + [
                      ['neck', 'layers'], ['head', 'fc']]
    assert net.no_weight_decay() == set()


@pytest.mark.parametrize('given, chosen', [
    ((1, 3), [1, 3]), ((-2, -1), [2, 3]), (3, [1, 2, 3]), ((0, ), [0]),
    ((3, 0), [3, 0])
])
def test_some_features(given, chosen):
    """In that order, and nothing that they do not need is there."""
    model = timm.create_model(
        'fishnet99', features_only=True, out_indices=given, in_chans=4,
        output_stride=32, drop_path_rate=0., exportable=True).eval()
    image = torch.rand(1, 4, 64, 64)
    fish = FishNet(99, in_channels=4, out_indices=sorted(chosen)).eval()
    fish.load_state_dict(model.model.backbone.state_dict())
    assert len(list(model.parameters())) == len(list(fish.parameters()))
    with torch.no_grad():
        found, expected = model(image), fish(image)
    for i, feature in zip(chosen, found):
        assert torch.equal(feature, expected[sorted(chosen).index(i)])
    assert model.feature_info.channels() == [f.shape[1] for f in found]


def test_pretrained(tmp_path, net):
    theirs = pytest.importorskip('pytorchcv.models.fishnet').fishnet99().eval()
    torch.save(theirs.state_dict(), tmp_path / 'file.pth')

    def create(**kwargs):
        overlay = dict(file=tmp_path / 'file.pth', **kwargs.pop('cfg', {}))
        return timm.create_model(
            'fishnet99', pretrained=True, pretrained_cfg_overlay=overlay,
            **kwargs).eval()

    image = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        found, expected = create()(image), theirs(image)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    gray = create(num_classes=10, in_chans=1)
    assert gray.get_classifier().weight.shape == (10, 1056)
    stem = theirs.features.init_block.conv1.conv.weight
    torch.testing.assert_close(
        gray.backbone.stem[0].weight, stem.sum(1, keepdim=True))
    last = create(features_only=True, out_indices=(3, )).model.backbone
    assert torch.equal(last.stem[0].weight, stem)
    # One's own classifier, in any of timm's ways.
    torch.save(net.state_dict(), tmp_path / 'file.pth')
    for model in (create(num_classes=5, cfg=dict(num_classes=5)),
                  timm.create_model('fishnet99', num_classes=5,
                                    checkpoint_path=tmp_path / 'file.pth')):
        assert torch.equal(model.head.fc.weight, net.head.fc.weight)
    with pytest.raises(CheckpointError, match=r'head.fc.weight \(5, 1056\), '
                       r'not \(1000, 1056\)'):
        create()


@pytest.mark.parametrize('kwargs, message', [
    (dict(output_stride=8), 'output_stride=8 .* should be 32'),
    (dict(drop_path_rate=0.1), 'drop_path_rate=0.1 .* should be 0'),
    (dict(features_only=True, out_indices=(4, )), 'out_indices=4'),
])
def test_errors(kwargs, message):
    with torch.device('meta'), pytest.raises(ValueError, match=message):
        timm.create_model('fishnet150', **kwargs)


def test_torch_hub(net):
    root = Path(__file__).parents[2]
    model = torch.hub.load(
        str(root), 'fishnet99', source='local', num_classes=5)
    assert model.state_dict().keys() == net.state_dict().keys()

# Copyright (c) mmfishnet authors. All rights reserved.
import pytest
import torch

from mmfishnet.archs import FISHNET
from mmfishnet.models import FishNet, FishNeXt

timm = pytest.importorskip('timm')
from mmfishnet.adapters.timm import FeatureList  # noqa: E402


def test_names():
    names = [f'fishnet{depth}' for depth in FISHNET] + ['fishnext150']
    assert sorted(timm.list_models('fishn*')) == sorted(names)


@pytest.mark.parametrize('backbone, depth', [(FishNet, 99), (FishNet, 150),
                                             (FishNet, 201), (FishNeXt, 150)])
def test_feature_info_is_true(backbone, depth):
    with torch.device('meta'):
        model = FeatureList(backbone(depth)).eval()
        features = model(torch.empty(2, 3, 96, 128))
    info = model.feature_info
    assert [feature.shape[1] for feature in features] == info.channels()
    assert info.channels() == [320, 832, 1600, 2112]
    for feature, reduction in zip(features, info.reduction()):
        assert feature.shape == (2, feature.shape[1], 96 // reduction,
                                 128 // reduction)


@pytest.mark.parametrize('given, out_indices', [
    ((1, 3), (1, 3)),
    ((-2, -1), (2, 3)),
    (3, (1, 2, 3)),
    ((0, ), (0, )),
])
def test_some_features(given, out_indices):
    model = timm.create_model(
        'fishnet99', features_only=True, out_indices=given, in_chans=4).eval()
    image = torch.rand(1, 4, 64, 64)
    outputs = {}
    for name in model.feature_info.module_name():
        model.backbone.get_submodule(name).register_forward_hook(
            lambda module, args, output, name=name: outputs.update(
                {name: output}))
    with torch.no_grad():
        features = model(image)
    assert isinstance(features, list)
    fish = FishNet(99, in_channels=4, out_indices=out_indices).eval()
    fish.load_state_dict(model.backbone.state_dict())
    with torch.no_grad():
        expected = fish(image)
    for feature, same, channels in zip(features, expected,
                                       model.feature_info.channels()):
        assert torch.equal(feature, same)
        assert feature.shape[1] == channels
    # What feature_info calls the module is the module that computes it.
    assert len(features) == len(out_indices)
    for name, feature in zip(model.feature_info.module_name(), features):
        output = outputs[name]  # a stage's is its refined feature and its own
        assert torch.equal(
            feature, output[-1] if isinstance(output, tuple) else output)


def test_pretrained(tmp_path):
    fish = FishNet(99, out_indices=(3, ))
    path = tmp_path / 'fishnet99.pth'
    torch.save(fish.state_dict(), path)
    model = timm.create_model(
        'fishnet99',
        features_only=True,
        out_indices=(3, ),
        pretrained=True,
        pretrained_cfg_overlay=dict(file=path))
    for key, value in fish.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[key], value)


@pytest.mark.parametrize('kwargs, message', [
    (dict(), 'features_only=True'),
    (dict(features_only=True, pretrained=True), 'get_weights.py fishnet150'),
    (dict(features_only=True, out_indices=(4, )), 'out_indices=4'),
])
def test_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        timm.create_model('fishnet150', **kwargs)

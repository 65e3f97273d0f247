# Copyright (c) mmfishnet authors. All rights reserved.
"""Learning rates by depth, with the constructors that people use."""
import copy
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

from mmfishnet.models import FishNet, PreActResNet

CONFIGS = Path(__file__).parents[2] / 'configs'
OPTIMIZER = dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4)


def rates(model, **optim_wrapper):
    """Learning rate by parameter; the weight decay is one for all."""
    wrapper = build_optim_wrapper(
        model, dict(type='OptimWrapper', optimizer=copy.deepcopy(OPTIMIZER),
                    **optim_wrapper))
    groups = wrapper.optimizer.param_groups
    assert {group['weight_decay'] for group in groups} == {1e-4}
    names = {id(param): name for name, param in model.named_parameters()}
    return {
        names[id(param)]: group['lr']
        for group in groups for param in group['params']
    }


@pytest.mark.parametrize('depth, out_indices', [
    (99, (0, 1, 2, 3)), (150, (3, )), (201, (0, ))])
def test_depth_follows_the_wiring(depth, out_indices):
    """No stage is as deep as, or deeper than, one that reads it."""
    with torch.device('meta'):
        fish = FishNet(depth, out_indices=out_indices)
    layers = {'stem': 0}
    for name, _ in fish.named_parameters(prefix='backbone'):
        layer, number = fish.get_layer_depth(name, 'backbone.')
        assert layers.setdefault(name.split('.')[1], layer) == layer
        assert number == len(fish.specs) + 2
    for spec in fish.specs:
        assert layers[spec.name] == layers[spec.reads] + 1
        if spec.joins:
            assert layers[spec.joins] < layers[spec.name]
    assert max(layers.values()) == number - 2
    for other in ('head.fc.weight', 'neck.layers.0.weight', 'decode_head.x',
                  'head1.refine.0.conv1.weight'):
        assert fish.get_layer_depth(other, 'backbone.') == (number - 1, number)


def test_other_backbones():
    resnet = PreActResNet((1, 1, 1, 1), base_channels=8)
    layers, numbers = zip(*(resnet.get_layer_depth(name)
                            for name, _ in resnet.named_parameters()))
    assert set(numbers) == {6}
    # The norm behind the last stage is not a stage's.
    assert set(layers) == set(range(6)) and list(layers) == sorted(layers)


@pytest.mark.parametrize('package, config', [
    ('mmpretrain', 'classification/fishnet99_8xb32_in1k.py'),
    ('mmdet', 'panoptic_fpn_fishnet150_fpn_1x_coco.py'),
    ('mmseg', 'segmentation/upernet_fishnet99_4xb4-160k_ade20k-512x512.py')
])
def test_rates_of_whole_models(package, config):
    """MMPretrain's constructor gives a classifier the rates that the fragment
    gives a detector and a segmenter."""
    pytest.importorskip(package)
    cfg = Config.fromfile(CONFIGS / config)
    init_default_scope(package)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    found = rates(model, **(
        dict(constructor='LearningRateDecayOptimWrapperConstructor',
             paramwise_cfg=dict(layer_decay_rate=0.8))
        if package == 'mmpretrain' else
        dict(paramwise_cfg=Config.fromfile(
            CONFIGS / '_base_/layer_decay.py').layer_decay)))
    for name, param in model.named_parameters():
        assert (name in found) == param.requires_grad
        if param.requires_grad:
            layer, number = model.backbone.get_layer_depth(name, 'backbone.')
            assert found[name] == pytest.approx(
                0.1 * 0.8**(number - layer - 1)), name
    if package == 'mmpretrain':
        assert found['backbone.stem.0.weight'] == pytest.approx(0.1 * 0.8**11)
        assert found['backbone.head3.transfer.0.conv1.weight'] == (
            pytest.approx(0.08))
        assert found['neck.layers.0.weight'] == found['head.fc.bias'] == 0.1


def test_example_of_the_docs():
    pytest.importorskip('mmdet')
    text = (CONFIGS.parent / 'docs/elsewhere.md').read_text()
    example, = re.findall('```python\n(_base_.*?)```', text, re.DOTALL)
    cfg = Config.fromstring(example, '.py')
    assert cfg.optim_wrapper.optimizer.lr == 0.01  # the original's
    keys = cfg.optim_wrapper.paramwise_cfg.custom_keys
    assert keys['backbone.head3.'].lr_mult == pytest.approx(0.8)

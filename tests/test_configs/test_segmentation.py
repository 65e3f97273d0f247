# Copyright (c) mmfishnet authors. All rights reserved.
"""FishNet in MMSegmentation, and the configs that we ship for it."""
import copy
import importlib.util
import json
import re
from functools import cache
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from torch import nn

import mmfishnet
from mmfishnet.datasets import draw_coco

pytest.importorskip('mmseg')
from mmseg.structures import SegDataSample  # noqa: E402

CONFIGS = Path(__file__).parents[2] / 'configs'
TINY = Config.fromfile(CONFIGS / '_base_' / 'backbones' / 'tiny.py')

FOLDERS = dict(fpn='sem_fpn', upernet='upernet')
RECIPES = ('4xb4-160k_ade20k-512x512', '4xb2-80k_cityscapes-512x1024')
BACKBONES = dict(fishnet150=150, fishnet99=99, r50=50)
SHIPPED = [(head, backbone, recipe) for head in FOLDERS
           for backbone in BACKBONES for recipe in RECIPES]


@cache
def load(head, backbone, recipe):
    return Config.fromfile(CONFIGS / 'segmentation' /
                           f'{head}_{backbone}_{recipe}.py')


@cache
def original(head, recipe):
    name = f'mmseg::{FOLDERS[head]}/{head}_r50_{recipe}.py'
    return Config.fromfile(mmfishnet.config_path(name))


def build(cfg, device='cpu'):
    init_default_scope('mmseg')
    with torch.device(device):
        return MODELS.build(copy.deepcopy(cfg.model))


def test_all_are_here():
    names = {f'{"_".join(parts)}.py' for parts in SHIPPED}
    found = {path.name for path in CONFIGS.glob('segmentation/*.py')}
    assert names == found


@pytest.mark.parametrize('head, backbone, recipe', SHIPPED)
def test_recipe_is_the_originals(head, backbone, recipe):
    """Data, crops, schedule, learning rate, heads: all but the backbone."""
    ours = load(head, backbone, recipe).to_dict()
    theirs = original(head, recipe).to_dict()
    weights = ours.pop('pretrained')
    fragment = ours.pop('backbone')
    channels = ours.pop('backbone_channels', None)
    resnet = theirs['model'].pop('backbone')
    pretrained = theirs['model'].pop('pretrained')
    assert ours['model'].pop('pretrained') is None
    found = ours['model'].pop('backbone')
    checkpoint = found.pop('init_cfg')['checkpoint']
    for cfg in (ours, theirs) if channels else ():
        cfg['model'].get('neck', {}).pop('in_channels', None)
        if head == 'upernet':
            del cfg['model']['decode_head']['in_channels']
            del cfg['model']['auxiliary_head']['in_channels']
    assert ours == theirs
    if backbone == 'r50':
        assert found == resnet and checkpoint == pretrained
        assert set(fragment) == {'init_cfg'}
    else:
        assert checkpoint == weights[backbone]
        assert found['depth'] == BACKBONES[backbone]
        for key in ('out_indices', 'norm_cfg', 'norm_eval'):
            assert found[key] == resnet[key]
        # MMSegmentation's ResNet freezes nothing by default.
        assert found['frozen_stages'] == -1


@pytest.mark.parametrize('head', FOLDERS)
@pytest.mark.parametrize('backbone', ['fishnet150', 'fishnet99'])
def test_built_as_shipped(head, backbone):
    cfg = load(head, backbone, RECIPES[0])
    model = build(cfg, 'meta').train()
    fish = model.backbone
    assert fish.out_strides == (4, 8, 16, 32)
    norms = [m for m in fish.modules() if hasattr(m, 'running_mean')]
    assert norms and all(isinstance(m, nn.SyncBatchNorm) for m in norms)
    assert all(m.training for m in norms)
    assert all(p.requires_grad for p in model.parameters())
    # The gradient reaches all that is built, in one decoder as in the other.
    groups = build_optim_wrapper(model, cfg.optim_wrapper).param_groups
    assert {(g['lr'], g['weight_decay']) for g in groups} == {(0.01, 5e-4)}
    if head == 'upernet':
        # The auxiliary head's at stride 16, as the original's.
        index = model.auxiliary_head.in_index
        assert fish.out_strides[index] == 16
        assert model.auxiliary_head.in_channels == fish.out_channels[index]


def test_steps_of_upernet():
    """A training step and a prediction, with a block in each stage; those of
    the FPN are in a whole training below."""
    cfg = copy.deepcopy(load('upernet', 'fishnet150', RECIPES[0]))
    cfg.merge_from_dict({
        'model.backbone.init_cfg': None,
        'model.data_preprocessor.size': (64, 96),
        'model.decode_head.channels': 32
    })
    cfg.model.backbone.depth = {
        key: value
        for key, value in TINY.tiny_fishnet.depth.items()
        if not key.endswith('channels')
    }
    for part in 'backbone', 'decode_head', 'auxiliary_head':
        # SyncBN trains on GPUs only
        cfg.model[part].norm_cfg = dict(type='BN')
    model = build(cfg)
    model.init_weights()
    labels = torch.randint(150, (2, 1, 64, 96))
    labels[:, :, :8] = 255
    samples = [
        SegDataSample(
            metainfo=dict(img_shape=(64, 96), ori_shape=(32, 48)),
            gt_sem_seg=PixelData(data=label)) for label in labels
    ]
    images = torch.randint(256, (2, 3, 64, 96), dtype=torch.uint8)
    data = dict(inputs=list(images), data_samples=samples)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    losses = model.train()(
        **model.data_preprocessor(data, True), mode='loss')
    loss, _ = model.parse_losses(losses)
    # log(150) where nothing is known; the auxiliary head's counts 0.4.
    assert 4 < loss.item() < 12
    optimizer.backward(loss)
    for key, param in model.named_parameters():
        assert param.grad is not None, key
        assert param.grad.isfinite().all(), key
    with torch.no_grad():
        for sample in model.eval().test_step(data):
            # On the original image's pixels.
            assert sample.pred_sem_seg.data.shape == (1, 32, 48)
            assert sample.pred_sem_seg.data.max() < 150


def test_example_of_the_docs():
    text = (CONFIGS.parent / 'docs' / 'pixel_level.md').read_text()
    example, = re.findall('```python\n(.*?)```', text, re.DOTALL)
    model = build(Config.fromstring(example, '.py'), 'meta')
    assert tuple(model.decode_head.in_channels) == model.backbone.out_channels


def test_tools(call_tool, check_published, tmp_path):
    """Training and test, and the options that they share."""
    draw_coco(tmp_path / 'data', train=8, val=3, size=64)
    config = CONFIGS / 'shapes/semantic_fpn_fishnet_shapes.py'
    work = tmp_path / 'work'
    common = ('--data-root', tmp_path / 'data', '--work-dir', work,
              '--from-scratch')
    done = call_tool('train', config, *common, '--cfg-options',
                     'train_cfg.max_epochs=1', 'train_cfg.val_interval=1')
    assert done.returncode == 0, done.stderr[-3000:]
    checkpoint = work / 'epoch_1.pth'
    results = []
    for tta in [], ['--tta']:
        done = call_tool('test', config, checkpoint, *common, '--show-dir',
                         tmp_path / 'shown', '--out', tmp_path / 'out.json',
                         '--out-item', 'metrics', *tta)
        assert done.returncode == 0, done.stderr[-3000:]
        results.append(json.loads((tmp_path / 'out.json').read_text())['mIoU'])
        shown = tmp_path / 'shown/vis_data/vis_image'
        assert f'pictures: in {shown}' in done.stdout + done.stderr
        assert len({path.name.split('_')[1]
                    for path in shown.glob('test_*.png')}) == 3
    plain, mirrored = results
    assert 0 <= plain <= 100 and 0 <= mirrored <= 100
    # Untrained, but seen from two sides it is not the same.
    assert plain != mirrored

    _, card = check_published(checkpoint, next(
        tmp_path.glob('data/val2017/*.jpg')))
    assert 'segmentation' in card and '| mIoU | ' in card


def test_without_mmsegmentation(monkeypatch, call_tool, tmp_path):
    """What needs it says what to install."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name, *args: (
        None if name == 'mmseg' else find_spec(name, *args)))
    done = call_tool(
        'train', CONFIGS / f'segmentation/fpn_fishnet150_{RECIPES[0]}.py',
        '--work-dir', tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith('error: ')
    assert 'pip install onedl-mmsegmentation' in done.stderr


def test_unknown_config():
    with pytest.raises(FileNotFoundError, match='has no config .sem_fpn/x.py'):
        mmfishnet.config_path('mmseg::sem_fpn/x.py')

# Copyright (c) mmfishnet authors. All rights reserved.
"""FishNet in MMDetection's own detectors, and the configs that we ship."""
import copy
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from torch import nn

import mmfishnet  # noqa: F401
from mmfishnet.checkpoints import drop_pretrained

pytest.importorskip('mmdet')
from mmdet.testing import demo_mm_inputs  # noqa: E402

CONFIGS = Path(__file__).parents[2] / 'configs'
TINY = Config.fromfile(CONFIGS / '_base_' / 'backbones' / 'tiny.py')

# What anybody writes to have FishNet in a detector of MMDetection's.
LINES = """
_base_ = 'mmdet::{original}'
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmfishnet.FishNet',
        depth={depth},
        out_indices={out_indices}),
    {reader}=dict(in_channels={in_channels}))
"""

ORIGINALS = dict(
    retinanet='retinanet/retinanet_r50_fpn_1x_coco.py',
    fcos='fcos/fcos_r50_fpn_gn-head-center-normbbox-centeronreg-giou_'
    '8xb8-amp-lsj-200e_coco.py',
    atss='atss/atss_r50_fpn_1x_coco.py',
    cascade_mask_rcnn='cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
    htc_without_semantic='htc/htc-without-semantic_r50_fpn_1x_coco.py',
    panoptic_fpn='panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py',
    mask2former='mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py',
    dino='dino/dino-4scale_r50_8xb2-12e_coco.py')
SHIPPED = dict(
    retinanet='retinanet_fishnet150_fpn_1x_coco',
    htc_without_semantic='htc-without-semantic_fishnet150_fpn_1x_coco',
    panoptic_fpn='panoptic_fpn_fishnet150_fpn_1x_coco',
    dino='dino_4scale_fishnet150_12e_coco')
WITH_MASKS = ('cascade_mask_rcnn', 'htc_without_semantic', 'mask2former')
PANOPTIC = ('panoptic_fpn', 'mask2former')

# Height and width. DINO chooses its queries from the places at strides 8 to
# 64; here they are 128, too few for its 900.
SIZE = (64, 96)

# What makes a step short, and lets untrained networks find something.
DENSE = {'model.test_cfg.score_thr': 0, 'model.test_cfg.max_per_img': 5}
REGIONS = {
    'model.test_cfg.rpn.max_per_img': 20,
    'model.test_cfg.rcnn.score_thr': 0,
    'model.test_cfg.rcnn.max_per_img': 5
}
CASCADE = {
    f'model.{key}': 16
    for i in range(3) for key in (f'train_cfg.rcnn.{i}.sampler.num',
                                  f'roi_head.bbox_head.{i}.fc_out_channels')
}
SMALL = dict(
    retinanet=DENSE,
    fcos={
        **DENSE,
        'model.data_preprocessor.batch_augments': None,
        'optim_wrapper.type': 'OptimWrapper'  # AMP needs a GPU
    },
    atss=DENSE,
    cascade_mask_rcnn={**REGIONS, **CASCADE},
    htc_without_semantic={**REGIONS, **CASCADE},
    panoptic_fpn={
        **REGIONS, 'model.train_cfg.rcnn.sampler.num': 16,
        'model.roi_head.bbox_head.fc_out_channels': 16,
        'model.test_cfg.panoptic.stuff_area_limit': 1
    },
    mask2former={
        'model.data_preprocessor.batch_augments': None,
        'model.panoptic_head.num_queries': 10,
        'model.panoptic_head.pixel_decoder.encoder.num_layers': 1,
        'model.panoptic_head.transformer_decoder.num_layers': 3,
        'model.train_cfg.num_points': 100,
        'model.test_cfg.max_per_image': 5,
        'model.test_cfg.object_mask_thr': 0,
        'model.test_cfg.iou_thr': 0,
        'model.test_cfg.filter_low_score': False
    },
    dino={
        'model.num_queries': 20,
        'model.encoder.num_layers': 1,
        'model.decoder.num_layers': 2,
        'model.dn_cfg.group_cfg.num_dn_queries': 10,
        'model.test_cfg.max_per_img': 5
    })


@cache
def load(config):
    if not config.startswith('mmdet::'):
        return Config.fromfile(CONFIGS / f'{config}.py')
    return Config.fromstring(f'_base_ = {config!r}', '.py')


def original(name):
    return load(f'mmdet::{ORIGINALS[name]}')


def with_tiny_fishnet(name):
    """Add to an original the lines that put FishNet into it."""
    theirs = original(name).model
    indices = tuple(theirs.backbone.out_indices)
    return Config.fromstring(
        LINES.format(
            original=ORIGINALS[name],
            depth=TINY.tiny_fishnet.depth.to_dict(),
            out_indices=indices,
            reader='neck' if 'neck' in theirs else 'panoptic_head',
            in_channels=[TINY.tiny_fishnet_channels[i] for i in indices]),
        '.py')


def with_short_fishnet(name):
    """A shipped config with one block in each stage and the same channels."""
    cfg = copy.deepcopy(load(SHIPPED[name]))
    drop_pretrained(cfg.model)
    cfg.model.backbone.depth = {
        key: value
        for key, value in TINY.tiny_fishnet.depth.items()
        if not key.endswith('channels')
    }
    return cfg


def build(cfg, device='cpu'):
    init_default_scope('mmdet')
    with torch.device(device):
        return MODELS.build(copy.deepcopy(cfg.model))


def demo_inputs():
    """Two images with boxes, masks and a map of 80 things and 53 stuffs."""
    data = demo_mm_inputs(
        2, (3, *SIZE), [3, 2], num_classes=80, with_mask=True)
    pixels = demo_mm_inputs(
        2, (3, *SIZE), num_classes=133, with_semantic=True,
        sem_seg_output_strides=32)
    for sample, other in zip(data['data_samples'], pixels['data_samples']):
        segments = other.gt_sem_seg.sem_seg
        assert segments.shape[-2:] == (2, 3)
        sample.gt_sem_seg = PixelData(
            sem_seg=segments.repeat_interleave(32, 1).repeat_interleave(32, 2))
    return data


def check_steps(name, cfg):
    """Do a training and a test step, and look at what they give."""
    cfg.merge_from_dict(SMALL[name])
    torch.manual_seed(0)
    np.random.seed(0)
    model = build(cfg)
    model.init_weights()
    model.train()
    data = demo_inputs()

    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    for group in optimizer.param_groups:
        group['lr'] *= 1e-3  # as low as their warm-ups begin
    losses = model(**model.data_preprocessor(data, True), mode='loss')
    loss, _ = model.parse_losses(losses)
    assert 0 < loss.item() < 1000
    optimizer.backward(loss)
    for key, param in model.named_parameters():
        if not param.requires_grad:
            assert param.grad is None
        else:
            assert param.grad is not None, key
            assert param.grad.isfinite().all(), key
            assert param.grad.any() or not key.startswith('backbone.'), key
    optimizer.step()

    with torch.no_grad():
        samples = model.eval().test_step(data)
    for sample in samples:
        if name in PANOPTIC:
            segments = sample.pred_panoptic_seg.sem_seg
            assert segments.shape == (1, *SIZE)
            # 133 stands for no class.
            assert set((segments % 1000).unique().tolist()) <= set(range(134))
            assert len(segments.unique()) > 1
        if name == 'panoptic_fpn':
            continue
        found = sample.pred_instances
        assert 0 < len(found) <= 5
        assert found.labels.min() >= 0 and found.labels.max() < 80
        assert found.scores.min() >= 0 and found.scores.max() <= 1
        assert found.bboxes.shape == (len(found), 4)
        assert found.bboxes.min() >= 0
        assert (found.bboxes <= torch.tensor(SIZE[::-1] * 2)).all()
        if name in WITH_MASKS:
            assert found.masks.shape == (len(found), *SIZE)
            assert found.masks.dtype == torch.bool


@pytest.mark.parametrize('name', ORIGINALS)
def test_steps(name):
    """Of the configs that we ship, and of others with our lines in them."""
    check_steps(name, with_short_fishnet(name) if name in SHIPPED else
                with_tiny_fishnet(name))


@pytest.mark.parametrize('name', SHIPPED)
def test_recipe_is_the_originals(name):
    ours, theirs = load(SHIPPED[name]).to_dict(), original(name).to_dict()
    fish, resnet = (cfg['model'].pop('backbone') for cfg in (ours, theirs))
    for cfg in (ours, theirs):
        del cfg['model']['neck']['in_channels']
    pretrained = ours.pop('pretrained')
    del ours['backbone'], ours['backbone_channels']
    assert ours == theirs
    for key in ('out_indices', 'frozen_stages', 'norm_cfg', 'norm_eval'):
        assert fish[key] == resnet[key]
    assert (fish['type'], fish['depth']) == ('mmfishnet.FishNet', 150)
    assert fish['init_cfg']['checkpoint'] == pretrained['fishnet150']


@pytest.mark.parametrize('name', SHIPPED)
def test_built_as_shipped(name):
    cfg = load(SHIPPED[name])
    model = build(cfg, 'meta').train()
    fixed = {
        f'{path}.{key}'
        for path, module in model.backbone.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for key, _ in module.named_parameters()
    }
    frozen = {
        key
        for key, param in model.backbone.named_parameters()
        if not param.requires_grad
    }
    down_to_stride_4 = {
        key
        for key, _ in model.backbone.named_parameters()
        if key.startswith(('stem.', 'tail1.'))
    }
    assert fixed and down_to_stride_4
    assert frozen == down_to_stride_4 | (fixed if name == 'dino' else set())
    assert not any(module.training for module in model.backbone.modules()
                   if isinstance(module, nn.BatchNorm2d))

    features = model.extract_feat(torch.empty(1, 3, 800, 1344, device='meta'))
    heights = [feature.shape[2] for feature in features]
    assert heights == ([100, 50, 25, 13, 7] if name in ('retinanet', 'dino')
                       else [200, 100, 50, 25, 13])[:len(heights)]

    # The optimizer knows the backbone by its name.
    groups = build_optim_wrapper(model, cfg.optim_wrapper).param_groups
    rates = {id(p): group['lr'] for group in groups for p in group['params']}
    lr = cfg.optim_wrapper.optimizer.lr
    for key, param in model.named_parameters():
        if param.requires_grad:
            slow = name == 'dino' and key.startswith('backbone.')
            assert rates[id(param)] == pytest.approx(lr / 10 if slow else lr)


def test_example_of_the_docs():
    text = (CONFIGS.parent / 'docs' / 'detection.md').read_text()
    example, = re.findall('```python\n(.*?)```', text, re.DOTALL)
    cfg = Config.fromstring(example, '.py')
    resnet = original('atss').model.backbone
    assert cfg.model.backbone.norm_cfg == resnet.norm_cfg
    assert cfg.model.backbone.frozen_stages == resnet.frozen_stages
    fish = build(cfg, 'meta').backbone
    assert tuple(cfg.model.neck.in_channels) == fish.out_channels

# Copyright (c) mmfishnet authors. All rights reserved.
import json
import re
from copy import deepcopy
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from torch import nn

from mmfishnet.checkpoints import drop_pretrained
from mmfishnet.datasets import draw_coco
from mmfishnet.engine.data_root import set_data_root
from mmfishnet.models.built import find_tensors
from plan import (
    image_size,
    measure_heads,
    measure_memory,
    plan_training,
    tabulate_hours,
)
from schedule import count_images
from step_memory import measure_kept_bytes

pytest.importorskip('mmdet')

ROOT = Path(__file__).parents[2]
PAPER = ROOT / 'configs/mask_rcnn_fishnet150_fpn.py'
SHAPES = ROOT / 'configs/shapes/mask_rcnn_fishnet_shapes.py'
SIZE = (64, 96)


@cache
def read(path):
    return Config.fromfile(path)


def load(path):
    return deepcopy(read(path))


@pytest.fixture
def cfg():
    """A small detector with stem and batch norms fixed, as the paper's."""
    cfg = load(SHAPES)
    drop_pretrained(cfg.model)
    cfg.model.backbone.update(
        frozen_stages=0,
        norm_eval=True,
        norm_cfg=dict(type='BN', requires_grad=False))
    return cfg


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Ten images, one of them with nothing on it."""
    folder = tmp_path_factory.mktemp('data')
    draw_coco(folder, 10, 1, size=64, seed=0)
    file = folder / 'annotations/instances_train2017.json'
    content = json.loads(file.read_text())
    empty = content['images'][3]['id']
    content['annotations'] = [
        a for a in content['annotations'] if a['image_id'] != empty
    ]
    file.write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize('gpus, lr, counts, steps', [
    (1, 0.00125, 16, 117266),
    (3, 0.00375, None, 39089),
    (4, 0.005, 4, 29317),
    (8, 0.01, 2, 14659),
    # 118,287 pictures, 1,021 without annotations; 7330 iterations of 16
    # images are what MMDetection's own logs of COCO count.
    (16, 0.02, 1, 7330),
    (32, 0.04, None, 3665),
])
def test_numbers_of_gpus(gpus, lr, counts, steps):
    plan = plan_training(load(PAPER), gpus)
    assert plan.scaled_lr == pytest.approx(lr)
    assert plan.counts_for_base == counts
    assert (plan.epoch_steps, plan.steps) == (steps, 32 * steps)


def test_steps_are_those_of_the_loader(data):
    cfg = load(SHAPES)
    set_data_root(cfg, str(data))
    cfg.train_dataloader.batch_size = 4
    plan = plan_training(cfg, gpus=1)
    assert plan.images == 9
    init_default_scope('mmdet')
    loader = Runner.build_dataloader(deepcopy(cfg.train_dataloader), seed=0)
    assert plan.epoch_steps == len(loader) == 3
    # Of two GPUs, each has 5.
    assert plan_training(cfg, gpus=2).epoch_steps == 2
    cfg.train_dataloader.dataset.filter_cfg.filter_empty_gt = False
    assert count_images(cfg) == 10
    assert plan_training(cfg, gpus=1, images=7).epoch_steps == 2


def test_what_a_config_does_not_tell():
    cfg = load(PAPER)
    cfg.train_dataloader.dataset.filter_cfg = None
    assert count_images(cfg) == 118287
    cfg.train_dataloader.dataset.type = 'LVISV1Dataset'
    with pytest.raises(ValueError, match='LVISV1Dataset.*--images'):
        plan_training(cfg, 16)
    assert image_size(cfg) == (800, 1333)
    cfg.train_dataloader.dataset.pipeline = []
    with pytest.raises(ValueError, match='--size'):
        image_size(cfg)
    with pytest.raises(ValueError, match='gpus=0'):
        plan_training(cfg, 0, images=1)
    del cfg.train_cfg.max_epochs
    with pytest.raises(ValueError, match='max_epochs'):
        plan_training(cfg, 16, images=1)


@pytest.mark.parametrize('with_cp', [False, True])
def test_parts_make_up_the_whole(cfg, with_cp):
    """Recorded on 'meta' and measured apart, they are what autograd keeps of
    the same step in one go."""
    from mmdet.testing import demo_mm_inputs
    np.random.seed(0)
    torch.manual_seed(0)
    heads = measure_heads(cfg, SIZE)
    parts = measure_memory(cfg, SIZE, heads, with_cp)

    np.random.seed(0)
    torch.manual_seed(0)
    cfg.model.backbone.with_cp = with_cp
    init_default_scope('mmdet')
    model = MODELS.build(cfg.model)
    data = demo_mm_inputs(
        1, [(3, *SIZE)],
        num_items=[128],
        num_classes=6,
        with_mask=True,
        use_box_type=True)
    data = model.data_preprocessor(data, True)
    losses = nn.Module()
    losses.forward = lambda data: [*find_tensors(
        model.loss(data['inputs'], data['data_samples']))]
    losses.detector = model
    whole = measure_kept_bytes(losses, data)
    if with_cp:
        # Nothing keeps the image, but on 'meta', where it is its own copy in
        # the fast layout, it is there all the while.
        whole += 4 * 3 * SIZE[0] * SIZE[1]
    # On 'meta', batch norms in evaluation mode keep two numbers a channel.
    assert parts.backbone + parts.neck + parts.heads == pytest.approx(
        whole, rel=0.005)
    assert min(parts.backbone, parts.neck, parts.heads) > 0
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in model.parameters()) - trained
    assert parts.state == 4 * (frozen + 3 * trained)
    assert (parts.recomputed > 0) == with_cp


def test_recomputing_and_half_precision(cfg):
    full, cp, half = (
        measure_memory(cfg, SIZE, 1000, **kwargs)
        for kwargs in (dict(), dict(with_cp=True), dict(half=True)))
    assert cp.backbone < 0.6 * full.backbone
    assert cp.recomputed < full.backbone - cp.backbone
    assert (cp.neck, cp.heads) == (full.neck, full.heads)

    # All but the byte an output that a pooling keeps behind the stem, and a
    # few statistics, takes half.
    backbone = MODELS.build(cfg.model.backbone)
    indices = []
    for name, module in backbone.named_modules():
        if isinstance(module, nn.MaxPool2d) and not name.startswith('stem'):
            module.register_forward_hook(
                lambda module, args, output: indices.append(output.numel()))
    backbone(torch.zeros(1, 3, *SIZE))
    assert half.backbone == pytest.approx(
        (full.backbone + sum(indices)) / 2, rel=0.02)
    assert half.heads == 500
    assert half.state == full.state + 2 * sum(
        p.numel() for p in MODELS.build(cfg.model).parameters())


def test_tool(call_tool):
    done = call_tool('analysis_tools/plan', PAPER, '--gpus', 4, '--step-time',
                     0.25, 0.5)
    assert '4 images a step, 29317 steps an epoch' in done.stdout
    assert '--auto-scale-lr makes it 0.005' in done.stdout
    assert 'accumulative_counts=4' in done.stdout
    assert re.search(r'0\.25 \D+16\.0 \D+2\.04 \D+65\.1 ', done.stdout)
    assert 'Memory' not in done.stdout
    done = call_tool('analysis_tools/plan', SHAPES, '--images', 9, '--memory',
                     '--size', *SIZE)
    assert 'Memory of a step with one image of 64x96' in done.stdout
    assert re.search(r'--amp with_cp( \D+\d+){6} ', done.stdout)
    for args, words in (
        (['nowhere.py'], 'error: .*nowhere.py'),
        ([PAPER, '--step-time', 0], 'above 0'),
        ([ROOT / 'configs/classification/fishnet_shapes.py', '--images', 100,
          '--memory'], 'MMDetection')):
        done = call_tool('analysis_tools/plan', *args)
        assert done.returncode and re.search(words, done.stderr)


def test_documented_hours():
    text = (ROOT / 'docs/many_machines.md').read_text()
    rows = re.findall(r'^\| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$',
                      text, re.MULTILINE)
    assert len(rows) == 9
    plan = plan_training(load(PAPER), gpus=16)
    assert tabulate_hours(plan, [float(row[0]) for row in rows]).rows == rows
    # By hand: 7330 steps of half a second, 32 times.
    assert ('0.5', '32.0', '1.02', '32.6') in rows

# Copyright (c) mmfishnet authors. All rights reserved.
import csv

import matplotlib.image
import numpy as np
import pytest
import torch
from mmengine.analysis import FlopAnalyzer
from torch import nn

from complexity import (
    COLORS,
    count_multiply_adds,
    draw_figure4,
    measure_complexity,
    tabulate_complexity,
    write_csv,
)
from mmfishnet.models import FishNet, PreActResNet
from networks import NETWORKS, find_network
from step_memory import measure_kept_bytes


@pytest.fixture(scope='module')
def costs():
    """Of all networks, at 224x224."""
    found = {}

    def cost(name):
        if name not in found:
            with torch.device('meta'):
                found[name] = measure_complexity(NETWORKS[name].build())
        return found[name]

    return cost


def test_networks_are_the_published_ones(costs):
    # FLOPs are the authors' own; the parameters those of their released
    # weights.
    for depth, params, flops in ((99, 16_628_904, 4.31),
                                 (150, 24_959_400, 6.45),
                                 (201, 44_584_552, 10.58)):
        cost = costs(f'fishnet{depth}')
        assert cost.params == params
        assert cost.multiply_adds / 1e9 == pytest.approx(flops, rel=0.01)
    # What the paper prints, within its own rounding (FishNet-150's 26.4M and
    # its relatives aside, where the released model differs).
    for name in ('preact_resnet50', 'preact_resnet101', 'resnext50'):
        assert costs(name).params / 1e6 == pytest.approx(
            NETWORKS[name].params, abs=0.06)
    # Table 2 prints 3.8M more.
    base, conv = costs('fishnet150'), costs('fishnet150-conv')
    assert (conv.params - base.params) / 1e6 == pytest.approx(
        30.2 - 26.4, abs=0.1)
    # Our max-pooling keeps a byte an output, averaging its input.
    average = costs('fishnet150-avg2')
    assert average.image_bytes > base.image_bytes
    assert average.multiply_adds == base.multiply_adds
    for free in ('avg2', 'max3', 'undilated', 'dilated'):
        with torch.device('meta'):
            model = NETWORKS[f'fishnet150-{free}'].build()
        assert sum(p.numel() for p in model.parameters()) == base.params
    # Section 4.2: 6505M against 9269M at batch 32.
    fish = base.training_bytes(32)
    dense = costs('densenet161').training_bytes(32)
    assert fish < 6505 * 2**20 and dense < 9269 * 2**20
    assert fish / dense <= 6505 / 9269


def test_memory_with_a_known_answer():
    pixels = 32 * 32
    kept = (
        3 * pixels * 4  # the image, by the convolution
        + 8 * pixels * 4  # by the norm
        + 8 * pixels * 4  # the rectified, by ReLU and pooling alike
        + 2 * pixels * 8  # the pooling's indices
        + 2 * pixels * 4)  # by the linear layer
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8),
        nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(8 * 16 * 16, 10))
    model[1].eval()
    cost = measure_complexity(model, (32, 32))
    # It is as it was.
    assert model.training and not model[1].training
    assert not any(m._forward_hooks for m in model.modules())
    assert cost.image_bytes == kept
    assert cost.batch_bytes == 2 * 8 * 4  # the norm's mean and deviation
    params = 3 * 8 * 9 + 2 * 8 + 8 * 256 * 10 + 10
    assert cost.params == params
    assert cost.state_bytes == 3 * 4 * params
    assert cost.training_bytes(5) == 12 * params + 64 + 5 * kept
    assert cost.multiply_adds == pixels * (8 * 27 + 2 * 8) + 8 * 256 * 10
    with pytest.raises(ValueError, match='nothing to train'):
        measure_kept_bytes(model.requires_grad_(False),
                           torch.rand(2, 3, 32, 32))


def test_memory_is_linear_and_the_same_on_meta():
    torch.manual_seed(0)
    fish = FishNet(99)
    fish.stem.requires_grad_(False)
    cost = measure_complexity(fish, (64, 64))
    assert measure_kept_bytes(fish, torch.rand(5, 3, 64, 64)) == (
        cost.batch_bytes + 5 * cost.image_bytes)
    assert cost.state_bytes == 4 * (
        cost.params + 2 * sum(p.numel() for p in fish.parameters()
                              if p.requires_grad))
    assert measure_complexity(fish.to('meta'), (64, 64)) == cost


def test_checkpointing_keeps_the_stages_inputs():
    cost = measure_complexity(PreActResNet(50, with_cp=True), (64, 64))
    stem = 3 * 64**2 + 2 * 64 * 32**2  # image, norm's input, rectified
    indices = 64 * 16**2
    stages = (64 + 256) * 16**2 + 512 * 8**2 + 1024 * 4**2
    final = 2 * 2048 * 2**2
    assert cost.image_bytes == 4 * (stem + stages + final) + 8 * indices


def test_multiply_adds_agree_with_mmengine():
    model = PreActResNet(50).eval()
    analyzer = FlopAnalyzer(model, torch.rand(1, 3, 64, 64))
    analyzer.unsupported_ops_warnings(False)
    assert count_multiply_adds(model, (64, 64)) == analyzer.total()


def test_outputs(costs, tmp_path):
    names = ['fishnet99', 'fishnet150', 'preact_resnet50', 'densenet161',
             'resnet50']
    rows = [(NETWORKS[name], costs(name)) for name in names]
    assert len(tabulate_complexity(rows).rows) == len(rows)
    write_csv(rows, tmp_path / 'table.csv', batch=16)
    with open(tmp_path / 'table.csv', newline='') as file:
        written = list(csv.DictReader(file))
    for row, name in zip(written, names, strict=True):
        assert int(row['params']) == costs(name).params
        assert int(row['training_bytes']) == costs(name).training_bytes(16)
    assert written[1]['published_top1_error'] == '21.93'
    assert written[1]['published_by'] == 'paper'

    draw_figure4(rows, tmp_path / 'figure4.png')
    picture = matplotlib.image.imread(tmp_path / 'figure4.png')[..., :3]
    for family, color in COLORS.items():
        rgb = [int(color[i:i + 2], 16) / 255 for i in (1, 3, 5)]
        drawn = np.abs(picture - rgb).max(-1) < 0.01
        halves = np.split(drawn[:, :drawn.shape[1] // 2 * 2], 2, axis=1)
        assert min(half.sum() for half in halves) > 100, family
    with pytest.raises(ValueError, match='Figure 4'):
        draw_figure4(rows[-1:], tmp_path / 'none.png')


def test_find_network(tmp_path):
    (tmp_path / 'empty.py').write_text('model = dict()')
    with pytest.raises(ValueError, match='no model.backbone'):
        find_network(str(tmp_path / 'empty.py'))
    with pytest.raises(ValueError, match="'fishnet18'.*fishnet99, fishnet150"):
        find_network('fishnet18')
    with torch.device('meta'):
        for name in ('fishnext229', 'preact_resnet101', 'resnext50',
                     'densenet121'):
            output = NETWORKS[name].backbone()(torch.zeros(1, 3, 64, 64))
            last = output if isinstance(output, torch.Tensor) else output[-1]
            assert last.shape[-2:] == (2, 2)

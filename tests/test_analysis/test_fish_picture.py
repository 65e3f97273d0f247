# Copyright (c) mmfishnet authors. All rights reserved.
import matplotlib.image
import numpy as np
import pytest
import torch
from torch import nn

from direct_paths import find_direct_paths
from fish_picture import DIRECT, ICONV, draw_fish, find_direct_edges
from mmfishnet.models import FishNet
from mmfishnet.wiring import JOINS, STAGES


@pytest.fixture(scope='module')
def fish():
    return FishNet(99, out_indices=(3, ))


def count(picture, color):
    rgb = [int(color[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    return int((np.abs(picture[..., :3] - rgb).max(-1) < 0.01).sum())


def draw(fish, report, path):
    draw_fish(fish, report, path)
    return matplotlib.image.imread(path)


def test_direct_edges(fish):
    reached, direct = find_direct_edges(fish, find_direct_paths(fish))
    assert {(edge.source, edge.target) for edge in direct} == {
        (source, name)
        for name, reads in zip(STAGES[1:], STAGES) if name in JOINS
        for source in (reads, JOINS[name])
    }
    # tail3, which only the bridge reads, is not among them.
    assert reached == {'stem', 'tail1', 'tail2'} | {
        name
        for name in STAGES if not name.startswith('tail')
    }


def test_svg_names_everything_and_is_the_same_each_time(fish, tmp_path):
    report = find_direct_paths(fish)
    for name in ('a.svg', 'b.svg'):
        draw_fish(fish, report, tmp_path / name, 'FishNet-99')
    svg = (tmp_path / 'a.svg').read_text()
    assert svg == (tmp_path / 'b.svg').read_text()
    # matplotlib draws letters as outlines and writes the text beside them.
    for text in ('FishNet-99', '2112  =  1600 + 512', '320  =  256 + 64',
                 '56×56', 'T: 4 blocks', '1 block, dilation 4', 'bridge',
                 *STAGES):
        assert f'<!-- {text} -->' in svg
    assert DIRECT in svg and ICONV in svg


def test_png_shows_what_strides_break(fish, tmp_path):
    torch.manual_seed(0)
    conv = FishNet(99, out_indices=(3, ), down_sample='conv')
    pooled = draw(fish, find_direct_paths(fish), tmp_path / 'pool.png')
    strided = draw(conv, find_direct_paths(conv), tmp_path / 'conv.png')
    assert pooled.shape[0] > 800
    assert count(strided, DIRECT) < count(pooled, DIRECT) / 2
    assert count(strided, ICONV) > 1.4 * count(pooled, ICONV)


def test_without_the_last_stage(tmp_path):
    fish = FishNet(99, out_indices=(0, 1))
    draw_fish(fish, find_direct_paths(fish), tmp_path / 'fish.svg')
    svg = (tmp_path / 'fish.svg').read_text()
    assert '<!-- head2 -->' in svg and '<!-- head3 -->' not in svg
    with pytest.raises(ValueError, match='Linear is no FishNet'):
        draw_fish(nn.Linear(1, 1), None, tmp_path / 'fish.svg')

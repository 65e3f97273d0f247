# Copyright (c) mmfishnet authors. All rights reserved.
"""The check as people meet it: alone, and at the start of a training."""
import json
from pathlib import Path

import pytest

from mmfishnet.datasets import draw_coco

pytest.importorskip('mmdet')
ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs/shapes/mask_rcnn_fishnet_shapes.py'


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data')
    draw_coco(folder, train=8, val=4)
    return folder


@pytest.fixture
def broken(data):
    """The same with a mistake, which is put right afterwards."""
    path = data / 'annotations/instances_train2017.json'
    text = path.read_text()
    content = json.loads(text)
    content['annotations'][3].pop('area')
    path.write_text(json.dumps(content))
    yield data
    path.write_text(text)


def test_alone(call_tool, data):
    run = call_tool('check', CONFIG, '--data-root', data)
    assert run.returncode == 0, run.stdout
    assert '8 image files looked for, 8 read, by' in run.stdout
    run = call_tool('check', CONFIG, '--data-root', data, '--cfg-options',
                    'model.roi_head.bbox_head.num_classes=80')
    assert run.returncode == 1
    assert 'bbox_head.num_classes: it is 80' in run.stdout


def test_training_does_not_start(call_tool, broken, tmp_path):
    work = tmp_path / 'work'
    run = call_tool('train', CONFIG, '--from-scratch', '--data-root', broken,
                    '--work-dir', work)
    assert run.returncode == 1
    assert 'have no area' in run.stderr  # a KeyError of CocoDataset's
    assert '--no-check' in run.stderr
    assert 'Traceback' not in run.stderr
    assert not list(work.glob('*.pth'))

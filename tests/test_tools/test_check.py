# Copyright (c) mmfishnet authors. All rights reserved.
"""The check as people meet it: alone, and at the start of a training."""
import json
from pathlib import Path

import pytest
import torch

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
    texts = {path: path.read_text() for path in data.glob('annotations/*')}
    for path, text in texts.items():
        content = json.loads(text)
        content['annotations'][3].pop('area')
        path.write_text(json.dumps(content))
    yield data
    for path, text in texts.items():
        path.write_text(text)


def test_alone(call_tool, data):
    run = call_tool('check', CONFIG, '--data-root', data)
    assert run.returncode == 0, run.stdout
    assert '8 image files looked for, 8 read, by' in run.stdout
    run = call_tool('check', CONFIG, '--data-root', data, '--cfg-options',
                    'model.roi_head.bbox_head.num_classes=80')
    assert run.returncode == 1
    assert 'error: model.roi_head.bbox_head.num_cl' in run.stdout
    # What is not evaluated may have more.
    run = call_tool('check', CONFIG, '--data-root', data, '--parts', 'train',
                    '--cfg-options', 'val_evaluator.ann_file=gone.json',
                    'model.roi_head.bbox_head.num_classes=80')
    assert run.returncode == 0, run.stdout
    assert 'warning: model.roi_head.bbox_head.num_cl' in run.stdout


@pytest.mark.parametrize('tool', ['train', 'test'])
def test_run_does_not_start(call_tool, broken, tmp_path, tool):
    work, checkpoint = tmp_path / 'work', tmp_path / 'a.pth'
    torch.save(dict(state_dict={}), checkpoint)
    args = [tool, CONFIG, *[checkpoint] * (tool == 'test'), '--from-scratch',
            '--data-root', broken, '--work-dir', work]
    run = call_tool(*args)
    assert run.returncode == 1
    assert 'have no area' in run.stderr  # a KeyError of CocoDataset's
    assert '--no-check' in run.stderr
    assert 'Traceback' not in run.stderr
    assert not list(work.glob('*.pth'))
    # Without a check, what upstream raises, and of which part of the config.
    run = call_tool(*args, '--no-check')
    assert run.returncode == 1
    assert 'CocoDataset cannot be built of' in run.stderr
    assert 'KeyError' in run.stderr and 'area' in run.stderr

# Copyright (c) mmfishnet authors. All rights reserved.
import csv
import json
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from mmfishnet.datasets import draw_coco
from mmfishnet.models import FishNet

ROOT = Path(__file__).parents[2]
PNG = b'\x89PNG\r\n'


def test_complexity(run_tool, tmp_path):
    table, figure = tmp_path / 'new/table.csv', tmp_path / 'figure4.png'
    done = run_tool('analysis_tools/complexity', 'fishnet99', 'densenet121',
                    '--device', 'meta', '--batch', '2', '--csv', table,
                    '--figure4', figure)
    assert done.returncode == 0, done.stderr
    assert '16.63' in done.stdout and 'Step of 2' in done.stdout
    with open(table, newline='') as file:
        fish, dense = csv.DictReader(file)
    assert fish['params'] == '16628904' and fish['batch'] == '2'
    assert dense['published_by'] == "DenseNet authors' page"
    assert figure.read_bytes().startswith(PNG)


def test_direct_bp(call_tool, tmp_path):
    done = call_tool('analysis_tools/direct_bp', 'fishnet99', '--svg',
                     tmp_path / 'new/fish.svg', '--png', tmp_path / 'fish.png')
    assert done.returncode == 0, done.stderr
    assert '9 isolated convolutions' in done.stdout
    assert 'bridge.refine.expand' in done.stdout
    assert done.stdout.rstrip().endswith(
        'stem, tail1, tail2, bridge, body1, body2, body3, head1, head2, '
        'head3, output')
    assert (tmp_path / 'new/fish.svg').read_text().startswith('<?xml')
    assert (tmp_path / 'fish.png').read_bytes().startswith(PNG)


PURE = """
from mmdet.datasets import CocoDataset
from mmdet.datasets.transforms import Resize
from mmdet.models import FPN, DetDataPreprocessor, RetinaHead, RetinaNet
from mmdet.models.task_modules import AnchorGenerator, MaxIoUAssigner
from mmengine.optim import MultiStepLR
from torch.optim import SGD

from mmfishnet.engine import ClipGradUntilHook
from mmfishnet.models import FishNet

default_scope = None
model = dict(
    type=RetinaNet,
    data_preprocessor=dict(type=DetDataPreprocessor, mean=[127.], std=[58.],
                           pad_size_divisor=32),
    backbone=dict(type=FishNet, depth=99, in_channels=1,
                  out_indices=(1, 2, 3)),
    neck=dict(type=FPN, in_channels=[832, 1600, 2112], out_channels=64,
              num_outs=5),
    bbox_head=dict(
        type=RetinaHead, num_classes=3, in_channels=64, feat_channels=64,
        stacked_convs=1,
        anchor_generator=dict(
            type=AnchorGenerator, octave_base_scale=4, scales_per_octave=3,
            ratios=[0.5, 1.0, 2.0], strides=[8, 16, 32, 64, 128])),
    train_cfg=dict(
        assigner=dict(type=MaxIoUAssigner, pos_iou_thr=0.5, neg_iou_thr=0.4,
                      min_pos_iou=0, ignore_iof_thr=-1),
        allowed_border=-1, pos_weight=-1, debug=False))
train_cfg = dict(max_epochs=4)
train_dataloader = dict(
    batch_size=2,
    dataset=dict(type=CocoDataset, ann_file='nowhere.json',
                 filter_cfg=dict(filter_empty_gt=True),
                 pipeline=[dict(type=Resize, scale=(96, 64))]))
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.02),
                     clip_grad=dict(max_norm=5))
param_scheduler = [dict(type=MultiStepLR, milestones=[3])]
custom_hooks = [dict(type=ClipGradUntilHook, end=2)]
auto_scale_lr = dict(base_batch_size=16)
"""


# Each with what it says of the config.
@pytest.mark.parametrize('command, words', [
    (['complexity', '--size', '64', '96'],
     ['Complexity at 64x96', 'FishNet of pure.py']),
    (['direct_bp'], ['head3', '9 isolated convolutions']),
    (['plan', '--memory'], ['3665 steps an epoch', 'image of 64x96']),
    (['schedule', '--out', 'schedule.png'],
     ['29320 iterations', 'epochs 3 to 4: learning rate 0.002',
      'epochs 0 to 2: gradients clipped to 5']),
])
def test_pure_python_config_of_grey_images(call_tool, tmp_path, monkeypatch,
                                           command, words):
    """Classes in the place of names, no scope, one channel."""
    pytest.importorskip('mmdet')
    monkeypatch.chdir(tmp_path)
    Path('pure.py').write_text(PURE)
    done = call_tool(f'analysis_tools/{command[0]}', 'pure.py', *command[1:])
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in words), done.stdout


def test_wrong_arguments(call_tool):
    done = call_tool('analysis_tools/direct_bp', 'fishnet18')
    assert done.returncode == 1
    assert done.stderr.startswith("error: there is no network 'fishnet18'")
    done = call_tool('analysis_tools/complexity', '--size', '8')
    assert done.returncode == 2 and 'at least 32' in done.stderr


def test_training_time(call_tool, tmp_path):
    """What is slow is found where it is, forward and backward."""
    pytest.importorskip('mmdet')
    from mmdet.datasets.transforms import RandomFlip
    from mmdet.registry import MODELS, TRANSFORMS

    class SlowFishNet(FishNet):

        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.stem.register_forward_hook(slow_backward)

        def forward(self, x):
            time.sleep(0.3)
            return super().forward(x)

    class SlowFlip(RandomFlip):

        def transform(self, results):
            time.sleep(0.4)
            return super().transform(results)

    def slow_backward(stem, inputs, output):
        if output.requires_grad:
            output.register_hook(lambda grad: time.sleep(0.5))

    draw_coco(tmp_path, 4, 2, size=64)
    times = tmp_path / 'times.json'
    with ExitStack() as stack:
        for registry, kind in ((MODELS, SlowFishNet), (TRANSFORMS, SlowFlip)):
            registry.register_module(module=kind)
            stack.callback(registry.module_dict.pop, kind.__name__)
        done = call_tool(
            'analysis_tools/training_time',
            ROOT / 'configs/shapes/mask_rcnn_fishnet_shapes.py', '--data-root',
            tmp_path, '--work-dir', tmp_path / 'run', '--json', times,
            '--cfg-options', 'model.backbone.type=SlowFishNet',
            'train_dataloader.dataset.pipeline.3.type=SlowFlip',
            'train_dataloader.batch_size=1', 'train_cfg.max_epochs=1')
    assert done.returncode == 0, done.stderr
    seconds = json.loads(times.read_text())
    training, validation = seconds['training'], seconds['validation']
    for part, least in (('backbone, forward', 1.2), ('data', 1.6),
                        ('backbone, backward', 2.0)):
        assert least < training[part] < least + 2, training
    assert 0.6 < validation['backbone, forward'] < 2.6
    assert validation['metrics'] > 0 and 'metrics' not in training
    for part in ('heads and neck, backward', 'neck, forward', 'data'):
        assert part in done.stdout and training[part] > 0

# Copyright (c) mmfishnet authors. All rights reserved.
import csv
import json
import time
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest
from mmengine.hub import get_config

from mmfishnet.datasets import draw_coco
from mmfishnet.models import FishNet
from pure_python import write_pure

ROOT = Path(__file__).parents[2]
PNG = b'\x89PNG\r\n'


def test_complexity(call_tool, tmp_path):
    table, figure = tmp_path / 'new/table.csv', tmp_path / 'figure4.png'
    done = call_tool('analysis_tools/complexity', 'fishnet99', 'densenet121',
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


@pytest.fixture
def pure_config(tmp_path, monkeypatch):
    """pure.py: classes in the place of names, no scope, one channel."""
    pytest.importorskip('mmdet')
    monkeypatch.chdir(tmp_path)
    cfg = get_config('mmdet::retinanet/retinanet_r18_fpn_1x_coco.py')
    cfg.model.backbone = dict(type='mmfishnet.FishNet', depth=99,
                              in_channels=1, out_indices=(1, 2, 3))
    cfg.model.neck.update(in_channels=[832, 1600, 2112], start_level=0)
    cfg.model.data_preprocessor.update(
        mean=[127.], std=[58.], bgr_to_rgb=False)
    data = cfg.train_dataloader.dataset
    data.ann_file = 'nowhere.json'
    data.pipeline = [dict(type='Resize', scale=(96, 64))]
    cfg.train_cfg.max_epochs = 4
    cfg.optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.02),
                             clip_grad=dict(max_norm=5))
    cfg.param_scheduler = [dict(type='MultiStepLR', milestones=[3])]
    cfg.custom_hooks = [dict(type='mmfishnet.ClipGradUntilHook', end=2)]
    write_pure(cfg, 'pure.py')


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
def test_pure_python_config_of_grey_images(pure_config, call_tool, command,
                                           words):
    done = call_tool(f'analysis_tools/{command[0]}', 'pure.py', *command[1:])
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in words), done.stdout


def test_wrong_arguments(call_tool):
    done = call_tool('analysis_tools/direct_bp', 'fishnet18')
    assert done.returncode == 1
    assert done.stderr.startswith("error: there is no network 'fishnet18'")
    done = call_tool('analysis_tools/complexity', '--size', '8')
    assert done.returncode == 2 and 'at least 32' in done.stderr


def test_training_time(call_tool, tmp_path, monkeypatch):
    """What is slow is found where it is, forward and backward."""
    pytest.importorskip('mmdet')
    from mmdet.datasets.transforms import RandomFlip
    from mmdet.registry import MODELS, TRANSFORMS

    # By a clock of its own: how busy the machine is does not matter.
    ticks, slept = count(), []
    monkeypatch.setattr(time, 'perf_counter',
                        lambda: 1e-6 * next(ticks) + sum(slept))

    class SlowFishNet(FishNet):

        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.stem.register_forward_hook(slow_backward)

        def forward(self, x):
            slept.append(0.3)
            return super().forward(x)

    class SlowFlip(RandomFlip):

        def transform(self, results):
            slept.append(0.4)
            return super().transform(results)

    def slow_backward(stem, inputs, output):
        if output.requires_grad:
            output.register_hook(lambda grad: slept.append(0.5))

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
        assert least < training[part] < least + 0.1, training
    assert 0.6 < validation['backbone, forward'] < 0.7
    assert validation['metrics'] > 0 and 'metrics' not in training
    for part in ('heads and neck, backward', 'neck, forward', 'data'):
        assert part in done.stdout and training[part] > 0

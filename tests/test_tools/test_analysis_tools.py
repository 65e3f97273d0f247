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


def test_complexity_of_a_config_on_the_cpu(call_tool, tmp_path):
    config = tmp_path / 'config.py'
    config.write_text("model = dict(backbone=dict(type='mmfishnet.FishNet', "
                      'depth=99, frozen_stages=0, norm_eval=True))')
    done = call_tool('analysis_tools/complexity', config, '--size', '64', '96')
    assert done.returncode == 0, done.stderr
    assert 'Complexity at 64x96' in done.stdout
    assert 'FishNet of config.py' in done.stdout


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


def test_images_of_another_kind(call_tool, tmp_path):
    """A model's images have the channels that it reads."""
    config = tmp_path / 'grey.py'
    config.write_text(
        "_base_ = '%s'\n"
        'model = dict(data_preprocessor=dict(mean=[127.], std=[58.], '
        'bgr_to_rgb=False), backbone=dict(depth=99, in_channels=1))' %
        (ROOT / 'configs/mask_rcnn_fishnet150_fpn.py'))
    for command in (('complexity', '--device', 'meta'), ('direct_bp', ),
                    ('plan', '--memory', '--size', '64', '96')):
        done = call_tool(f'analysis_tools/{command[0]}', config, *command[1:])
        assert done.returncode == 0, done.stderr


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

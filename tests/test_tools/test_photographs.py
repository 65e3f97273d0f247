# Copyright (c) mmfishnet authors. All rights reserved.
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

import photographs
from mmfishnet.datasets import draw_classification, draw_coco

pytest.importorskip('mmdet')
pytest.importorskip('mmpretrain')

SMALL = Path(__file__).parents[2] / 'configs/small'


@pytest.mark.parametrize('config', [
    'classifier_fishnet_small', 'mask_rcnn_fishnet_small'])
def test_networks_are_alike(config):
    """Equal parameters of the backbones, and all else is equal."""
    fish, other = (
        photographs.variant(str(SMALL / f'{config}.py'), network)
        for network in photographs.NETWORKS)
    counts = []
    for cfg in (fish, other):
        init_default_scope(cfg['default_scope'])
        with torch.device('meta'):
            model = MODELS.build(cfg.model)
        counts.append(sum(p.numel() for p in model.backbone.parameters()))
        del cfg.model.backbone, cfg.model.neck
        cfg.model.get('head', {}).pop('in_channels', None)
    assert abs(counts[0] - counts[1]) < 0.002 * counts[0]
    assert fish.to_dict() == other.to_dict()


def test_tables(monkeypatch):
    """Means and sample standard deviations, by hand."""
    def run(**metrics):
        return SimpleNamespace(
            metrics={'coco/' + k: v for k, v in metrics.items()},
            train=[dict(time=0.25), dict(time=0.75)])

    monkeypatch.setattr(photographs, 'kept', lambda run: 3.25)
    means, single = photographs.tables({
        ('scratch', network, seed): run(bbox_mAP=value / 100)
        for network, values in (('fishnet', (20, 21, 22)),
                                ('resnet', (18, 20, 19)))
        for seed, value in enumerate(values)})
    assert means.rows[0] == [
        'Box AP, from scratch', '21.0 ± 1.0', '19.0 ± 1.0', '+2.0 ± 1.0']
    assert means.rows[1] == ['Seconds a step, one core', '0.50', '0.50', '']
    assert single.rows[4] == ['2', 'FishNet', '22.0']


@pytest.mark.slow
def test_study(run_tool, call_tool, tmp_path):
    """From two folders to the report, for one network and seed."""
    draw_classification(tmp_path / 'kinds', train=24, val=12)
    draw_coco(tmp_path / 'objects', train=4, val=2, size=64)
    configs = []
    for name in ('kinds', 'objects'):
        config = tmp_path / f'{name}.py'
        done = call_tool('dataset_tools/own_data', tmp_path / name, config)
        assert done.returncode == 0, done.stderr
        config.write_text(re.sub('max_epochs = .*', 'max_epochs = 1',
                                 config.read_text()))
        configs.append(config)
    command = ('analysis_tools/photographs', *configs, '--work-dir',
               tmp_path / 'study', '--seeds', 5, '--networks', 'resnet')
    done = run_tool(*command)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    text = (tmp_path / 'study/report.md').read_text()
    assert text in done.stdout
    for title in ('Top-1', 'Mask AP, from scratch', 'Mask AP, pretrained'):
        assert re.search(rf'^\| {title} \| \d+\.\d \|$', text, re.M), text

    # One begins with the classifier's weights, the other with noise.
    log = (tmp_path / 'study/pretrained_resnet_5.log').read_text()
    checkpoint = tmp_path / 'study/pretrain_resnet_5/epoch_1.pth'
    assert str(checkpoint) in log and checkpoint.exists()
    cfg = Config.fromfile(tmp_path / 'study/scratch_resnet_5.py')
    assert cfg.model.backbone.init_cfg is None
    assert cfg.randomness.seed == 5

    # Nothing is done twice.
    done = call_tool(*command)
    assert done.returncode == 0 and text in done.stdout
    assert 'Epoch(train)' not in done.stdout

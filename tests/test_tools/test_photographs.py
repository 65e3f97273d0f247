# Copyright (c) mmfishnet authors. All rights reserved.
import json
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

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


def train(command, **kwargs):
    """What tools/train.py leaves, of weights that were not trained."""
    folder, cfg = Path(command[-1]), Config.fromfile(command[2])
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    model.init_weights()
    left = folder / '20300101_000000/vis_data'
    left.mkdir(parents=True)
    torch.save(dict(state_dict=model.state_dict()), folder / 'epoch_1.pth')
    cfg.dump(left / 'config.py')
    metrics = {'accuracy/top1': 50.} if 'pretrain_' in folder.name else {
        'coco/bbox_mAP': 0.3, 'coco/segm_mAP': 0.2}
    (left / 'scalars.json').write_text(''.join(json.dumps(line) + '\n' for line
        in (dict(time=0.5, epoch=1, iter=6, step=6), dict(metrics, step=1))))
    return SimpleNamespace(returncode=0)


def test_study(call_tool, tmp_path, monkeypatch):
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
               tmp_path / 'study', '--seeds', 5, '--networks', 'resnet',
               '--jobs', 1)
    fails = Mock(return_value=SimpleNamespace(returncode=1))
    monkeypatch.setattr(subprocess, 'run', fails)
    done = call_tool(*command)
    assert done.returncode == 1
    assert re.search('error: pretrain_resnet_5 ended .*5.log', done.stderr)

    monkeypatch.setattr(subprocess, 'run', train)
    done = call_tool(*command)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    text = (tmp_path / 'study/report.md').read_text()
    assert text in done.stdout
    for title in ('Top-1 | 50.0', 'Mask AP, from scratch | 20.0',
                  'Box AP, pretrained | 30.0', 'Seconds a step, one core | '):
        assert f'\n| {title}' in text
    cfg = Config.fromfile(tmp_path / 'study/scratch_resnet_5.py')
    assert cfg.randomness.seed == 5
    # One begins with the classifier's weights, the other with noise.
    classifier, pretrained, scratch = (
        torch.load(tmp_path / f'study/{kind}_resnet_5/epoch_1.pth')[
            'state_dict'] for kind in ('pretrain', 'pretrained', 'scratch'))
    for state, same in (pretrained, True), (scratch, False):
        found = [torch.equal(value, state[key])
                 for key, value in classifier.items()
                 if key.startswith('backbone.') and value.dim() == 4]
        assert found and set(found) == {same}

    # Nothing is done twice.
    monkeypatch.setattr(subprocess, 'run', fails)
    done = call_tool(*command)
    assert done.returncode == 0 and text in done.stdout

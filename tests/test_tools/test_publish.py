# Copyright (c) mmfishnet authors. All rights reserved.
"""The file that one shares, of a real run with a moving average."""
import hashlib
import json
import re
from pathlib import Path

import mmengine
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner

from mmfishnet.datasets import draw_classification

pytest.importorskip('mmpretrain')
CONFIGS = Path(__file__).parents[2] / 'configs'


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """Two epochs of a classifier: its work directory."""
    folder = tmp_path_factory.mktemp('publish')
    draw_classification(folder / 'data', train=24, val=12)
    cfg = Config.fromfile(CONFIGS / 'classification/fishnet_shapes.py')
    for name in ('train', 'val', 'test'):
        loader = cfg[f'{name}_dataloader']
        loader.update(num_workers=0, persistent_workers=False, batch_size=12,
                      collate_fn=dict(type='default_collate'))
        loader.dataset.data_root = str(folder / 'data')
    cfg.train_cfg = dict(by_epoch=True, max_epochs=2, val_interval=1)
    cfg.custom_hooks = [dict(type='EMAHook', momentum=0.5)]
    cfg.model.backbone.init_cfg = dict(type='Kaiming', layer='Conv2d')
    cfg.work_dir = str(folder / 'secret_work')
    cfg.experiment_name, cfg.log_level = 'small_fish', 'ERROR'
    Runner.from_cfg(cfg).train()
    return folder / 'secret_work'


def published(folder, suffix):
    path, = folder.glob(f'*{suffix}')
    return path


def test_of_a_run(run, check_published):
    image = next((run.parent / 'data/val').rglob('*.png'))
    path, text = check_published(run / 'epoch_2.pth', image)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.name == f'small_fish-{digest[:8]}.pth'

    content = torch.load(path, weights_only=True)
    assert set(content) == {'meta', 'state_dict'}
    original = torch.load(run / 'epoch_2.pth', weights_only=False)
    # MMEngine saves the average under this name.
    for key, value in original['state_dict'].items():
        assert torch.equal(content['state_dict'][key], value)
    assert content['meta']['dataset_meta']['classes'][0] == 'arrow'
    assert 'secret_work' not in content['meta']['cfg']
    assert path.stat().st_size < (run / 'epoch_2.pth').stat().st_size / 2
    init_default_scope('mmpretrain')
    MODELS.build(Config.fromstring(content['meta']['cfg'], '.py').model
                 ).load_state_dict(content['state_dict'])

    log, = run.glob('*/vis_data/scalars.json')
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    accuracy = [e for e in entries if 'accuracy/top1' in e][-1]
    assert f"| accuracy/top1 | {accuracy['accuracy/top1']:g} |" in text
    assert 'validation of these weights' in text
    assert 'CustomDataset (data: val)' in text
    assert 'CustomDataset (data: train)' in text
    assert f'MMEngine {mmengine.__version__}, ' in text
    # Nor where the data lie.
    assert str(run.parent) not in text + content['meta']['cfg']
    assert "data_root='data'" in content['meta']['cfg']
    assert digest in text and 'moving average' in text
    assert 'secret_work' not in text
    assert '604,380' in text  # as configs/_base_/backbones/tiny.py says


def test_trained_weights_and_safetensors(run, call_tool, tmp_path):
    load_file = pytest.importorskip('safetensors.torch').load_file
    call_tool('publish', run / 'epoch_2.pth', tmp_path, '--no-ema',
              '--safetensors', '--name', 'mine')
    path = published(tmp_path, '.safetensors')
    assert re.fullmatch(r'mine-[0-9a-f]{8}\.safetensors', path.name)
    state = load_file(path)
    original = torch.load(run / 'epoch_2.pth', weights_only=False)
    trained = {key.removeprefix('module.'): value
               for key, value in original['ema_state_dict'].items()
               if key.startswith('module.')}
    assert all(torch.equal(state[key], trained[key]) for key in trained)
    assert sum(not torch.equal(value, original['state_dict'][key])
               for key, value in trained.items()) > 100
    text = published(tmp_path, '.md').read_text()
    # The log tells of the average alone.
    assert 'Not measured' in text and 'moving average' not in text


def test_metrics_of_a_test(run, call_tool, tmp_path):
    metrics = tmp_path / 'metrics.json'
    metrics.write_text('{"accuracy/top1": 12.5}')
    call_tool('publish', run / 'epoch_2.pth', tmp_path / 'out', '--metrics',
              metrics)
    text = published(tmp_path / 'out', '.md').read_text()
    assert '| accuracy/top1 | 12.5 |' in text and 'tools/test.py' in text
    assert 'validation' not in text


@pytest.mark.parametrize('content, message', [
    (dict(a=torch.zeros(1)), 'convert_checkpoint.py'),
    (dict(state_dict={}, meta=dict(cfg='model = dict()')), 'without EMAHook'),
])
def test_errors(content, message, call_tool, tmp_path):
    path = tmp_path / 'weights.pth'
    torch.save(content, path)
    done = call_tool('publish', path, tmp_path / 'out', '--no-ema')
    assert done.returncode == 1 and message in done.stderr
    assert not (tmp_path / 'out').exists()

# Copyright (c) mmfishnet authors. All rights reserved.
"""A config in MMDetection's pure-Python style, through every tool of ours as
its text twin."""
import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmfishnet.datasets import draw_coco
from pure_python import write_pure

pytest.importorskip('mmdet')

ROOT = Path(__file__).parents[2]
TEXT = ROOT / 'configs/shapes/mask_rcnn_fishnet_shapes.py'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('pure')
    draw_coco(folder / 'data', 4, 2, size=64)
    cfg = Config.fromfile(TEXT)
    cfg.model.backbone.init_cfg = None
    for loader in (cfg.train_dataloader, cfg.val_dataloader,
                   cfg.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False, batch_size=2)
    cfg.train_cfg.max_epochs = 1
    cfg.randomness = dict(seed=0)
    cfg.dump(folder / 'text.py')
    write_pure(cfg, folder / 'pure.py')
    return folder


def scalars(run, key):
    """What a run logged under a key, in all of its parts."""
    return [
        entry[key] for log in sorted(run.glob('*/vis_data/scalars.json'))
        for entry in map(json.loads, log.read_text().splitlines())
        if key in entry
    ]


@pytest.mark.slow
def test_every_tool(folder, call_tool, monkeypatch):
    monkeypatch.chdir(folder)

    def tool(name, *args):
        done = call_tool(name, *args)
        assert done.returncode == 0, (name, done.stdout, done.stderr)

    losses = {}
    for style in ('text', 'pure'):
        config, run = f'{style}.py', folder / style
        given = ('--data-root', 'data', '--work-dir', run)
        tool('train', config, *given, '--early-stop', 9, '--monitor',
             'val_loss', '--cfg-options', 'default_hooks.logger.interval=1')
        losses[style] = scalars(run, 'loss'), scalars(run, 'val_loss')
    assert losses['text'] == losses['pure'] and losses['text'][1]

    checkpoint = run / 'epoch_1.pth'
    content = torch.load(checkpoint, weights_only=False)
    assert 'mmfishnet' in content  # by our checkpoint hook and loop
    assert scalars(run, 'images_per_s')  # by our log processor
    assert list(run.glob('best_val_loss_*.pth'))
    tool('test', config, checkpoint, *given, '--tta', '--show-dir', 'shown')
    tool('check', config, '--data-root', 'data')
    tool('predict', 'data/val2017', '--checkpoint', checkpoint,
         '--out-dir', run / 'drawn')
    assert (run / 'drawn/predictions.json').is_file()
    tool('report', run, '--out', run / 'report.html')
    assert 'loss, validation' in (run / 'report.html').read_text()
    tool('publish', checkpoint, run / 'published')
    assert list((run / 'published').glob('*.pth'))

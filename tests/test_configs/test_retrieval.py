# Copyright (c) mmfishnet authors. All rights reserved.
"""Retrieval with MMPretrain's model and metrics, as the docs have it."""
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmfishnet.datasets import draw_classification
from mmfishnet.models import FishNet

pytest.importorskip('mmpretrain')

ROOT = Path(__file__).parents[2]
CONFIG = 'configs/classification/retrieval_custom.py'


def describe(fish, files):
    """Generalised means of pictures' features, written out."""
    means = Config.fromfile(ROOT / CONFIG).data_preprocessor
    found = []
    for file in files:
        image = cv2.imread(str(file))[..., ::-1].astype('float32')
        image = (image - means.mean) / means.std
        with torch.no_grad():
            feats = fish(torch.tensor(image.transpose(2, 0, 1)).float()[None])
        found.append(np.concatenate([
            np.cbrt((np.maximum(f[0].double().numpy(), 1e-6)**3).mean((1, 2)))
            for f in feats]))
    found = np.stack(found)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_one_pass_over_drawn_pictures(tmp_path, monkeypatch, capsys):
    data = tmp_path / 'data'
    draw_classification(data, train=36, val=12)
    torch.manual_seed(0)
    fish = FishNet(99).eval()
    fish.init_weights()
    torch.save(fish.state_dict(), tmp_path / 'fish.pth')
    config = tmp_path / 'config.py'
    config.write_text(f"""
_base_ = '{ROOT / CONFIG}'
pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
dataset = dict(data_root='{data}', pipeline=pipeline)
model = _base_.model
model.image_encoder[0].update(depth=99, init_cfg=dict(
    type='Pretrained', checkpoint='{tmp_path / 'fish.pth'}'))
model.prototype.update(num_workers=0)
model.prototype.dataset.update(dataset)
test_dataloader = dict(num_workers=0, dataset=dataset)
""")
    page = (ROOT / 'docs/classification.md').read_text()
    code = re.search(r'## Retrieval\n.*?```python\n(.*?)```', page,
                     re.DOTALL)[1].replace(CONFIG, str(config))
    done = {}
    exec(compile(code, '<documentation>', 'exec'), done)

    files = {part: sorted((data / part).glob('*/*'))
             for part in ('train', 'val')}
    cosines = describe(fish, files['val']) @ describe(fish, files['train']).T
    np.testing.assert_allclose(done['scores'], cosines, atol=1e-5)
    first, precisions = [], []
    for query, row in zip(files['val'], cosines):
        hits = np.array([files['train'][i].parent.name == query.parent.name
                         for i in np.argsort(-row)])
        first.append(hits[0])
        ranks = np.flatnonzero(hits)
        precisions.append(np.mean((np.arange(len(ranks)) + 1) / (ranks + 1)))
    assert float(done['recall'][0]) == pytest.approx(100 * np.mean(first))
    assert done['precision'] == pytest.approx(100 * np.mean(precisions))
    assert done['best'] == str(files['train'][np.argmax(cosines[0])])
    # With a head it trains.
    from mmpretrain.registry import MODELS
    head = dict(type='ArcFaceClsHead', num_classes=12, in_channels=4864)
    model = MODELS.build(dict(done['cfg'].model, head=head))
    batch = model.data_preprocessor(next(iter(done['queries'])), True)
    model(**batch, mode='loss')['loss'].backward()
    assert model.image_encoder[0].stem[0].weight.grad.abs().sum() > 0

# Copyright (c) mmfishnet authors. All rights reserved.
"""What OpenMMLab's other tools read of our models: configs/metafile.yml."""
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmfishnet.config import CONFIGS
from table3 import PAPER

mmpretrain = pytest.importorskip('mmpretrain')

ROOT = Path(__file__).parents[2]
# The index that is installed with the package.
INDEX = CONFIGS.with_name('model-index.yml')


@pytest.fixture(scope='module')
def models():
    from modelindex.load_model_index import load
    index = load(str(INDEX))
    index.build_models_with_collections()
    return {model.name: model for model in index.models}


@pytest.fixture(scope='module')
def classifiers(models):
    return {n: model for n, model in models.items() if n.endswith('_in1k')}


def metrics(model):
    return {
        name: value
        for result in model.results for name, value in result.metrics.items()
    }


def test_every_entry_is_a_config(models):
    for name, model in models.items():
        path = ROOT / model.config
        assert path.is_file()
        assert path.stem == name
        epochs = Config.fromfile(path).train_cfg.max_epochs
        assert model.metadata.epochs == epochs


def test_results_are_table_3(models):
    masks, boxes, faster = PAPER['FishNet-150']
    assert metrics(models['mask_rcnn_fishnet150_fpn']) == {
        'box AP': boxes[0],
        'mask AP': masks[0]
    }
    assert metrics(models['faster_rcnn_fishnet150_fpn']) == {
        'box AP': faster[0]
    }


def test_accuracies_are_those_of_the_docs(classifiers):
    text = (ROOT / 'docs/classification.md').read_text()
    assert len(classifiers) == text.count('\n| `fishne') == 6
    for name, model in classifiers.items():
        top1 = metrics(model)['Top 1 Accuracy']
        assert re.search(rf'`{name}\.py` .* \| {top1} \|', text), name


def test_by_name(classifiers):
    """MMPretrain builds them by name; as many parameters as it says."""
    from mmpretrain.apis import ModelHub
    ModelHub.register_model_index(INDEX, config_prefix=INDEX.parent)
    assert set(classifiers) <= set(mmpretrain.list_models())
    for name, listed in classifiers.items():
        with torch.device('meta'):
            model = mmpretrain.get_model(name)
        count = sum(p.numel() for p in model.parameters())
        assert count == listed.metadata.parameters, name

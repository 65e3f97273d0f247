# Copyright (c) mmfishnet authors. All rights reserved.
"""MMEngine's loading: as ever, until safe loading is switched on."""
import importlib
import json
import os
import subprocess
import sys

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.runner import load_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader
from mmengine.runner.checkpoint import load_from_http as mmengine_http
from mmengine.runner.checkpoint import load_from_local as mmengine_local
from torch import nn
from torchvision.models import resnet18

from mmfishnet.checkpoints import CheckpointError, use_safe_loading
from mmfishnet.models import FishNet
from mmfishnet.models.pretrained_module import check_fit

from .conftest import build_classifier
from .test_load import FORMATS, TINY, holds, named, pretrained
from .test_read import Malicious

LOADERS = (('', mmengine_local), (('http://', 'https://'), mmengine_http))


@pytest.fixture(autouse=True)
def plain():
    """MMEngine's own loaders, whatever other tests left."""
    MMLogger.get_current_instance().setLevel('ERROR')

    def restore():
        for prefixes, loader in LOADERS:
            CheckpointLoader.register_scheme(prefixes, loader, force=True)

    restore()
    yield
    restore()


# As if mmfishnet were not there ---------------------------------------------

SNAPSHOT = """
import importlib, json, pickle, sys
import mmengine.runner, torch
import torch._dynamo, torch._inductor, torch.onnx, torchvision  # lazy parts
from mmengine.runner.checkpoint import CheckpointLoader, load_checkpoint

def state():
    return {
        f'{name}.{key}': f'{type(value).__name__} {id(value)}'
        for name, things in dict(
            pickle=vars(pickle), torch=vars(torch),
            serialization=vars(torch.serialization),
            module=vars(torch.nn.Module), loader=vars(CheckpointLoader),
            safe={str(x): x for x in getattr(
                torch.serialization, 'get_safe_globals', list)()},
        ).items()
        for key, value in things.items()
    } | {
        f'loader.schemes.{key}': id(value)
        for key, value in CheckpointLoader._schemes.items()
    }

def load():
    model = torch.nn.Linear(2, 2)
    try:
        content = load_checkpoint(model, 'odd.pth')
    except pickle.UnpicklingError:  # classic MMEngine's, on torch from 2.6
        return 'refused'
    return [repr(content['note']), model.weight.tolist()]

without = load()
before = state()
for name in 'mmfishnet', 'mmfishnet.checkpoints', 'mmfishnet.models.convert':
    importlib.import_module(name)
after = state()
print(json.dumps([without, load(), sorted(
    k for k in {*before, *after} if before.get(k) != after.get(k))]))
"""


def test_importing_changes_nothing(tmp_path, monkeypatch):
    """Neither MMEngine's loaders, torch, pickle, nor what an odd file gives:
    a class of another project is looked up, as MMEngine does."""
    (tmp_path / 'theirs.py').write_text(
        'class Note:\n    def __repr__(self):\n        return "Note"\n')
    monkeypatch.syspath_prepend(tmp_path)
    note = importlib.import_module('theirs').Note()
    torch.save(dict(state_dict=nn.Linear(2, 2).state_dict(), note=note),
               tmp_path / 'odd.pth')
    done = subprocess.run(
        [sys.executable, '-c', SNAPSHOT], check=True, cwd=tmp_path, text=True,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(
            filter(None, sys.path))), stdout=subprocess.PIPE)
    without, with_us, changed = json.loads(done.stdout.splitlines()[-1])
    assert with_us == without
    assert without == 'refused' or without[0] == 'Note'
    # A scheme of our own joins MMEngine's, in a new dict.
    assert changed == ['loader._schemes', 'loader.schemes.mmfishnet://']


def test_loading_by_name_is_torchs_and_mmengines_matter(tmp_path, caplog):
    """What is missing or superfluous is told, as for any other model."""
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    model = FishNet(TINY)
    state = dict(FishNet(TINY).state_dict(), more=torch.ones(1))
    del state['stem.3.weight']
    found = model.load_state_dict(state, strict=False)
    assert found.missing_keys == ['stem.3.weight']
    assert found.unexpected_keys == ['more']
    state['stem.0.weight'] = torch.ones(8, 1, 3, 3)
    torch.save(state, tmp_path / 'file.pth')
    logger.setLevel('INFO')
    load_checkpoint(model, str(tmp_path / 'file.pth'), logger=logger)
    logger.removeHandler(caplog.handler)
    assert 'size mismatch for stem.0.weight' in caplog.text
    assert 'missing keys in source state_dict: stem.3.weight' in caplog.text
    assert torch.equal(model.stem[6].weight, state['stem.6.weight'])
    with pytest.raises(RuntimeError, match='stem.3.weight'):
        load_checkpoint(model, str(tmp_path / 'file.pth'), strict=True)


class Detector(nn.Module):
    """A backbone and heads."""

    def __init__(self, classes):
        super().__init__()
        self.backbone = FishNet(TINY)
        self.head = nn.Linear(2, classes)
        self.auxiliary_head = nn.Linear(2, 2)
        self.register_buffer('anchors', torch.ones(3))


def test_all_of_a_model_has_to_fit():
    model, state = Detector(3), Detector(3).state_dict()
    # What only a training needs, or what says what it is, may be missing.
    for key in 'auxiliary_head.weight', 'auxiliary_head.bias', 'anchors':
        del state[key]
    check_fit(nn.DataParallel(model), dict(state_dict=state), heads=True)
    assert torch.equal(model.head.weight, state['head.weight'])
    check_fit(model, Detector(4).state_dict())  # a training may start so
    for found, message in (
        (Detector(4).state_dict(), r'file.pth does not fit the model, Detector'
         r": 2 tensors have another shape: 'head.weight \(4, 2\), not "
         r"\(3, 2\)', 'head.bias"),
        ({k: v for k, v in state.items() if k != 'head.bias'},
         r"1 of \d+ tensors are missing: 'head.bias")):
        with pytest.raises(CheckpointError, match=message):
            check_fit(model, found, 'file.pth', heads=True)


# With safe loading ----------------------------------------------------------


@pytest.fixture
def safe(plain):
    use_safe_loading()


def test_whole_classifier(files, safe):
    for name in FORMATS:
        model = build_classifier(99)
        load_checkpoint(model, files[name], strict=True)
        assert holds(model, files)
    model = build_classifier(99, init_cfg=pretrained(files['official']))
    model.init_weights()
    assert holds(model, files)
    # Of other classes.
    model = build_classifier(99, head=dict(num_classes=10))
    head = model.head.fc.weight.clone()
    load_checkpoint(model, files['official'])
    assert holds(model.backbone, files, 'backbone.')
    assert holds(model.neck, files, 'neck.')
    assert torch.equal(model.head.fc.weight, head)


@pytest.mark.parametrize('key, prefix', [
    ('model', '_orig_mod.'), ('model', 'model.'), ('model', 'module.'),
    ('state_dict', 'module.')])
def test_wrapped_whole_model(key, prefix, safe, tmp_path):
    own = {**named(FishNet(TINY), 'backbone.'), 'neck.weight': torch.ones(1)}
    torch.save({key: {prefix + name: value for name, value in own.items()},
                'epoch': 3}, tmp_path / 'file.pth')
    content = CheckpointLoader.load_checkpoint(str(tmp_path / 'file.pth'))
    assert list(content['state_dict']) == list(own)


def test_whatever_is_loaded_runs_no_code(tmp_path, safe):
    path = str(tmp_path / 'file.pth')
    torch.save(Malicious(os.mkdir, str(tmp_path / 'made')), path)
    with pytest.raises(CheckpointError, match='holds more than weights'):
        CheckpointLoader.load_checkpoint(path)
    with pytest.raises(CheckpointError, match='holds more than weights'):
        FishNet(TINY, init_cfg=pretrained(path)).init_weights()
    assert not (tmp_path / 'made').exists()


def test_others_come_as_they_are(files, tmp_path, safe):
    """Other models, a run's own checkpoints, and what holds two FishNets or
    one below something else: whoever wrote that resumes from it."""
    official = torch.load(files['official'])['state_dict']
    parts = [{**named(FishNet(TINY), f'{name}.backbone.'), f'{name}.x':
              torch.ones(1)} for name in ('student', 'detector')]
    parts.append({f'student.{k[7:]}': v for k, v in official.items()}
                 | {'teacher.x': torch.ones(1)})
    two = {**named(FishNet(TINY), 'teacher.backbone.'),
           **named(FishNet(TINY), 'student.backbone.')}
    own = named(FishNet(TINY), 'backbone.')
    own._metadata = dict(backbone=dict(version=1))
    for state in resnet18().state_dict(), two, own, *parts:
        content = dict(state_dict=state, meta=dict(epoch=3), optimizer={})
        torch.save(content, tmp_path / 'file.pth')
        loaded = CheckpointLoader.load_checkpoint(str(tmp_path / 'file.pth'))
        assert loaded.keys() == content.keys()
        found = loaded['state_dict']
        assert list(found) == list(state)
        assert getattr(found, '_metadata', 0) == getattr(
            state, '_metadata', 0)
        assert all(torch.equal(found[k], state[k]) for k in state)

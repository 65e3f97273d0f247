# Copyright (c) mmfishnet authors. All rights reserved.
"""Configs of other projects that inherit from ours."""
import json
import pickle
import runpy
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
from mmengine.config import Config

import mmfishnet

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
NAMES = sorted(
    path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob('*.py')
    if find_spec('mmseg') or 'mmseg::' not in path.read_text())


# The form with config_path() is tried in tests/test_packaging.py and
# tests/test_downstream.py, and that the path is right below.
TEXT = "_base_ = 'mmfishnet::{}'\n"
PURE = """
from mmengine.config import read_base
with read_base():
    from mmfishnet.configs.{} import *
"""

OVERRIDES = {
    'text':
    TEXT.format('mask_rcnn_fishnet150_fpn.py') + """
model = dict(
    backbone=dict(depth=99),
    roi_head=dict(
        bbox_head=dict(num_classes=3), mask_head=dict(num_classes=3)))
train_dataloader = dict(
    batch_size=2,
    dataset=dict(data_root='data/mine/', metainfo=dict(classes=tuple('abc'))))
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(milestones=[8, 11])
work_dir = 'runs'
""",
    'pure':
    PURE.format('mask_rcnn_fishnet150_fpn') + """
model.update(backbone=dict(depth=99))
model.roi_head.bbox_head.num_classes = 3
model['roi_head']['mask_head']['num_classes'] = 3
train_dataloader.batch_size = 2
train_dataloader.dataset.update(
    data_root='data/mine/', metainfo=dict(classes=tuple('abc')))
param_scheduler[1].milestones = [8, 11]
work_dir = 'runs'
"""
}

# MMEngine reads all of MMDetection's metafiles for each 'mmdet::', so they
# are kept here.
PARSE = """
import functools, pickle, sys
import mmfishnet
from mmengine.config import Config, utils
utils.load = functools.lru_cache(maxsize=None)(utils.load)
parsed = {file: Config.fromfile(file).to_dict() for file in sys.argv[2:]}
with open(sys.argv[1], 'wb') as file:
    pickle.dump(dict(origin=mmfishnet.__file__, parsed=parsed), file)
"""


@pytest.fixture(scope='module')
def parsed(checkout, project_python, project_environ, tmp_path_factory):
    """What pure-Python configs over ours, and overrides in both forms, come to
    where mmfishnet is installed from a wheel; by ('itself', name) the
    sources."""
    folder = tmp_path_factory.mktemp('inherit')
    texts = {name: PURE.format(
        name[:-len('.py')].replace('-', '_').replace('/', '.'))
        for name in NAMES} | OVERRIDES
    files = {('itself', name): checkout / 'configs' / name for name in NAMES}
    for number, (key, text) in enumerate(texts.items()):
        files[key] = folder / f'{number}.py'
        files[key].write_text(text)
    subprocess.run(
        [project_python, '-c', PARSE, folder / 'result', *files.values()],
        check=True, cwd=folder, env=project_environ)
    result = pickle.loads((folder / 'result').read_bytes())
    assert result['origin'].startswith(str(project_python.parents[1]))
    return {key: result['parsed'][str(file)] for key, file in files.items()}


@pytest.mark.parametrize('name', NAMES)
def test_every_module_is_the_config_itself(parsed, name):
    itself = parsed['itself', name]
    assert itself and parsed[name] == itself
    assert Path(mmfishnet.config_path(name)).samefile(CONFIGS / name)


def test_overrides(parsed):
    pure = parsed['pure']
    assert parsed['text'] == pure
    itself = parsed['mask_rcnn_fishnet150_fpn.py']
    assert pure['model']['backbone'] == {
        **itself['model']['backbone'], 'depth': 99
    }
    for head in ('bbox_head', 'mask_head'):
        assert pure['model']['roi_head'][head] == {
            **itself['model']['roi_head'][head], 'num_classes': 3
        }
    assert pure['train_dataloader']['batch_size'] == 2
    assert pure['train_dataloader']['dataset']['data_root'] == 'data/mine/'
    assert pure['param_scheduler'][1]['milestones'] == [8, 11]
    unchanged = {
        key
        for key in itself if itself[key] == pure[key]
    }
    assert set(itself) - unchanged == {
        'model', 'train_dataloader', 'param_scheduler'
    }


# ---- here, where it may be an editable install -----------------------------
def test_chain_across_projects_and_formats(tmp_path):
    """A config over a relative one, that over JSON, that over ours."""
    (tmp_path / 'sub').mkdir()
    (tmp_path / 'a.json').write_text(json.dumps(dict(
        _base_=['mmfishnet::_base_/backbones/fishnet99.py'],
        backbone=dict(frozen_stages=1))))
    (tmp_path / 'b.py').write_text(
        "_base_ = ['./a.json', 'mmdet::_base_/default_runtime.py']\n")
    (tmp_path / 'sub/c.py').write_text(
        "_base_ = '../b.py'\nneck = dict(in_channels={{_base_."
        'backbone_channels}})\n')
    cfg = Config.fromfile(tmp_path / 'sub/c.py')
    ours = Config.fromfile(CONFIGS / '_base_/backbones/fishnet99.py')
    assert cfg.backbone == {**ours.backbone, 'frozen_stages': 1}
    assert cfg.neck.in_channels == ours.backbone_channels
    # MMEngine's own lookup does the rest, with its scope.
    assert cfg.default_scope == 'mmdet'
    path, scope = Config._get_cfg_path('mmdet::_base_/default_runtime.py', '')
    assert Path(path).is_file() and scope == 'mmdet'
    assert Config._get_cfg_path('./a.py', '/b/c.py') == ('/b/./a.py', None)


@pytest.mark.parametrize('name, near', [
    ('mask_rcnn_fishnet150_fpn', 'mask_rcnn_fishnet150_fpn.py'),
    ('mask-rcnn_fishnet-150_fpn.py', 'mask_rcnn_fishnet150_fpn.py'),
    ('fishnet99_8xb32_in1k.py', 'classification/fishnet99_8xb32_in1k.py'),
    ('../configs/faster_rcnn_r50_fpn.py', 'faster_rcnn_r50_fpn.py'),
    ('', 'faster_rcnn_fishnet150_fpn.py'),
])
def test_wrong_name(name, near, tmp_path):
    message = rf'no config {name!r}.*\b{near}'
    with pytest.raises(FileNotFoundError, match=message):
        mmfishnet.config_path(name)
    (tmp_path / 'a.py').write_text(f"_base_ = ['mmfishnet::{name}']")
    with pytest.raises(FileNotFoundError, match=message):
        Config.fromfile(tmp_path / 'a.py')


def test_checkout_that_is_not_installed(checkout, monkeypatch):
    """A new config can be inherited at once."""
    monkeypatch.setattr(Config, '_get_cfg_path', Config._get_cfg_path)
    config = runpy.run_path(str(checkout / 'mmfishnet/config.py'))
    new = checkout / 'configs/new.py'
    new.write_text('a = 1\n')
    try:
        assert Config.fromfile(config['config_path']('new.py')).a == 1
    finally:
        new.unlink()

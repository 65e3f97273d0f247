# Copyright (c) mmfishnet authors. All rights reserved.
from argparse import ArgumentParser

import pytest

from mmfishnet.engine.arguments import (
    add_common_arguments,
    load_config,
    read_config,
)


def load(tmp_path, cfg, *args):
    config = tmp_path / 'config.py'
    cfg.dump(config)
    parser = ArgumentParser()
    parser.add_argument('config')
    add_common_arguments(parser)
    return load_config(parser.parse_args([str(config), *args]))


def test_a_config_that_is_not_there(detection, tmp_path):
    detection.dump(tmp_path / 'cells.py')
    parser = ArgumentParser()
    parser.add_argument('config')
    add_common_arguments(parser)
    args = parser.parse_args([str(tmp_path / 'cell.py')])
    with pytest.raises(FileNotFoundError, match="cell.py.*mean 'cells.py'"):
        load_config(args)


def test_environment_variable_and_argument(detection, tmp_path, monkeypatch):
    env, arg = tmp_path / 'env', tmp_path / 'arg'
    env.mkdir()
    arg.mkdir()
    monkeypatch.setenv('MMDET_DATASETS', str(env))
    cfg, notes = load(tmp_path, detection)
    assert cfg.test_evaluator[0].ann_file.startswith(f'{env}/')
    assert 'MMDET_DATASETS' in notes[0]
    cfg, _ = load(tmp_path, detection, '--data-root', str(arg))
    assert cfg.test_evaluator[0].ann_file.startswith(f'{arg}/')
    monkeypatch.setenv('MMDET_DATASETS', str(tmp_path / 'nowhere'))
    with pytest.raises(FileNotFoundError, match='MMDET_DATASETS.*nowhere'):
        load(tmp_path, detection)
    # It is MMDetection's variable, and says nothing about ImageNet.
    detection.default_scope = 'mmpretrain'
    cfg, _ = load(tmp_path, detection)
    assert cfg.data_root == 'data/coco/'


def test_work_dir_and_loaders(detection, tmp_path):
    cfg, _ = load(tmp_path, detection, '--cfg-options',
                  'val_dataloader.num_workers=0')
    assert cfg.work_dir == './work_dirs/config'
    # torch refuses persistent workers where there are none.
    assert not cfg.val_dataloader.persistent_workers
    assert cfg.train_dataloader.persistent_workers
    detection.work_dir = 'of the config'
    assert load(tmp_path, detection)[0].work_dir == 'of the config'
    cfg, _ = load(tmp_path, detection, '--work-dir', 'of the user')
    assert cfg.work_dir == 'of the user'
    assert 'collate_fn' not in cfg.train_dataloader
    detection.default_scope = 'mmpretrain'
    cfg, _ = load(tmp_path, detection)
    assert cfg.train_dataloader.collate_fn.type == 'default_collate'


@pytest.mark.parametrize('text, words', [
    ('x = 1\nmodel = dict(\n', 'SyntaxError'),
    ('x = 1\ny = {}["key"]\n', "line 2 .*KeyError: 'key'"),
    ('x = 1\ny = z\n', "line 2 .*'z' is not defined"),
    ('assert False, "my words"\n', 'line 1 .*my words'),
    ('custom_imports = dict(imports=["not_there"])\n', 'not_there'),
])
def test_configs_that_cannot_be_read(tmp_path, text, words):
    (tmp_path / 'c.py').write_text(text)
    with pytest.raises(ValueError, match=f'c.py.*{words}'):
        read_config(str(tmp_path / 'c.py'))

# Copyright (c) mmfishnet authors. All rights reserved.
import os
from argparse import ArgumentParser
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.model import BaseModel
from mmengine.registry import MODELS, init_default_scope
from torch import nn

import mmfishnet  # noqa: F401
from mmfishnet.engine import runner

no_gpu = pytest.mark.skipif(get_device() != 'cpu', reason='there is a GPU')


def coco(folder, **dataset):
    """A COCO config as MMDetection's bases build it."""
    root = 'data/coco/'
    loader = dict(
        num_workers=2,
        persistent_workers=True,
        dataset=dict(
            type='CocoDataset',
            data_root=root,
            ann_file=f'annotations/{folder}.json',
            data_prefix=dict(img=f'{folder}/'),
            **dataset))
    evaluator = dict(
        type='CocoMetric',
        ann_file=f'{root}annotations/{folder}.json',
        outfile_prefix=f'{root}results/{folder}')
    return root, loader, evaluator


@pytest.fixture
def detection():
    root, loader, evaluator = coco('val2017')
    return Config(
        dict(
            default_scope='mmdet',
            data_root=root,
            train_dataloader=loader,
            val_dataloader=loader,
            test_dataloader=loader,
            val_evaluator=evaluator,
            test_evaluator=[evaluator]))


# Data -----------------------------------------------------------------------


def test_data_root_of_all_data_sets_and_evaluators(detection, tmp_path):
    inner = detection.train_dataloader.dataset
    detection.train_dataloader.dataset = dict(
        type='MultiImageMixDataset',
        dataset=dict(
            type='ConcatDataset',
            datasets=[
                inner,
                dict(
                    type='ClassBalancedDataset',
                    dataset={
                        **inner, 'ann_file': 'data/coco/extra.json',
                        'data_prefix': {
                            'img': 'data/coco-like/img',
                            'seg': './data/coco'
                        }
                    })
            ]))
    new = str(tmp_path)
    runner.set_data_root(detection, new)

    mixed = detection.train_dataloader.dataset.dataset.datasets
    assert mixed[0].data_root == new + '/'
    assert mixed[0].ann_file == 'annotations/val2017.json'
    balanced = mixed[1].dataset
    assert balanced.data_root == new + '/'
    assert balanced.ann_file == f'{new}/extra.json'
    assert balanced.data_prefix == dict(img='data/coco-like/img', seg=new)
    for loader in ('val_dataloader', 'test_dataloader'):
        assert detection[loader].dataset.data_root == new + '/'
    for evaluator in (detection.val_evaluator, detection.test_evaluator[0]):
        assert evaluator.ann_file == f'{new}/annotations/val2017.json'
        assert evaluator.outfile_prefix == 'data/coco/results/val2017'
    assert detection.data_root == new + '/'


def test_several_data_roots_keep_their_layout(detection, tmp_path):
    detection.train_dataloader.dataset.data_root = 'data/lvis_v1/'
    runner.set_data_root(detection, str(tmp_path))
    assert detection.train_dataloader.dataset.data_root == \
        f'{tmp_path}/lvis_v1/'
    assert detection.val_dataloader.dataset.data_root == f'{tmp_path}/coco/'
    assert detection.val_evaluator.ann_file == \
        f'{tmp_path}/coco/annotations/val2017.json'


@pytest.mark.parametrize('root', ['lvis', '/lvis'])
def test_data_roots_with_nothing_in_common(detection, tmp_path, root):
    detection.train_dataloader.dataset.data_root = root
    with pytest.raises(ValueError, match=f'(?s){root}.*--cfg-options'):
        runner.set_data_root(detection, str(tmp_path))


def test_data_root_must_exist(detection, tmp_path):
    with pytest.raises(FileNotFoundError, match='--data-root.*nowhere'):
        runner.set_data_root(detection, str(tmp_path / 'nowhere'))


def test_config_without_data_root(tmp_path):
    with pytest.raises(ValueError, match='has a data_root'):
        runner.set_data_root(Config(dict()), str(tmp_path))


def load(tmp_path, cfg, *args):
    config = tmp_path / 'config.py'
    cfg.dump(config)
    parser = ArgumentParser()
    parser.add_argument('config')
    runner.add_common_arguments(parser)
    return runner.load_config(parser.parse_args([str(config), *args]))


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


# Training -------------------------------------------------------------------


@no_gpu
def test_amp_and_scaling(detection):
    detection.optim_wrapper = dict(type='OptimWrapper')
    assert 'float32' in runner.enable_amp(detection)
    assert detection.optim_wrapper == dict(type='OptimWrapper')
    detection.optim_wrapper.type = 'ApexOptimWrapper'
    with pytest.raises(ValueError, match='ApexOptimWrapper'):
        runner.enable_amp(detection)

    with pytest.raises(ValueError, match='auto_scale_lr.base_batch_size'):
        runner.enable_auto_scale_lr(detection)
    detection.auto_scale_lr = dict(base_batch_size=16)
    runner.enable_auto_scale_lr(detection)
    assert detection.auto_scale_lr.enable


def test_from_scratch_builds_a_trainable_backbone():
    pytest.importorskip('mmdet')
    init_default_scope('mmdet')
    cfg = Config(
        dict(
            model=dict(
                backbone=dict(
                    type='ResNet',
                    depth=18,
                    frozen_stages=1,
                    norm_cfg=dict(type='BN', requires_grad=False),
                    norm_eval=True,
                    init_cfg=dict(type='Pretrained', checkpoint='no.pth')))))
    note = runner.train_from_scratch(cfg)
    assert 'group norm' in note
    backbone = MODELS.build(cfg.model.backbone)
    backbone.init_weights()
    backbone.train()
    norms = [m for m in backbone.modules() if isinstance(m, nn.GroupNorm)]
    assert len(norms) == 20
    assert not any(
        isinstance(m, nn.BatchNorm2d) for m in backbone.modules())
    assert all(p.requires_grad for p in backbone.parameters())


def test_from_scratch_keeps_norms_that_are_trained():
    norm = dict(type='BN', requires_grad=True)
    cfg = Config(dict(model=dict(backbone=dict(norm_cfg=norm))))
    assert 'group norm' not in runner.train_from_scratch(cfg)
    assert cfg.model.backbone.norm_cfg == norm
    with pytest.raises(ValueError, match='backbone'):
        runner.train_from_scratch(Config(dict(model=dict())))


def test_norms_of_another_kind_are_not_loaded():
    class Model(BaseModel):

        def __init__(self, norm):
            super().__init__()
            self.norm = norm

        def forward(self, *args):
            raise NotImplementedError

    batch, group = Model(nn.BatchNorm2d(4)), Model(nn.GroupNorm(2, 4))
    check = runner._NormCheckHook().after_load_checkpoint
    # As DataParallel saved it, and as a plain state dict.
    check(
        SimpleNamespace(model=batch),
        dict(state_dict={
            f'module.{k}': v
            for k, v in batch.state_dict().items()
        }))
    check(SimpleNamespace(model=group), group.state_dict())
    with pytest.raises(ValueError, match='batch norm norm:.*--from-scratch'):
        check(
            SimpleNamespace(model=batch),
            dict(state_dict=group.state_dict()))


def save(path, age=0):
    torch.save(dict(state_dict=torch.rand(1000)), path)
    os.utime(path, (1e9 - age, 1e9 - age))


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[:len(content) // 2])
    os.utime(path, (2e9, 2e9))


def test_resume_finds_the_latest_complete_checkpoint(tmp_path):
    cfg = Config(dict(work_dir=str(tmp_path), load_from='coco.pth'))
    # The first start of a job that always says --resume.
    checkpoint, notes = runner.set_resume(cfg, 'auto')
    assert (checkpoint, cfg.resume, cfg.load_from) == (None, False, 'coco.pth')
    assert 'from the beginning' in notes[0]

    one, two, three = (tmp_path / f'epoch_{i}.pth' for i in (1, 2, 3))
    save(one, age=2)
    save(two, age=1)
    (tmp_path / 'last_checkpoint').write_text(str(two))
    checkpoint, notes = runner.set_resume(cfg, 'auto')
    assert (checkpoint, notes) == (str(two), [])
    # MMEngine finds the same.
    assert (cfg.resume, cfg.load_from) == (True, None)

    # Killed while saving the third.
    save(three)
    cut(three)
    assert runner.find_checkpoint(str(tmp_path)) == (str(two), [])

    # The second was removed before that.
    two.unlink()
    checkpoint, notes = runner.set_resume(cfg, 'auto')
    assert checkpoint == cfg.load_from == str(one)
    assert [n for n in notes if str(two) in n and 'not exist' in n]
    assert [n for n in notes if str(three) in n and 'cut short' in n]

    # Nothing is left.
    one.unlink()
    (tmp_path / 'last_checkpoint').write_text('')
    save(tmp_path / 'best_coco_bbox_mAP_epoch_1.pth')
    assert runner.find_checkpoint(str(tmp_path))[0] is None


def test_resume_as_the_config_says(tmp_path):
    cfg = Config(dict(work_dir=str(tmp_path), load_from='coco.pth'))
    assert runner.set_resume(cfg, None) == (None, [])
    assert 'resume' not in cfg
    cfg.resume = True
    assert runner.set_resume(cfg, None) == ('coco.pth', [])
    assert runner.set_resume(cfg, 'mine.pth') == ('mine.pth', [])
    assert cfg.load_from == 'mine.pth'


def test_damaged_checkpoints_are_refused(tmp_path):
    path = tmp_path / 'a.pth'
    with pytest.raises(FileNotFoundError, match=r'a\.pth'):
        runner.check_checkpoint(str(path))
    runner.check_checkpoint('https://host/a.pth')
    save(path)
    runner.check_checkpoint(str(path))
    content = path.read_bytes()
    for damaged in (content[:-100], b'', content.replace(
            content[2000:2100], bytes(100))):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match='damaged or cut short'):
            runner.check_checkpoint(str(path))
    torch.save(
        dict(state_dict={}), path, _use_new_zipfile_serialization=False)
    runner.check_checkpoint(str(path))


# Testing --------------------------------------------------------------------


def test_scopes_without_a_default(detection):
    detection.default_scope = 'mmseg'
    with pytest.raises(ValueError, match='default_hooks.visualization'):
        runner.enable_visualization(detection, True, None, 0)
    detection.default_hooks = dict(visualization=dict(type='Hook'))
    with pytest.raises(ValueError, match='mmseg'):
        runner.enable_visualization(detection, True, None, 0)
    with pytest.raises(ValueError, match='mmseg'):
        runner.enable_tta(detection)


def test_tta_of_the_config_is_used(detection):
    pipeline = [dict(type='LoadImageFromFile')]
    detection.test_dataloader.dataset = dict(
        type='RepeatDataset', dataset=detection.test_dataloader.dataset)
    detection.test_dataloader.dataset.dataset.pipeline = [dict(type='Old')]
    detection.tta_model = dict(type='Mine')
    detection.tta_pipeline = pipeline
    detection.model = dict(type='Detector')
    assert runner.enable_tta(detection) is None
    assert detection.model == dict(type='Mine', module=dict(type='Detector'))
    assert detection.test_dataloader.dataset.dataset.pipeline == pipeline


# Running --------------------------------------------------------------------


@no_gpu
def test_sync_bn_without_gpu():
    cfg = Config(
        dict(
            sync_bn='torch',
            find_unused_parameters=True,
            model=dict(
                backbone=dict(norm_cfg=dict(type='SyncBN')),
                heads=[dict(norm_cfg=dict(type='SyncBN'))])))
    assert 'SyncBN' in runner.adapt_to_cpu(cfg)
    assert cfg.model.backbone.norm_cfg.type == 'BN'
    assert cfg.model.heads[0].norm_cfg.type == 'BN'
    assert 'sync_bn' not in cfg
    assert cfg.model_wrapper_cfg.device_ids is None
    assert cfg.model_wrapper_cfg.find_unused_parameters
    assert runner.adapt_to_cpu(cfg) is None

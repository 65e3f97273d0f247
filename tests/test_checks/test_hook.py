# Copyright (c) mmfishnet authors. All rights reserved.
"""The hook, before a run: what it refuses, and what it leaves alone."""
import logging
import random

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS, TRANSFORMS
from mmengine.runner import Runner

from mmfishnet.checks import CheckError, CheckHook, check_config, checked

from .conftest import FPN, RETINA, expect


@MODELS.register_module(force=True)
class Nothing(BaseModel):
    """A model whose steps are counted, and its first weights."""
    steps = 0

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def init_weights(self):
        Nothing.steps += 1

    def forward(self, inputs, data_samples=None, mode='tensor'):
        Nothing.steps += 1
        return dict(loss=self.weight.sum())


def runner_of(coco, kind=Runner):
    coco.write()
    return kind.from_cfg(Config({**dict(
        model=dict(type='Nothing'), val_cfg={}, log_level='ERROR',
        work_dir=str(coco.root / 'work'), experiment_name=coco.root.name,
        randomness=dict(seed=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1))), **coco.cfg}))


@TRANSFORMS.register_module(force=True)
class Draw:
    """A transform that draws."""

    def __call__(self, results):
        Draw.last = random.random(), np.random.rand(), torch.rand(1).item()
        return results


def test_hook(coco, monkeypatch):
    """It looks when all is built, changes nothing, and the run goes on."""
    seen, said = [], []

    class Look(Hook):
        def before_train(self, runner):
            Draw()(seen.append(Draw.last))
            seen[-1] += Draw.last

    for loader in ('train_dataloader', 'val_dataloader'):
        coco.cfg[loader]['dataset']['pipeline'].insert(0, dict(type='Draw'))
    coco.cfg['param_scheduler'] = [dict(
        type='CosineAnnealingLR', T_max=1, by_epoch=False)]
    for check in (True, False):
        Draw.last = ()
        runner = runner_of(coco)
        runner.register_hook(Look())
        monkeypatch.setattr(runner.logger, 'log', lambda level, text, *args,
                            check=check: said.append((check, level, text)))
        before = Nothing.steps
        with checked(runner, ('train', 'val'), check):
            runner.train()
        assert Nothing.steps == before + 3
    assert seen[0][-3:] == seen[1][-3:]
    assert len(seen[0]) == 6 and len(seen[1]) == 3  # the check drew
    # Warnings and notes go to the log.
    assert [(check, level) for words in ('rises again', 'files looked for')
            for check, level, text in said if words in str(text)] == [
        (True, logging.WARNING), (True, logging.INFO), (True, logging.INFO)]


@pytest.mark.parametrize('change, words', [
    (lambda c: c.val['images'][0].update(width=65), '11.jpg has 64x48'),
    (lambda c: c.train['annotations'][3].pop('area'), 'no area'),  # KeyError
    (lambda c: c.cfg['val_evaluator'].update(ann_file='gone'), 'gone'),
    (lambda c: c.cfg.update(param_scheduler=[dict(
        type='OneCycleLR', eta_max=1, total_steps=1, by_epoch=False)],
        train_dataloader=dict(c.cfg['train_dataloader'], batch_size=1)),
     'OneCycleLR.*would stop'),
    (lambda c: c.cfg.update(default_hooks=dict(checkpoint=dict(
        type='CheckpointHook', save_best='coco/segm_mAPs', rule='greater'))),
     'segm_mAPs.*coco/bbox_mAP'),
    (lambda c: c.cfg.update(default_hooks=dict(checkpoint=dict(
        type='CheckpointHook', interval='1', intervall=2))),
     "(?s)interval: it is '1'.*intervall .*'interval'"),
    (lambda c: c.cfg['train_cfg'].update(val_interval=0, val_begin=1),
     'val_interval: it is 0'),
    (lambda c: c.cfg.update(optim_wrapper=dict(
        type='AmpOptimWrapper', optimizer=dict(type='SGD', lr=1))),
     'AmpOptimWrapper.*GPU'),
    (lambda c: c.cfg.update(model=dict(
        RETINA, neck=dict(FPN, in_channels=[64, 128, 256, 64]),
        bbox_head=dict(RETINA['bbox_head'], num_classes=2))),
     r'(?s)bbox_head.num_classes: it is 2.*in_channels: it is \[64, 128, 256, '
     r'64\]'),  # all problems at once
])
def test_nothing_is_started(coco, monkeypatch, change, words):
    """Neither where it is built, nor where it cannot be; nor weights made."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    change(coco)
    before = Nothing.steps
    runner = runner_of(coco)
    with pytest.raises(CheckError, match=words), \
            checked(runner, ('train', 'val')):
        runner.train()
    assert Nothing.steps == before


@pytest.mark.parametrize('change', [
    dict(train_cfg=dict(val_interval=0, val_begin=1), val_cfg=None,
         val_dataloader=None, val_evaluator=None),
    dict(train_cfg=dict(val_interval=0, val_begin=2)),
    dict(train_cfg=dict(val_begin=2), default_hooks=dict(checkpoint=dict(
        type='CheckpointHook', interval=-1, save_last=False, intervall=2)))])
def test_upstream_trains_it(coco, change):
    """With the check and without: what would stop a run is never read."""
    coco.cfg['train_cfg'].update(change.pop('train_cfg'))
    coco.cfg.update(change)
    for check in (True, False):
        runner = runner_of(coco)
        with checked(runner, ('train', 'val'), check):
            runner.train()
        assert runner.epoch == 1


def test_arguments_of_a_runner_of_ones_own(coco):
    """What it saves with is its own affair."""
    class Own(Runner):
        def save_checkpoint(self, *args, more, **kwargs):
            super().save_checkpoint(*args, **kwargs)
            Own.more = more

    coco.cfg['train_cfg'].update(val_begin=2)
    coco.cfg['default_hooks'] = dict(
        checkpoint=dict(type='CheckpointHook', more=3))
    runner = runner_of(coco, Own)
    with checked(runner, ('train', 'val')):
        runner.train()
    assert Own.more == 3


def test_upstreams_errors(coco):
    """They stay without the check, and where they have another cause."""
    coco.train['annotations'][3].pop('area')
    runner = runner_of(coco)
    with pytest.raises(KeyError, match='area'), \
            checked(runner, ('train', 'val'), check=False):
        runner.train()
    coco.train['annotations'][3]['area'] = 192
    coco.cfg['train_cfg'] = dict(type='NoSuchLoop')
    runner = runner_of(coco)
    with pytest.raises(KeyError, match='NoSuchLoop'), \
            checked(runner, ('train', 'val')):
        runner.train()


def test_other_processes(coco, monkeypatch):
    """They check nothing, and end as the first does."""
    module = 'mmfishnet.checks.hook'
    monkeypatch.setattr(f'{module}.is_main_process', lambda: False)
    monkeypatch.setattr(f'{module}.check_runner', None)

    def receive(found):
        expect_nothing, = found
        assert expect_nothing is None
        found[0] = check_config(dict(
            default_scope='mmdet', train_dataloader=dict(dataset=dict(
                type='CocoDataset', ann_file='none'))), ('train', ))

    monkeypatch.setattr(f'{module}.broadcast_object_list', receive)
    with pytest.raises(CheckError, match='none'):
        CheckHook(('train', )).before_run(None)


def test_a_metric_for_each_of_two_sets(coco):
    coco.write()
    val = coco.cfg['val_dataloader']['dataset']
    train = coco.cfg['train_dataloader']['dataset']
    coco.cfg['val_dataloader']['dataset'] = dict(
        type='ConcatDataset', datasets=[val, dict(train, test_mode=True)])
    metric = coco.cfg['val_evaluator']
    coco.cfg['val_evaluator'] = dict(
        type='MultiDatasetsEvaluator', dataset_prefixes=['a', 'b'],
        metrics=[metric, dict(metric, ann_file=str(coco.root / 'train.json'))])
    found = check_config(coco.cfg)
    assert {p.level for p in found} == {'note'}
    coco.cfg['val_evaluator']['metrics'].reverse()
    expect(check_config(coco.cfg), 'error', ['val_evaluator.ann_file'])


@pytest.mark.parametrize('name, more', [
    ('Mosaic', dict(img_scale=(32, 32))), ('MixUp', dict(img_scale=(32, 32))),
    ('RandomAffine', {}), ('RandomCenterCropPad', dict(
        crop_size=(32, 32), ratios=(1.,), mean=[0] * 3, std=[1] * 3,
        to_rgb=True, test_pad_mode=None))])
def test_boxes_move_and_masks_stay(coco, name, more):
    loader = coco.cfg['train_dataloader']
    loader['dataset']['pipeline'][0]['to_float32'] = True
    pack = loader['dataset']['pipeline'].pop()
    loader['dataset'] = dict(
        type='MultiImageMixDataset', dataset=loader['dataset'],
        pipeline=[dict(type=name, **more), pack])
    coco.write()
    expect(check_config(coco.cfg), 'error', [name, 'with_mask'])
    with pytest.raises((IndexError, NotImplementedError)):  # upstream's
        dataset = DATASETS.build(loader['dataset'])
        for i in range(40):
            dataset[i % 4]
    loader['dataset']['dataset']['pipeline'][1]['with_mask'] = False
    assert {p.level for p in check_config(coco.cfg)} == {'note'}

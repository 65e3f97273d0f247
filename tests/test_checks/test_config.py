# Copyright (c) mmfishnet authors. All rights reserved.
"""Configs that do not fit their data or themselves."""
import copy
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config, ConfigDict
from PIL import Image

from mmfishnet.checks import check_config, report
from mmfishnet.checks.model import (
    backbone_channels,
    check_channels,
    check_heads,
    find_heads,
)
from mmfishnet.checks.schedule import check_schedule, epoch_length
from mmfishnet.checks.sources import find_sources
from schedule import simulate

ROOT = Path(__file__).resolve().parents[2]


def _expect(found, level, words):
    lines = [str(p) for p in found if p.level == level]
    assert any(all(w in line for w in words) for line in lines), report(found)


# Heads ---------------------------------------------------------------------

RESNET = dict(type='ResNet', depth=18)
MODELS = {
    'faster rcnn': (dict(roi_head=dict(bbox_head=dict(
        type='Shared2FCBBoxHead', num_classes=80))),
        'model.roi_head.bbox_head.num_classes', 'is 80'),
    'its default': (dict(roi_head=dict(bbox_head=dict(
        type='Shared2FCBBoxHead'))), 'is 80 (its default)'),
    'fewer': (dict(roi_head=dict(bbox_head=dict(
        type='Shared2FCBBoxHead', num_classes=2))), 'is 2'),
    'mask head alone': (dict(roi_head=dict(
        bbox_head=dict(type='Shared2FCBBoxHead', num_classes=3),
        mask_head=dict(type='FCNMaskHead', num_classes=80))),
        'model.roi_head.mask_head.num_classes'),
    'cascade': (dict(roi_head=dict(bbox_head=[
        dict(type='Shared2FCBBoxHead', num_classes=n) for n in (3, 3, 80)])),
        'model.roi_head.bbox_head.2.num_classes'),
    'retinanet': (dict(bbox_head=dict(type='RetinaHead', num_classes=80,
                                      in_channels=256)),
                  'model.bbox_head.num_classes'),
    'dino': (dict(bbox_head=dict(type='DINOHead', num_classes=80)),
             'model.bbox_head.num_classes'),
    'point rend': (dict(roi_head=dict(point_head=dict(
        type='MaskPointHead', num_classes=80))), 'roi_head.point_head'),
    'mask2former': (dict(panoptic_head=dict(
        type='Mask2FormerHead', num_things_classes=80, num_stuff_classes=0)),
        'num_things_classes', 'is 80'),
    'stuff without stuff': (dict(panoptic_head=dict(
        type='Mask2FormerHead', num_things_classes=3, num_stuff_classes=53)),
        'num_stuff_classes', 'is 53', 'has 0'),
}


@pytest.fixture
def source():
    dataset = dict(type='CocoDataset',
                   metainfo=dict(classes=('ring', 'square', 'star')))
    cfg = dict(default_scope='mmdet', train_dataloader=dict(dataset=dataset))
    return next(find_sources(cfg))


@pytest.mark.parametrize('name', MODELS)
def test_heads(source, name):
    model, *words = MODELS[name]
    found = list(check_heads(model, source, source.good_classes, 'mmdet'))
    _expect(found, 'error', [*words, 'train_dataloader.dataset', "'ring'"])
    assert len(found) == 1  # the others are right


def test_heads_that_count_otherwise(source):
    model = dict(
        backbone=dict(type='VGG', num_classes=1000),
        rpn_head=dict(type='RPNHead', num_classes=1),
        roi_head=dict(
            bbox_head=dict(type='Shared2FCBBoxHead', num_classes=3),
            mask_head=dict(type='FCNMaskHead', class_agnostic=True),
            semantic_head=dict(type='FusedSemanticHead', num_classes=183)))
    assert not list(
        check_heads(model, source, source.good_classes, 'mmdet'))


def test_panoptic_heads():
    cfg = Config.fromfile(
        ROOT / 'configs/panoptic_fpn_fishnet150_fpn_1x_coco.py')
    source = next(find_sources(cfg))
    assert source.kind == 'panoptic'
    names = source.good_classes
    assert len(names) == 133
    assert not list(check_heads(cfg.model, source, names, 'mmdet'))
    assert {key.split('.')[-1] for key, _ in find_heads(cfg.model, 'mmdet')
            } >= {'bbox_head', 'mask_head', 'semantic_head',
                  'panoptic_fusion_head'}
    cfg.model.semantic_head.num_stuff_classes = 54
    cfg.model.roi_head.mask_head.num_classes = 133
    found = list(check_heads(cfg.model, source, names, 'mmdet'))
    _expect(found, 'error', ['semantic_head.num_stuff_classes', '54', '53'])
    _expect(found, 'error', ['mask_head.num_classes', '133', 'has 80'])


# Channels ------------------------------------------------------------------

FISHNET = dict(type='mmfishnet.FishNet', depth=99, out_indices=(0, 1, 2, 3))
WIDTHS = [320, 832, 1600, 2112]
CHANNELS = {
    'fpn': (dict(backbone=FISHNET, neck=dict(
        type='FPN', in_channels=[256, 512, 1024, 2048])),
        'model.neck.in_channels', str(WIDTHS)),
    'fewer outputs': (dict(backbone={**FISHNET, 'out_indices': (1, 2, 3)},
                           neck=dict(type='FPN', in_channels=WIDTHS)),
                      '[832, 1600, 2112]', 'out_indices'),
    'resnet': (dict(backbone=RESNET, neck=dict(
        type='FPN', in_channels=[256, 512, 1024, 2048])),
        '[64, 128, 256, 512]'),
    'list of necks': (dict(backbone=RESNET, neck=[dict(
        type='FPN', in_channels=[1, 2, 3, 4]), dict(type='BFP')]),
        'model.neck.0.in_channels'),
    'classifier': (dict(backbone={**FISHNET, 'out_indices': (3, )}, neck=dict(
        type='mmfishnet.FishNetScore', in_channels=2048)), '2112'),
    'pooling': (dict(backbone=RESNET, neck=dict(type='GlobalAveragePooling'),
                     head=dict(type='LinearClsHead', in_channels=2048)),
                'model.head.in_channels', '512'),
    'segmentation': (dict(backbone=FISHNET, decode_head=dict(
        type='FPNHead', in_channels=[256, 512, 1024, 2048],
        in_index=[0, 1, 2, 3])), 'model.decode_head.in_channels', '320'),
    'auxiliary': (dict(backbone=FISHNET, auxiliary_head=[dict(
        type='FCNHead', in_channels=1024, in_index=2)]),
        'model.auxiliary_head.0.in_channels', '1600'),
}


@pytest.mark.parametrize('name', CHANNELS)
def test_channels(name):
    model, *words = CHANNELS[name]
    _expect(list(check_channels(model, 'mmdet')), 'error', words)


def test_channels_read_otherwise():
    """Coarsest first, as YOLO's neck does; the last ones, as CLRNet's."""
    neck = dict(type='YOLOV3Neck', in_channels=WIDTHS[::-1])
    assert not list(check_channels(dict(backbone=FISHNET, neck=neck), 'mmdet'))
    neck = dict(type='CLRFPN', in_channels=WIDTHS[1:])
    _expect(list(check_channels(dict(backbone=FISHNET, neck=neck), 'mmdet')),
            'warning', ['[832, 1600, 2112]'])


def test_channels_of_unknown_backbones():
    model = dict(backbone=dict(type='Mine'),
                 neck=dict(type='FPN', in_channels=[1]))
    _expect(list(check_channels(model, 'mmdet')), 'note', ['Mine'])


@pytest.mark.parametrize('backbone, channels', [
    (FISHNET, WIDTHS),
    (dict(type='mmdet.HRNet', extra=dict(
        stage1=dict(num_modules=1, num_branches=1, block='BOTTLENECK',
                    num_blocks=(1, ), num_channels=(16, )),
        stage2=dict(num_modules=1, num_branches=2, block='BASIC',
                    num_blocks=(1, 1), num_channels=(8, 16)),
        stage3=dict(num_modules=1, num_branches=3, block='BASIC',
                    num_blocks=(1, ) * 3, num_channels=(8, 16, 32)),
        stage4=dict(num_modules=1, num_branches=4, block='BASIC',
                    num_blocks=(1, ) * 4, num_channels=(8, 16, 32, 64)))),
     [8, 16, 32, 64]),
])
def test_backbone_channels(backbone, channels):
    assert backbone_channels(backbone, 'mmdet') == channels


# Schedules -----------------------------------------------------------------

EPOCHS, LENGTH = 12, 10
# Scheduler, level (None where nothing is to say), words.
SCHEDULES = {
    'one cycle that ends early': (
        dict(type='OneCycleLR', eta_max=1, total_steps=6), 'error',
        ['total_steps=6', '12 epochs']),
    'one cycle in the wrong unit': (
        dict(type='OneCycleLR', eta_max=1, total_steps=12, by_epoch=False),
        'error', ['total_steps=12', '120 iterations']),
    'one cycle, half used': (
        dict(type='OneCycleLR', eta_max=1, total_steps=24), 'warning',
        ['24', '12 epochs']),
    'one cycle, then nothing': (
        dict(type='OneCycleLR', eta_max=1, total_steps=6, end=6), 'warning',
        ['ends at 6']),
    'one cycle': (
        dict(type='OneCycleLR', eta_max=1, total_steps=12,
             convert_to_iter_based=True), None, []),
    'one cycle without steps': (
        dict(type='OneCycleLR', eta_max=1, by_epoch=False), None, []),
    'pct_start of one': (
        dict(type='OneCycleLR', eta_max=1, pct_start=1), 'error', ['float']),
    'cosine that rises': (
        dict(type='CosineAnnealingLR', T_max=6), 'error',
        ['rises again after 6', 'param_scheduler.0.T_max=12']),
    'cosine that rises by iterations': (
        dict(type='CosineAnnealingLR', T_max=12, by_epoch=False), 'error',
        ['rises again after 12']),
    'cosine after a warm-up': (
        dict(type='CosineAnnealingLR', T_max=12, begin=3), 'warning',
        ['T_max=12']),
    'cosine that ends early': (
        dict(type='CosineAnnealingLR', T_max=6, end=6), 'warning',
        ['ends at 6 of 12']),
    'cosine': (dict(type='CosineAnnealingLR', T_max=12,
                    convert_to_iter_based=True), None, []),
    'cosine without T_max': (dict(type='CosineAnnealingLR'), None, []),
    'cosine restarts': (dict(type='CosineRestartLR', periods=[6, 6],
                             restart_weights=[1, 1],
                             eta_min=0), None, []),
    'milestones beyond': (
        dict(type='MultiStepLR', milestones=[8, 20]), 'warning', ['[20]']),
    'milestones that are epochs': (
        dict(type='MultiStepLR', milestones=[4, 6], by_epoch=False, end=8),
        'warning', ['by_epoch=True', 'first of 12 epochs']),
    'milestones beyond its end': (
        dict(type='MultiStepLR', milestones=[8, 11], end=9), 'warning',
        ['[11]']),
    'milestones of a string': (
        dict(type='MultiStepLR', milestones='8'), 'error', ["'8'"]),
    'milestones': (dict(type='MultiStepLR', milestones=[8, 11], end=12), None,
                   []),
    'step beyond': (dict(type='StepLR', step_size=12), 'warning',
                    ['step_size=12']),
    'poly that ends early': (dict(type='PolyLR', end=6), 'warning',
                             ['ends at 6 of 12']),
    'poly beyond': (dict(type='PolyLR', end=24), 'warning', ['24']),
    'warm-up of an epoch as one step': (
        dict(type='LinearLR', start_factor=.001, end=1), 'error',
        ['0.001', 'convert_to_iter_based']),
    'warm-up of an iteration': (
        dict(type='LinearLR', start_factor=.001, end=1, by_epoch=False),
        'error', ['one step']),
    'constant warm-up of one step': (
        dict(type='ConstantLR', factor=.1, end=1), 'error', ['0.1']),
    'warm-up in the wrong unit': (
        dict(type='LinearLR', start_factor=.001, end=500), 'warning',
        ['500 epochs', 'by_epoch=False']),
    'warm-up longer than the training': (
        dict(type='LinearLR', start_factor=.001, end=500, by_epoch=False),
        'warning', ['500 iterations', '120']),
    'warm-up': (dict(type='LinearLR', start_factor=.001, end=1,
                     convert_to_iter_based=True), None, []),
    'momentum': (dict(type='CosineAnnealingMomentum', T_max=6), 'error',
                 ['rises again']),
    'begin beyond': (dict(type='StepLR', step_size=1, begin=12, end=20),
                     'warning', ['begins at 12']),
    'end before begin': (dict(type='StepLR', step_size=1, begin=5, end=5),
                         'error', ['end=5', 'begin=5']),
    'convert what counts iterations': (
        dict(type='StepLR', step_size=1, by_epoch=False,
             convert_to_iter_based=True), 'error', ['remove one']),
    'unknown': (dict(type='Mine', whatever=3), None, []),
}


def config(scheduler, **train_cfg):
    return ConfigDict(
        default_scope='mmengine',
        train_cfg=train_cfg or dict(max_epochs=EPOCHS),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1, momentum=.9)),
        param_scheduler=[scheduler])


@pytest.mark.parametrize('name', SCHEDULES)
def test_schedule(name):
    scheduler, level, words = SCHEDULES[name]
    found = list(check_schedule(config(scheduler), LENGTH))
    if level is None:
        assert not found, report(found)
    else:
        _expect(found, level, ['param_scheduler.0', *words])


@pytest.mark.parametrize('name', [
    name for name, (s, level, _) in SCHEDULES.items()
    if s['type'] != 'Mine' and s.get('milestones') != '8'
])
def test_schedule_as_it_runs(name):
    """What an error says is what MMEngine's scheduler does."""
    scheduler, level, words = SCHEDULES[name]
    if 'Momentum' in scheduler['type']:
        pytest.skip('the learning rate is looked at')
    try:
        lr = simulate(config(scheduler), LENGTH).lr
    except (ValueError, AssertionError):
        assert level == 'error'
        return
    rises = scheduler['type'] == 'CosineAnnealingLR' and (
        np.diff(lr) > 1e-9).any()
    stuck = 'factor' in str(scheduler) and lr.max() < .5
    short = level == 'warning' and 'warm-up' in name
    assert (rises or stuck) == (level == 'error') or short


def test_iterations():
    """By epochs in a training that counts iterations; and a useless length."""
    found = list(check_schedule(
        config(dict(type='MultiStepLR', milestones=[3]), max_iters=90000),
        None))
    _expect(found, 'error', ['max_iters=90000', 'by_epoch=False'])
    assert not list(check_schedule(
        config(dict(type='PolyLR', end=90000, by_epoch=False),
               type='IterBasedTrainLoop', max_iters=90000), None))
    _expect(list(check_schedule(config({}, max_epochs=0), None)), 'error',
            ['train_cfg', '0'])
    assert epoch_length(dict(batch_size=4), 17, 2) == 3
    assert epoch_length(dict(batch_size=4, drop_last=True), 17, 2) == 2


def test_schedulers_in_turn():
    """YOLOX's last epochs are meant to have the lowest rate."""
    cfg = config(dict(type='CosineAnnealingLR', T_max=6, end=6))
    assert list(check_schedule(cfg, LENGTH))
    cfg.param_scheduler.append(
        ConfigDict(type='ConstantLR', factor=1, begin=6, end=12))
    assert not list(check_schedule(cfg, LENGTH))


def test_one_iteration_an_epoch():
    """The recipe's warm-up over the first epoch needs an epoch of two."""
    warm_up = SCHEDULES['warm-up'][0]
    _expect(list(check_schedule(config(warm_up), 1)), 'error',
            ['one step', '0.001'])
    assert simulate(config(warm_up), 1).lr.max() < .01


# Folders of classes, and maps ------------------------------------------------


@pytest.fixture
def folders(tmp_path):
    for part in ('train', 'val'):
        for name in ('cat', 'dog'):
            (tmp_path / part / name).mkdir(parents=True)
            Image.new('RGB', (8, 8)).save(tmp_path / part / name / '1.png')

    def loader(part):
        return dict(dataset=dict(
            type='CustomDataset', data_root=str(tmp_path), data_prefix=part))

    return tmp_path, dict(
        default_scope='mmpretrain',
        train_dataloader=loader('train'),
        val_dataloader=loader('val'),
        model=dict(head=dict(type='LinearClsHead', num_classes=2)))


def lines(words):
    def f(root, cfg):
        (root / 'list.txt').write_text(words)
        cfg['train_dataloader']['dataset'].update(
            ann_file='list.txt', metainfo=dict(classes=('cat', 'dog')))

    return f


def of_train(**values):
    return lambda root, cfg: cfg['train_dataloader']['dataset'].update(values)


FOLDERS = {
    'no folder': (of_train(data_prefix='none'), 'none', 'not there'),
    'no classes': (of_train(data_prefix='train/cat'), 'no folders'),
    'num_classes': (lambda root, cfg: cfg['model']['head'].update(
        num_classes=1000), 'model.head.num_classes', 'is 1000', 'has 2'),
    'class missing in val': (lambda root, cfg: (
        root / 'val/cat').rename(root / 'val/emu'), "'cat'", "'emu'",
        'val_dataloader'),
    'empty class': (lambda root, cfg: (root / 'train/dog/1.png').unlink(),
                    "'dog'", 'no image'),
    'empty image': (lambda root, cfg: (
        root / 'train/dog/1.png').write_bytes(b''), 'dog/1.png', '0 bytes'),
    'other order': (of_train(metainfo=dict(classes=('dog', 'cat'))),
                    'another order'),
    'misspelt': (of_train(metainfo=dict(classes=('cat', 'dogs'))), "'dogs'",
                 "did you mean 'dog'"),
    'more names': (of_train(metainfo=dict(classes=('a', 'b', 'c'))),
                   '2 folders', '3 names'),
    'no label': (lines('cat/1.png 0\ndog/1.png'), 'list.txt',
                 '1 of 2 lines (2)'),
    'label too high': (lines('cat/1.png 2'), 'labels 2', '2 classes'),
    'not there': (lines('cat/7.png 0'), 'cat/7.png', 'not there'),
    'empty list': (lines(''), 'list.txt', 'empty'),
    'no list': (of_train(ann_file='gone.txt'), 'gone.txt', 'cannot be read'),
}


@pytest.mark.parametrize('name', FOLDERS)
def test_folders(folders, name):
    change, *words = FOLDERS[name]
    root, cfg = folders
    cfg = copy.deepcopy(cfg)
    assert {p.level for p in check_config(cfg)} == {'note'}
    change(root, cfg)
    found = check_config(cfg)
    _expect(found, 'error', words)
    assert 'did not come to its end' not in report(found)

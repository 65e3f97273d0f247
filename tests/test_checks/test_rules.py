# Copyright (c) mmfishnet authors. All rights reserved.
"""Schedules, models, folders, maps and pictures."""
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config, ConfigDict
from PIL import Image

from mmfishnet.checks import check_config
from mmfishnet.checks.model import build_shapes, check_channels, check_heads
from mmfishnet.checks.schedule import check_schedule

from .conftest import CLS, FCN, FPN, RESNET, RETINA, SEG, WIDE, data_of, expect

ROOT = Path(__file__).resolve().parents[2]
EPOCHS, LENGTH = 12, 10
COSINE = dict(type='CosineAnnealingLR', T_max=12)
WARM_UP = dict(type='LinearLR', start_factor=.001, end=1)
# Scheduler, level (None where nothing is to say), words.
SCHEDULES = {
    'one cycle that ends early': (
        dict(type='OneCycleLR', eta_max=1, total_steps=6), 'error',
        ['6 epochs', '12 epochs', 'stop']),
    'one cycle in the wrong unit': (
        dict(type='OneCycleLR', eta_max=1, total_steps=12, by_epoch=False),
        'error', ['12 iterations', '120 iterations']),
    'one cycle, then nothing': (
        dict(type='OneCycleLR', eta_max=1, total_steps=6, end=6), 'warning',
        ['after 6']),
    'one cycle': (
        dict(type='OneCycleLR', eta_max=1, total_steps=12,
             convert_to_iter_based=True), None, []),
    'pct_start of one': (
        dict(type='OneCycleLR', eta_max=1, pct_start=1), 'error', ['float']),
    'cosine that rises': (dict(COSINE, T_max=6), 'warning',
                          ['rises again after 6 epochs', 'T_max to 12']),
    'cosine, converted': (dict(COSINE, T_max=6, convert_to_iter_based=True),
                          'warning', ['rises again', '60 iterations', '6 e']),
    'cosine': (dict(COSINE, convert_to_iter_based=True), None, []),
    'milestones beyond': (
        dict(type='MultiStepLR', milestones=[8, 20]), 'warning', ['20']),
    'milestones that are epochs': (
        dict(type='MultiStepLR', milestones=[4, 6], by_epoch=False, end=8),
        'warning', ['by_epoch=True', 'first of 12 epochs']),
    'milestones': (dict(type='MultiStepLR', milestones=[8, 11], end=12), None,
                   []),
    'step beyond': (dict(type='StepLR', step_size=12), 'warning',
                    ['step_size of 12']),
    'poly beyond': (dict(type='PolyLR', end=24), 'warning', ['24']),
    'warm-up of an epoch as one step': (WARM_UP, 'warning', [
        '0.001', 'convert_to_iter_based']),
    'warm-up longer than the training': (
        dict(WARM_UP, end=500, by_epoch=False), 'warning',
        ['500 iterations', 'Set param_scheduler.0.end to less']),
    'warm-up of as many epochs': (
        dict(WARM_UP, end=500), 'warning', ['500 epochs', 'by_epoch=False']),
    'warm-up': (dict(WARM_UP, convert_to_iter_based=True), None, []),
    'momentum': (dict(type='CosineAnnealingMomentum', T_max=6), 'warning',
                 ['rises again']),
    'begin beyond': (dict(type='StepLR', step_size=1, begin=12, end=20),
                     'warning', ['begins after 12']),
}


def config(scheduler, **train_cfg):
    return ConfigDict(
        train_cfg=train_cfg or dict(max_epochs=EPOCHS, by_epoch=True),
        param_scheduler=[scheduler])


@pytest.mark.parametrize('name', SCHEDULES)
def test_schedule(name):
    scheduler, level, words = SCHEDULES[name]
    found = list(check_schedule(config(scheduler), LENGTH))
    if level is None:
        assert not found
    else:
        expect(found, level, ['param_scheduler.0', *words])
        assert len(found) == 1
        # What counts iterations is not told to.
        assert name != 'warm-up longer than the training' or (
            'by_epoch' not in found[0].text)


def test_schedules_in_turn_and_by_iterations():
    """YOLOX's last epochs are meant to have the lowest rate."""
    cfg = config(dict(COSINE, T_max=6, end=6))
    cfg.param_scheduler.append(
        ConfigDict(type='ConstantLR', factor=1, begin=6, end=12))
    assert not check_schedule(cfg, LENGTH)
    expect(check_schedule(config(dict(type='MultiStepLR', milestones=[3]),
                                 max_iters=90000), None),
           'warning', ['max_iters=90000', 'by_epoch=False'])
    assert not check_schedule(config(dict(type='PolyLR', by_epoch=False),
                                     type='IterBasedTrainLoop',
                                     max_iters=90000), None)


# Heads and channels ----------------------------------------------------------

CHANNELS = {
    'fpn': (dict(RETINA, neck=WIDE),
            'model.neck.in_channels', '[64, 128, 256, 512]'),
    'fewer outputs': (
        dict(RETINA, backbone=dict(RESNET, out_indices=(1, 2, 3)),
             neck=dict(FPN, in_channels=[64, 128, 256, 512])),
        '[128, 256, 512]', 'out_indices'),
    'score': (dict(CLS, backbone=dict(
        type='mmfishnet.FishNet', depth=99, out_indices=(3, )), neck=dict(
            type='mmfishnet.FishNetScore', in_channels=2048)), '2112'),
    'pooling': (dict(CLS, neck=dict(type='GlobalAveragePooling'), head=dict(
        type='LinearClsHead', num_classes=3, in_channels=2048)),
        'model.head.in_channels', '512'),
    'segmentation': (dict(SEG, decode_head=dict(FCN, in_channels=2048)),
                     'model.decode_head.in_channels', '512'),
    'auxiliary': (dict(SEG, decode_head=dict(FCN, in_channels=512),
                       auxiliary_head=[dict(FCN, in_channels=9, in_index=2)]),
                  'model.auxiliary_head.0.in_channels', '256'),
    'right': (dict(SEG, decode_head=dict(FCN, in_channels=512)), ),
    'coarsest first': (dict(
        RETINA, backbone=dict(RESNET, out_indices=(1, 2, 3)),
        neck=dict(type='mmdet.YOLOV3Neck', num_scales=3,
                  in_channels=[512, 256, 128], out_channels=[8, 8, 8]),
        bbox_head=dict(RETINA['bbox_head'], anchor_generator=dict(
            type='AnchorGenerator', scales=[4], ratios=[1.],
            strides=[32, 16, 8]))), ),
}


@pytest.mark.parametrize('name', CHANNELS)
def test_channels(name):
    cfg, *words = CHANNELS[name]
    found = list(check_channels(cfg, build_shapes(
        cfg, cfg['type'].partition('.')[0])))
    if words:
        expect(found, 'error', words)
    else:
        assert not found


def test_heads(coco):
    """num_classes of every head; more than there are only where it counts."""
    coco.write()
    cfg = Config.fromfile(ROOT / 'configs/shapes/mask_rcnn_fishnet_shapes.py')
    model = build_shapes(cfg.model, 'mmdet')
    assert {p.text.split(',')[0] for p in check_heads(
        model, data_of(coco, 'train'), True)} == {'it is 6'}
    for given, level in ((2, 'error'), (80, 'warning')):
        model.roi_head.bbox_head.num_classes = given
        model.roi_head.mask_head.num_classes = 3
        found = list(check_heads(model, data_of(coco, 'train'), True))
        expect(found, level, ['bbox_head.num_classes', f'is {given}', 'has 3'])
        assert len(found) == 1
    expect(check_heads(model, data_of(coco, 'val'), True), 'error',
           ['is 80', 'val_dataloader'])


# Classification and segmentation ---------------------------------------------

def lines(words):
    def f(root, cfg):
        (root / 'list.txt').write_text(words)
        cfg.train_dataloader.dataset.update(
            data_prefix='train', ann_file='list.txt',
            metainfo=dict(classes=('cat', 'dog')))

    return f


def of_train(**values):
    return lambda root, cfg: cfg.train_dataloader.dataset.update(values)


FOLDERS = {
    'no folder': (of_train(data_prefix='none'), 'none', 'not there'),
    'no classes': (of_train(data_prefix='train/cat'), 'Found 0 files'),
    'class missing in val': (lambda root, cfg: (
        root / 'val/cat').rename(root / 'val/emu'), "'dog'", 'label 0',
        'val_dataloader'),
    'empty image': (lambda root, cfg: (
        root / 'train/dog/1.png').write_bytes(b''), 'dog/1.png', '0 bytes'),
    'more names': (of_train(metainfo=dict(classes=('a', 'b', 'c'))),
                   'subfolders (2)', '(3)'),
    'no label': (lines('cat/1.png 0\ndog/1.png'), 'list.txt',
                 '1 of 2 lines (2)'),
    'label too high': (lines('cat/1.png 2'), 'labels 2', '2 classes'),
    'not there': (lines('cat/7.png 0'), 'cat/7.png', 'not there'),
    'no list': (of_train(ann_file='gone.txt'), 'gone.txt', 'not there'),
    'top 5': (lambda root, cfg: cfg.val_evaluator.update(topk=(1, 5)),
              'val_evaluator.topk', '(1, 5)', '2 classes', '(1,)'),
    'top 5 of a training': (lambda root, cfg: cfg.model.head.update(
        cal_acc=True, topk=(1, 5)), 'model.head.topk', '(1, 5)'),
    'sizes in a batch': (lambda root, cfg: (
        Image.new('RGB', (9, 8)).save(root / 'val/dog/1.png'),
        cfg.val_dataloader.update(collate_fn=dict(type='default_collate'))),
        'val_dataloader', 'one batch of 2', '(8, 8), (9, 8)'),
}


@pytest.mark.parametrize('name', FOLDERS)
def test_folders(folders, name):
    change, *words = FOLDERS[name]
    root, cfg = folders
    if name == 'top 5':  # once is enough
        assert {p.level for p in check_config(cfg)} == {'note'}
    change(root, cfg)
    expect(check_config(cfg), 'error', words)


def test_class_without_picture(folders):
    root, cfg = folders
    lines('cat/1.png 0')(root, cfg)
    expect(check_config(cfg), 'warning', ['have no picture', "'dog'"])


def test_hidden_files_and_links(folders):
    """Upstream follows links, and leaves out what begins with a dot."""
    root, cfg = folders
    (root / 'train/cat/._1.png').write_bytes(b'Mac OS X')
    (root / 'far').mkdir()
    (root / 'train/dog/1.png').rename(root / 'far/1.png')
    (root / 'train/dog/part').symlink_to(root / 'far')
    assert {p.level for p in check_config(cfg)} == {'note'}


MAPS = {
    'right': (1, lambda x: x, ),
    '0 and 255': (255, lambda x: x, '[0, 255] only', 'ignored', '0 and 1'),
    'too high': (7, lambda x: x, 'goes up to 7', '2 classes'),
    'three channels': (1, lambda x: np.stack([x] * 3, -1), '(24, 32, 3)'),
    'half size': (1, lambda x: x[::2, ::2], '16x12', '32x24'),
}


@pytest.mark.parametrize('name', MAPS)
def test_maps(maps, name):
    value, change, *words = MAPS[name]
    _, draw, cfg = maps
    draw(value, change)
    found = check_config(cfg)
    if words:
        expect(found, 'error', words)
    else:
        assert {p.level for p in found} == {'note'}


def test_maps_that_may_be_meant_so(maps):
    """Another size in training, where both are resized; no such object."""
    _, draw, cfg = maps
    draw(1, lambda x: x[::2, ::2], parts=('train', ))
    draw(1, parts=('val', ))
    expect(check_config(cfg), 'error', ['train_data', 'another size'])
    cfg.train_dataloader.dataset.pipeline.insert(
        1, dict(type='Resize', scale=(32, 24)))
    found = check_config(cfg)
    expect(found, 'warning', ['train_data', 'another size'])
    assert not [p for p in found if p.level == 'error']
    draw(1, parts=('train', ))
    cfg.model.decode_head.num_classes = 3
    for part in ('train', 'val'):
        cfg[f'{part}_dataloader'].dataset.metainfo.classes = (
            'background', 'disc', 'ring')
    expect(check_config(cfg), 'warning', ['are in no map', "'ring'"])


def test_maps_of_some_classes(maps):
    """A data set maps labels itself; a map is missing."""
    root, draw, cfg = maps
    draw(13, lambda x: x + 0)
    for part in ('train', 'val'):
        cfg[f'{part}_dataloader'].dataset.update(
            type='CityscapesDataset', img_suffix='.jpg', seg_map_suffix='.png',
            metainfo=dict(classes=('road', 'car')))
    assert {p.level for p in check_config(cfg)} == {'note'}
    (root / 'lab/val/1.png').unlink()
    expect(check_config(cfg), 'error', ['lab/val/1.png', 'not there'])


# Pictures as they are loaded -------------------------------------------------

PIXELS = np.random.default_rng(0).integers(0, 255, (48, 64, 3))
FILES = {
    'float': ('error', PIXELS.astype(np.float32) / 255, 'float values'),
    'gray float': ('error', PIXELS[..., 0].astype(np.float32) / 255,
                   'float values'),
    '12 bits': ('warning', (PIXELS * 16).astype(np.uint16),
                '12 of 16 bits in use'),
    'pages': ('warning', [PIXELS.astype(np.uint8)] * 3, '3 pages'),
    '8 bits': (None, PIXELS.astype(np.uint8)),
    '16 bits': (None, (PIXELS * 257).astype(np.uint16)),
}


@pytest.mark.parametrize('name', FILES)
def test_tiff(coco, name):
    level, pixels, *words = FILES[name]
    coco.train['images'][1]['file_name'] = '2.tif'
    path = str(coco.root / 'train/2.tif')
    if isinstance(pixels, list):
        cv2.imwritemulti(path, pixels)
    else:
        cv2.imwrite(path, pixels)
    coco.write()
    found = check_config(coco.cfg)
    if level:
        expect(found, level, ['2.tif', *words])
    else:
        assert {p.level for p in found} == {'note'}

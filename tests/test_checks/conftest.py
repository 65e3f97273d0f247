# Copyright (c) mmfishnet authors. All rights reserved.
"""A small data set of each kind, with a config that suits it."""
import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from mmdet.utils import register_all_modules
from mmengine.config import Config
from PIL import Image

from mmfishnet.checks import report
from mmfishnet.checks.built import build_parts

NAMES = ('ring', 'square', 'star')
SIZE = 64, 48
RESNET = dict(type='mmdet.ResNet', depth=18)
RETINA = dict(type='mmdet.RetinaNet', backbone=RESNET, bbox_head=dict(
    type='RetinaHead', num_classes=3, in_channels=8, feat_channels=8))
FPN = dict(type='mmdet.FPN', out_channels=8, num_outs=4)
WIDE = dict(FPN, in_channels=[256, 512, 1024, 2048])
SEG = dict(type='mmseg.EncoderDecoder', backbone=RESNET)
FCN = dict(type='mmseg.FCNHead', channels=8, num_convs=1, num_classes=3)
CLS = dict(type='mmpretrain.ImageClassifier', backbone=RESNET)


def data_of(coco, part):
    """The data set that its config has, written and built."""
    coco.write()
    return build_parts(coco.cfg, (part, ), 'mmdet')[0].data[0]


def expect(found, level, words):
    """One line of that level has all of the words."""
    found = list(found)
    lines = [str(p) for p in found if p.level == level]
    assert any(all(w in line for w in words) for line in lines), report(found)
    assert 'did not come to its end' not in report(found)


@pytest.fixture(scope='session', autouse=True)
def modules():
    from mmpretrain.utils import register_all_modules as pretrain
    from mmseg.utils import register_all_modules as seg

    for register in (register_all_modules, pretrain, seg):
        register(init_default_scope=False)


def annotations(first):
    """Four images from an id on, each with two objects."""
    images = [dict(id=i, file_name=f'{i}.jpg', width=SIZE[0], height=SIZE[1])
              for i in range(first, first + 4)]
    objects = []
    for i, image in enumerate(images):
        for j in range(2):
            x, y = 4 + 20 * j, 6 + i
            objects.append(dict(
                id=len(objects) + 1, image_id=image['id'],
                category_id=1 + (i + j) % 3, bbox=[x, y, 16, 12], area=192,
                iscrowd=0,
                segmentation=[[x, y, x + 16, y, x + 16, y + 12]]))
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(NAMES)]
    return dict(images=images, annotations=objects, categories=categories)


def config(scope, evaluator, dataset):
    """A config with two data sets, ``dataset(part)``."""
    def loader(part):
        return dict(
            batch_size=2, num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dict(dataset(part), test_mode=part == 'val'))

    return dict(
        default_scope=scope, train_dataloader=loader('train'),
        val_dataloader=loader('val'), val_evaluator=evaluator,
        train_cfg=dict(by_epoch=True, max_epochs=1, val_begin=2))


@pytest.fixture
def coco(tmp_path, monkeypatch):
    """Contents of both files, config, and folder; write() puts the files
    there."""
    # A runner lays out its config twice, which takes a second.
    monkeypatch.setattr('yapf.yapflib.yapf_api.FormatCode',
                        lambda text, **_: (text, False))
    rng = np.random.default_rng(0)
    content = dict(train=annotations(1), val=annotations(11))
    for part, x in content.items():
        (tmp_path / part).mkdir()
        for image in x['images']:
            pixels = rng.integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / part / image['file_name'])
    cfg = config('mmdet', dict(
        type='CocoMetric', ann_file=str(tmp_path / 'val.json'),
        metric=['bbox', 'segm']), lambda part: dict(
            type='CocoDataset', data_root=str(tmp_path),
            ann_file=f'{part}.json', data_prefix=dict(img=part),
            metainfo=dict(classes=NAMES),
            filter_cfg=dict(filter_empty_gt=True, min_size=32), pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
                dict(type='PackDetInputs')]))

    def write():
        for part, x in content.items():
            (tmp_path / f'{part}.json').write_text(
                x if isinstance(x, str) else json.dumps(x))

    return SimpleNamespace(root=tmp_path, cfg=cfg, write=write, **content,
                           content=content)


@pytest.fixture
def folders(tmp_path):
    for part in ('train', 'val'):
        for name in ('cat', 'dog'):
            (tmp_path / part / name).mkdir(parents=True)
            Image.new('RGB', (8, 8)).save(tmp_path / part / name / '1.png')
    cfg = config(
        'mmpretrain', dict(type='Accuracy', topk=(1, )), lambda part: dict(
            type='CustomDataset', data_root=str(tmp_path), data_prefix=part,
            pipeline=[dict(type='LoadImageFromFile'),
                      dict(type='PackInputs')]))
    return tmp_path, Config(dict(cfg, model=dict(
        CLS, neck=dict(type='GlobalAveragePooling'), head=dict(
            type='LinearClsHead', num_classes=2, in_channels=512))))


@pytest.fixture
def maps(tmp_path):
    def draw(value=1, change=lambda labels: labels, parts=('train', 'val')):
        for part in parts:
            for kind in ('img', 'lab'):
                (tmp_path / kind / part).mkdir(parents=True, exist_ok=True)
            for i in range(2):
                labels = np.zeros((24, 32), np.uint8)
                labels[4:12, 4:12] = value
                cv2.imwrite(f'{tmp_path}/img/{part}/{i}.jpg',
                            np.stack([labels] * 3, -1))
                cv2.imwrite(f'{tmp_path}/lab/{part}/{i}.png', change(labels))

    cfg = config(
        'mmseg', dict(type='IoUMetric', iou_metrics=['mIoU']), lambda part:
        dict(type='BaseSegDataset', data_root=str(tmp_path),
             metainfo=dict(classes=('background', 'disc')),
             data_prefix=dict(img_path=f'img/{part}',
                              seg_map_path=f'lab/{part}'),
             pipeline=[dict(type='LoadImageFromFile'),
                       dict(type='LoadAnnotations'),
                       dict(type='PackSegInputs')]))
    return tmp_path, draw, Config(dict(cfg, model=dict(
        SEG, data_preprocessor=dict(type='SegDataPreProcessor'),
        decode_head=dict(FCN, in_channels=512, num_classes=2))))

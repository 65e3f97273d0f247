# Copyright (c) mmfishnet authors. All rights reserved.
"""A small data set of each kind, with a config that suits it."""
import json
from types import SimpleNamespace

import numpy as np
import pytest
from mmdet.utils import register_all_modules
from PIL import Image

from mmfishnet.checks import report

NAMES = ('ring', 'square', 'star')
SIZE = 64, 48


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
    images = [
        dict(id=i, file_name=f'{i}.jpg', width=SIZE[0], height=SIZE[1])
        for i in range(first, first + 4)
    ]
    objects = []
    for i, image in enumerate(images):
        for j in range(2):
            x, y = 4 + 20 * j, 6 + i
            objects.append(
                dict(
                    id=len(objects) + 1,
                    image_id=image['id'],
                    category_id=1 + (i + j) % 3,
                    bbox=[x, y, 16, 12],
                    area=192,
                    iscrowd=0,
                    segmentation=[[x, y, x + 16, y, x + 16, y + 12]]))
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(NAMES)]
    return dict(images=images, annotations=objects, categories=categories)


@pytest.fixture
def coco(tmp_path):
    """Contents of both files, config, and folder; write() puts the files
    there."""
    rng = np.random.default_rng(0)
    content = dict(train=annotations(1), val=annotations(11))
    for part, x in content.items():
        (tmp_path / part).mkdir()
        for image in x['images']:
            pixels = rng.integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / part / image['file_name'])

    def loader(part):
        return dict(
            batch_size=2,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=part == 'train'),
            dataset=dict(
                type='CocoDataset',
                data_root=str(tmp_path),
                ann_file=f'{part}.json',
                data_prefix=dict(img=part),
                metainfo=dict(classes=NAMES),
                test_mode=part == 'val',
                filter_cfg=dict(filter_empty_gt=True, min_size=32),
                pipeline=[
                    dict(type='LoadImageFromFile'),
                    dict(type='LoadAnnotations', with_bbox=True,
                         with_mask=True),
                    dict(type='PackDetInputs')
                ]))

    cfg = dict(
        default_scope='mmdet',
        train_dataloader=loader('train'),
        val_dataloader=loader('val'),
        val_evaluator=dict(
            type='CocoMetric',
            ann_file=str(tmp_path / 'val.json'),
            metric=['bbox', 'segm']),
        train_cfg=dict(by_epoch=True, max_epochs=12))

    def write():
        for part, x in content.items():
            (tmp_path / f'{part}.json').write_text(
                x if isinstance(x, str) else json.dumps(x))

    return SimpleNamespace(root=tmp_path, cfg=cfg, write=write, **content,
                           content=content)

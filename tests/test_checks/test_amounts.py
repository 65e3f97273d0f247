# Copyright (c) mmfishnet authors. All rights reserved.
"""What of much data is looked at, and layouts of few pictures."""
import json
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import ConfigDict
from PIL import Image
from pycocotools import mask as mask_utils
from torch import nn

import stand_in_data
from mmfishnet.checks import built, check_config, evaluation, files, masks
from mmfishnet.checks.judge import check_parts
from mmfishnet.checks.model import check_heads

from .conftest import data_of, expect

ROOT = Path(__file__).resolve().parents[2]
DOCS = (ROOT / 'docs/checks.md').read_text()


def test_numbers_of_the_docs():
    for words in (f'({built.LISTED:,} records', f'Up to {files.READ}, evenly',
                  f'Of compressed run lengths\n{masks.DECODED} are',
                  f'the first of {evaluation.BATCHES}\n'):
        assert words in DOCS
    assert files.SECONDS == 10


@pytest.mark.parametrize('module, limits', [
    (built, dict(LISTED=2)), (files, dict(READ=2)),
    (files, dict(SECONDS=0, AT_ONCE=2))])
def test_records_are_evenly_spread(coco, monkeypatch, module, limits):
    for name, value in limits.items():
        monkeypatch.setattr(module, name, value)
    data = data_of(coco, 'train')
    readings, said = files.read_files(data)
    assert data.whole is (module is files)
    assert sorted(r.record['index'] for r in readings) == [0, 2]
    if module is files:
        expect(said, 'note', ['4 image files', '2 read, evenly spread, by'])


def test_run_lengths_are_evenly_spread(coco, monkeypatch):
    monkeypatch.setattr(masks, 'DECODED', 4)
    packed = mask_utils.encode(np.ones((48, 64), np.uint8, 'F'))
    annotations = coco.train['annotations']
    for i, annotation in enumerate(annotations):
        # Those with an odd place are not decoded, and wrong.
        annotation['segmentation'] = dict(
            size=[48, 64], counts='1' if i % 2 else packed['counts'].decode())
    coco.write()
    found = check_config(coco.cfg)
    expect(found, 'note', ['4 of 8 compressed masks'])
    assert not [p for p in found if p.level == 'error']


@pytest.mark.parametrize('wide, found', [(13, True), (15, False)])
def test_batches_of_a_validation(coco, monkeypatch, wide, found):
    """The first of several sizes among the first few."""
    monkeypatch.setattr(evaluation, 'BATCHES', 2)
    for i in (15, 16):
        coco.val['images'].append(dict(id=i, file_name=f'{i}.jpg', width=64,
                                       height=48))
        Image.new('RGB', (64, 48)).save(coco.root / f'val/{i}.jpg')
    image = coco.val['images'][wide - 11]
    Image.new('RGB', (70, 48)).save(coco.root / f'val/{wide}.jpg')
    image['width'] = 70
    loader = coco.cfg['val_dataloader']
    loader.update(collate_fn=dict(type='default_collate'))
    loader['dataset']['pipeline'] = [
        dict(type='LoadImageFromFile'),
        dict(type='PackDetInputs', meta_keys=())]
    coco.write()
    said = [str(p) for p in check_config(coco.cfg, ('val', ), model=False)]
    assert any('(64, 48), (70, 48)' in p for p in said) is found


def test_classes_that_are_words(coco):
    """Labels of a model that reads them as text have no order."""
    coco.val['categories'].reverse()
    coco.cfg['val_dataloader']['dataset']['metainfo'] = dict(
        classes=[c['name'] for c in coco.val['categories']])
    coco.write()
    parts = built.build_parts(coco.cfg, ('train', 'val'), 'mmdet')
    model = nn.Module()
    expect(check_parts(parts, model, ()), 'error', ['label 0'])
    model.language_model = nn.Module()
    assert not [p for p in check_parts(parts, model, ())
                if p.level == 'error']


# Other layouts ---------------------------------------------------------------

def made(tmp_path, kind, **values):
    cfg = ConfigDict(default_scope='mmdet', train_dataloader=dict(
        batch_size=1, num_workers=0, sampler=dict(
            type='DefaultSampler', shuffle=False), dataset=dict(
            type=kind, data_root=f'{tmp_path}/', pipeline=[
                dict(type='LoadImageFromFile')], **values)))
    assert not stand_in_data.make(cfg, tmp_path)
    return cfg


def test_size_in_an_xml_file(tmp_path):
    """Upstream compares it with min_size alone."""
    cfg = made(tmp_path, 'VOCDataset', ann_file='list.txt',
               data_prefix=dict(sub_data_root='VOC2007/'))
    path = next(tmp_path.rglob('*.xml'))
    path.write_text(path.read_text().replace('<width>64', '<width>65'))
    found = check_config(cfg)
    expect(found, 'warning', ['64x48', '65x48'])
    assert not [p for p in found if p.level == 'error']


class Heads(nn.Module):

    def __init__(self, **counts):
        super().__init__()
        self.panoptic_head = nn.Module()
        vars(self.panoptic_head).update(counts)


def test_panoptic(tmp_path):
    """Segments of pictures are its annotations; things and stuff count."""
    cfg = made(tmp_path, 'CocoPanopticDataset', ann_file='all.json',
               data_prefix=dict(img='img/', seg='seg/'))
    data = built.build_parts(cfg, ('train', ), 'mmdet')[0].data[0]
    for counts in (dict(num_things_classes=79, num_stuff_classes=53),
                   dict(num_things_classes=80, num_stuff_classes=52),
                   dict(num_stuff_classes=52)):
        name = next(n for n, count in counts.items() if count in (79, 52))
        problem, = check_heads(Heads(**counts), data, False)
        assert problem.place == f'model.panoptic_head.{name}'
    path = tmp_path / 'all.json'
    content = json.loads(path.read_text())
    segment = content['annotations'][1]['segments_info'][0]
    del segment['area']
    segment['bbox'] = [1, 2, 3]
    path.write_text(json.dumps(content))
    found = check_config(cfg)
    expect(found, 'error', ['all.json', '1 of 9 annotations', 'no area'])
    expect(found, 'error', ['all.json', '[1, 2, 3]'])

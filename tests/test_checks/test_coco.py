# Copyright (c) mmfishnet authors. All rights reserved.
"""Bad annotation files and images, and the words that a person gets.

Each line of a table is one mistake: how it is made, and what has to be said.
"""
import copy
import json
import os

import numpy as np
import pytest
from mmdet.datasets import CocoDataset
from PIL import Image
from pycocotools import mask as mask_utils

from mmfishnet.checks import check_config, report

from .conftest import expect

INF, NAN = float('inf'), float('nan')


def ann(part='train', i=3, **values):
    """Change one annotation; its id is 4 (i=3)."""
    return lambda c: getattr(c, part)['annotations'][i].update(values)


def drop(key, part='train', records='annotations'):
    return lambda c: [r.pop(key, None) for r in getattr(c, part)[records]]


def each(key, change, part='train', records='annotations'):
    return lambda c: [r.update({key: change(r[key])})
                      for r in getattr(c, part)[records]]


def image_ids(change):
    def f(c):
        each('id', change, records='images')(c)
        each('image_id', change)(c)

    return f


def image(part='train', i=1, **values):
    """Change the record of an image; its id is 2."""
    return lambda c: getattr(c, part)['images'][i].update(values)


def put(part, key, value):
    return lambda c: getattr(c, part).__setitem__(key, value)


def text(part, words):
    return lambda c: c.content.__setitem__(part, words)


def rle(**values):
    runs = dict(size=[48, 64], counts=[500, 300, 48 * 64 - 800])
    return ann(segmentation={**runs, **values})


def packed(height, width, **values):
    found = mask_utils.encode(
        np.asfortranarray(np.pad(np.ones((9, 9), np.uint8),
                                 ((0, height - 9), (0, width - 9)))))
    return ann(segmentation={
        'size': found['size'], 'counts': found['counts'].decode(), **values})


def file(change, name='train/2.jpg'):
    return lambda c: change(c.root / name)


def turn(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).save(path, exif=exif)


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def meta(part='train', **values):
    return lambda c: c.cfg[f'{part}_dataloader']['dataset']['metainfo'].update(
        values)


def data(part='train', **values):
    return lambda c: c.cfg[f'{part}_dataloader']['dataset'].update(values)


def both(*changes):
    def f(c):
        for change in changes:
            change(c)

    return f


def half(c):
    """An evaluator with half of the images."""
    x = copy.deepcopy(c.val)
    x['images'] = x['images'][:2]
    (c.root / 'half.json').write_text(json.dumps(x))
    c.cfg['val_evaluator']['ann_file'] = str(c.root / 'half.json')


def other_order(c):
    """An evaluator whose file counts the classes otherwise."""
    x = dict(c.val, categories=c.val['categories'][::-1])
    (c.root / 'other.json').write_text(json.dumps(x))
    c.cfg['val_evaluator']['ann_file'] = str(c.root / 'other.json')


def ten(c):
    """Ten pictures, of which one shows nothing."""
    images, objects = c.train['images'], c.train['annotations']
    images += [dict(images[0], id=i) for i in range(21, 27)]
    objects += [dict(objects[0], id=i, image_id=i) for i in range(21, 26)]


ERRORS = {
    'no file': (data(ann_file='none.json'), 'none.json', 'not there'),
    'no ann_file': (data(ann_file=''), 'train_dataloader', 'not set'),
    'empty file': (text('train', ''), 'train.json', 'empty'),
    'cut file': (text('val', '{"images": ['), 'val.json', 'cut off'),
    'a list': (text('train', '[]'), 'train.json', 'object'),
    'images missing': (lambda c: c.train.pop('images'), "no 'images'"),
    'images an object': (put('train', 'images', {}), "'images' is {}"),
    'categories empty': (put('val', 'categories', []),
                         "'categories' is empty"),
    'annotations missing': (lambda c: c.val.pop('annotations'), 'val.json',
                            "no 'annotations'"),
    'record of a number': (lambda c: c.train['annotations'].append(7),
                           'positions 8', 'is 7'),
    'nested': (text('train', '[' * 100000), 'train.json'),
    'image twice': (image(id=1), 'images (ids 1, 1)', 'more than once'),
    'annotation twice': (ann(id=1), 'annotations (ids 1, 1)',
                         'more than once'),
    'annotation without id': (lambda c: c.train['annotations'][3].pop('id'),
                              'annotations (ids None)', 'no id'),
    'id of a list': (ann(id=[4]), 'no id', '[4]'),
    'category twice': (lambda c: c.train['categories'][1].update(id=1),
                       'categories (ids 1, 1)', 'more than once'),
    'name twice': (lambda c: c.train['categories'][1].update(name='ring'),
                   'more than once', "'ring'"),
    'category without name': (
        lambda c: c.train['categories'][1].pop('name'), '(ids 2)', 'no name'),
    'no file_name': (lambda c: c.train['images'][1].pop('file_name'),
                     'ids 2', 'file_name'),
    'no width': (lambda c: c.train['images'][1].pop('width'), 'ids 2',
                 'width=None'),
    'no bbox': (drop('bbox'), '8 of 8', 'bbox', '[x, y, width, height]'),
    'bbox of strings': (ann(bbox=['1', '2', '3', '4']), 'ids 4', 'finite'),
    'bbox 1e400': (ann(bbox=[4, 5, 10**400, 9]), 'ids 4', 'finite'),
    'outside': (ann('val', bbox=[500, 5, 9, 9]), 'val.json', 'ids 4',
                'outside', '64x48'),
    'fractions': (each('bbox', lambda b: [v / 64 for v in b]),
                  'fractions of the image'),
    'no area': (drop('area'), '8 of 8', 'area'),
    'no image_id': (drop('image_id'), '8 of 8', 'no image_id'),
    'no category_id in val': (drop('category_id', 'val'), 'val.json',
                              'no category_id'),
    'category_id as list': (ann(category_id=[1]), 'ids 4', '[1]'),
    'area as string': (ann(area='9'), 'ids 4', "'9'"),
    'no iscrowd in val': (drop('iscrowd', 'val'), 'val.json', 'iscrowd',
                          'Set it to 0'),
    'iscrowd as string': (ann(iscrowd='0'), 'ids 4', "'0'"),
    'no segmentation': (drop('segmentation'), '8 of 8', 'with_mask'),
    'empty in val': (ann('val', segmentation=[]), 'val.json', 'segm'),
    'segmentation as string': (ann(segmentation='x'), 'ids 4', "'x'"),
    'flat polygon': (ann(segmentation=[24, 7, 40, 7, 40, 19]), 'ids 4',
                     '[[x1, y1'),
    'polygon nan': (ann(segmentation=[[24, 7, NAN, 7, 40, 19]]), 'ids 4',
                    'finite'),
    'polygon of strings': (ann(segmentation=[['24', 7, 9, 7, 40, 19]]),
                           'ids 4', 'finite'),
    'rle of another size': (rle(size=[64, 48]), 'ids 4', '[64, 48]',
                            '64x48 pixels'),
    'rle too short': (rle(counts=[500, 300]), 'ids 4', 'run lengths'),
    'rle negative': (rle(counts=[-500, 300, 48 * 64 + 200]), 'run lengths'),
    'rle without counts': (ann(segmentation=dict(size=[48, 64])), 'ids 4'),
    'packed rle that lies': (packed(96, 128, size=[48, 64]), 'ids 4',
                             'run lengths'),
    'missing': (file(os.remove), "train/2.jpg'", '1 of 4', 'not there'),
    'missing in val': (file(os.remove, 'val/12.jpg'), 'val.json', '12.jpg'),
    'other case': (file(lambda p: p.rename(p.with_name('2.JPG'))),
                   "did you mean '2.JPG'"),
    'backslash': (image(file_name='a\\2.jpg'), 'written with /'),
    'empty image': (file(lambda p: p.write_bytes(b'')), '2.jpg', '0 bytes'),
    'a folder': (file(lambda p: (os.remove(p), p.mkdir())), 'folders'),
    'turned': (file(turn), '2.jpg', 'EXIF', '48x64', '64x48'),
    'resized': (file(lambda p: Image.open(p).resize((32, 24)).save(p)),
                '2.jpg has 32x24', 'should have 64x48'),
    'no folder': (data(data_prefix=dict(img='nowhere')), 'nowhere',
                  'not there'),
    'no prefix': (data(data_prefix=dict(img_path='train')), "key 'img'"),
    'no comma': (meta(classes=('ring')), "('ring',)", 'comma'),
    'misspelt': (meta(classes=('ring', 'sqare', 'star')), "'sqare'",
                 "did you mean 'square'", "('ring', 'square', 'star')"),
    'numbers': (meta(classes=(1, 2)), '(1, 2)', 'tuple of names'),
    'class twice': (meta(classes=('ring', 'ring', 'star')), "'ring'",
                    'more than once'),
    'wrong argument': (data(classes=('ring', )), 'metainfo=dict'),
    'default classes': (lambda c: c.cfg['train_dataloader']['dataset'].pop(
        'metainfo'), 'by default those of CocoDataset', '80 of 80'),
    'order of classes': (meta(classes=('star', 'square', 'ring')), 'label 0',
                         "'ring'", "called 'star'"),
    'order in val': (lambda c: c.val['categories'].reverse(), 'val.json',
                     'train.json', 'label 0'),
    'fewer in val': (meta('val', classes=('square', 'star')), 'label 0'),
    'order in the evaluator': (other_order, 'other.json', 'label 0'),
    'half': (half, 'half.json', 'val.json', '2 images'),
    'no evaluator file': (lambda c: c.cfg['val_evaluator'].update(
        ann_file='gone.json'), 'gone.json', 'not there'),
    'too small': (data(filter_cfg=dict(min_size=49)), 'nothing is left',
                  "'min_size': 49", '4 pictures'),
    'no objects': (put('train', 'annotations', []), 'nothing is left',
                   'train.json'),
    'no batch': (lambda c: c.cfg['train_dataloader'].update(
        batch_size=5, drop_last=True), '4 images', 'no step'),
    'negative in val': (ann('val', bbox=[30, 5, -10, 9]), 'ids 4',
                        'negative', '-10'),
    'cut': (file(cut), '2.jpg', 'end too early'),
    'cut png': (both(image(file_name='2.png'), file(lambda p: (
        Image.open(p).save(p.with_suffix('.png')), cut(
            p.with_suffix('.png'))))), '2.png'),
}

WARNINGS = {
    'unknown category': (ann(category_id=99), 'ids 4', '99', "'1', '2', '3'"),
    'negative width': (ann(bbox=[30, 5, -10, 9]), 'ids 4', 'negative', '-10'),
    'two corners': (each('bbox', lambda b: [b[0], b[1], b[0] + b[2] + 20,
                                            b[1] + b[3] + 26]),
                    '[x1, y1, x2, y2]'),
    'area nan': (ann(area=NAN), 'ids 4', 'nan'),
    'polygon of 2 points': (ann(segmentation=[[1, 1, 9, 9]]), 'ids 4',
                            '3 points'),
    'polygon outside': (ann(segmentation=[[240, 70, 400, 70, 400, 190]]),
                        'ids 4', 'outside', '64x48'),
    'polygon elsewhere': (ann(segmentation=[[1, 30, 9, 30, 9, 40]]), 'ids 4',
                          'do not touch'),
    'palette': (meta(palette=[(1, 2, 3)]), '1 colours for 3'),
    'string ids': (image_ids(str), 'images', "as '1'"),
    'id 0 in val': (ann('val', id=0), 'val.json', 'id 0', 'AP'),
    'unknown image': (ann(image_id=99), 'ids 4', '99'),
    'file listed twice': (image(file_name='1.jpg'), "'1.jpg'"),
    'flat box': (ann(bbox=[24, 7, 16, 0]), 'ids 4', 'narrower or lower'),
    'flat in val': (ann('val', bbox=[24, 7, 16, 0]), 'val.json', 'ids 4',
                    'never matched'),
    'partly outside': (ann(bbox=[24, 7, 90, 12]), 'ids 4', 'border'),
    'class without objects': (each('category_id', lambda v: min(v, 2)),
                              "'star'"),
    'most are filtered': (
        lambda c: c.train['annotations'].__delitem__(slice(1, None)),
        '1 of 4 pictures', 'filter_empty_gt=False'),
    'a tenth is filtered': (ten, '9 of 10 pictures'),
    'unknown class at the end': (meta(classes=('ring', 'square', 'star', 'x')),
                                 "'x'", 'no categories'),
    'subset evaluated as a whole': (data('val', indices=2),
                                    '2 of the 4 images', 'missed'),
}


def problems(coco, change):
    change(coco)
    coco.write()
    return check_config(coco.cfg)


def test_nothing_wrong(coco):
    found = problems(coco, lambda c: None)
    assert {p.level for p in found} == {'note'}
    assert 'found nothing wrong, ' in report(found)
    assert '4 image files looked for' in report(found)


@pytest.mark.parametrize('level, name', [
    *(('error', name) for name in ERRORS),
    *(('warning', name) for name in WARNINGS)])
def test_words(coco, level, name):
    change, *words = (ERRORS if level == 'error' else WARNINGS)[name]
    found = problems(coco, change)
    expect(found, level, words)
    assert level == 'error' or not any(p.level == 'error' for p in found)


def test_all_at_once(coco):
    """As many mistakes as one has are said together, each with its file."""
    changes = ['annotation twice', 'misspelt', 'missing in val', 'half']
    found = problems(coco, both(*(ERRORS[name][0] for name in changes)))
    for name in changes:
        expect(found, 'error', ERRORS[name][1:])


@pytest.mark.parametrize('change', [
    both(rle(), drop('iscrowd'),  # read by the evaluation alone
         file(lambda p: Image.open(p).convert('L').save(p)),
         file(lambda p: Image.open(p).convert('CMYK').save(p), 'train/1.jpg'),
         file(lambda p: p.write_bytes(p.read_bytes() + b'\0' * 100),
              'train/3.jpg')),
    both(packed(48, 64), data(metainfo=dict(classes=('square', 'star')))),
    both(drop('segmentation', 'val'),
         lambda c: c.cfg['val_evaluator'].update(metric='bbox')),
    both(ann('val', bbox=[500, 5, 9, 0]),  # masks alone are compared
         lambda c: c.cfg['val_evaluator'].update(metric='segm')),
    both(lambda c: c.val.pop('annotations'),
         lambda c: c.cfg['val_evaluator'].update(
             format_only=True, outfile_prefix='results')),
    both(file(turn), lambda c: c.cfg['train_dataloader']['dataset'][
        'pipeline'][0].update(color_type='color_ignore_orientation')),
])
def test_what_is_allowed(coco, change):
    found = problems(coco, change)
    wrong = [p for p in found if p.level == 'error' and 'label' not in p.text]
    assert not wrong, report(found)


@pytest.mark.parametrize('wrap', [
    lambda d: dict(type='ClassBalancedDataset', oversample_thr=.1, dataset=d),
    lambda d: dict(type='RepeatDataset', times=2, dataset=dict(
        type='ConcatDataset', datasets=[d, d])),
])
def test_wrappers(coco, wrap):
    loader = coco.cfg['train_dataloader']
    loader['dataset'] = wrap(loader['dataset'])
    expect(problems(coco, ann(bbox=[30, 5, -10, 9])), 'warning', ['negative'])


def test_subclass(coco):
    """One's own class is looked at, unless it reads its file itself."""

    class Mine(CocoDataset):
        METAINFO = dict(classes=('ring', 'sqare', 'star'))

    class Other(CocoDataset):

        def load_data_list(self):
            self.cat_ids, self.cat_img_map = [], {}
            return [dict(img_path=str(coco.root / 'train/2.jpg'), img_id=2,
                         height=48, width=64, instances=[])]

    dataset = coco.cfg['train_dataloader']['dataset']
    dataset.pop('metainfo')
    dataset['type'] = Mine
    expect(problems(coco, lambda c: None), 'error', ["'square'", 'Mine'])
    # What it makes of the file is its own affair.
    dataset.update(type=Other, filter_cfg=None)
    found = problems(coco, drop('bbox'))
    assert not [p for p in found if p.level == 'error'], report(found)
    expect(found, 'note', ['1 image file looked for'])
    dataset['type'] = 'Unheard'
    expect(problems(coco, lambda c: None), 'warning',
           ['Unheard', 'not looked at'])

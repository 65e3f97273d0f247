"""What own_data.py makes of labels that are incomplete, broken or odd."""
import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from . import layouts
from .conftest import built

STAR = layouts.CLASSES


def edited(folder, **edits):
    """The annotations, changed by a function for each split."""
    for split, edit in edits.items():
        path = folder / f'annotations/instances_{split}2017.json'
        data = json.loads(path.read_text())
        edit(data)
        path.write_text(json.dumps(data))


def first(data, **changes):
    data['annotations'][0].update(changes)


def test_maps_in_colours(drawn, own_data, tmp_path):
    """Green is one as red is, though its number is small."""
    root = tmp_path / 'data'
    for picture, _ in drawn.splits['train']:
        drawn.copy(picture, root / 'JPEGImages' / picture.name)
        label = np.zeros((96, 96, 3), np.uint8)
        label[:40], label[50:] = (0, 128, 0), (0, 0, 128)
        path = root / f'SegmentationClass/{picture.stem}.png'
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), label)
    done, cfg = own_data(root)
    assert done.returncode == 0, done.stderr
    assert built(cfg).metainfo['classes'] == (
        'background', 'colour_0_128_0', 'colour_128_0_0')
    assert "'colour 0 0 0', 'colour 0 128 0', " in done.stdout


def test_small_objects_are_named_by_their_picture(drawn, own_data, tmp_path):
    layouts.yolo_roboflow(drawn, tmp_path / 'data')
    text = next((tmp_path / 'data/train/labels').glob('*.txt'))
    lines = text.read_text().splitlines()
    text.write_text('\n'.join([*lines, '0 0.5 0.5 0.001 0.2']))
    done, _ = own_data(tmp_path / 'data')
    assert f'{text.stem}.jpg: object {len(lines) + 1}' in done.stdout
    for path in (tmp_path / 'data').glob('*/labels/*.txt'):
        path.write_text('0 0.5 0.5 0.001 0.2\n' * 3)
    done, _ = own_data(tmp_path / 'data')
    assert done.returncode == 1
    assert 'a pixel wide and high at least' in done.stderr


@pytest.mark.parametrize('layout, place, name', [
    ('yolo_roboflow', 'valid', 'test'),
    ('roboflow_coco', 'valid', 'test'),
    ('maps', '*/val', 'test'),
    ('folders', 'val', 'test'),
])
def test_a_test_split_is_tested(drawn, own_data, tmp_path, layout, place,
                                name):
    """Its pictures are those of the test, and no others."""
    root = tmp_path / 'data'
    root.mkdir()
    layouts.LAYOUTS[layout](drawn, root)
    for val in root.glob(place):
        shutil.copytree(val, val.with_name(name))
    done, cfg = own_data(root)
    assert done.returncode == 0, done.stderr
    val, test = (built(cfg, part) for part in ('val', 'test'))
    places = [{Path(d.get_data_info(i)['img_path']).relative_to(root)
               for i in range(len(d))} for d in (val, test)]
    assert all(name in path.parts for path in places[1])
    assert not any(name in path.parts for path in places[0])
    evaluator = cfg.test_evaluator.get('ann_file')
    if evaluator:
        assert evaluator == test.ann_file != val.ann_file


@pytest.mark.parametrize('edit, words', [
    (lambda d: [i.pop('width') for i in d['images']], ''),
    (lambda d: d['annotations'][0].pop('bbox'), ''),
    (lambda d: first(d, area=None, iscrowd=None), ''),
    (lambda d: first(d, bbox=None, segmentation=[]), 'without a box'),
    (lambda d: first(d, bbox=[1, 1, 0.2, 9]), 'narrower or lower'),
    (lambda d: first(d, bbox=[900, 1, 20, 9]), 'outside of the picture'),
    (lambda d: first(d, image_id=999), 'not listed'),
    (lambda d: d['images'][0].update(file_name='gone.jpg'), 'missing'),
    (lambda d: first(d, segmentation=[[1, 1, 5]]), 'without an outline'),
    (lambda d: d['categories'].insert(
        0, dict(id=77, name='shape', supercategory='none')),
     "parent category 'shape' has no objects"),
    (lambda d: [a.update(bbox=[0, 0, .2, .2]) for a in d['annotations']],
     'error.*boxes cannot be used'),
    (lambda d: first(d, category_id=99), 'error.*category_id.*99'),
    (lambda d: d['categories'][1].update(name='star'), 'error.*name of its'),
    (lambda d: d['images'][0].pop('id'), 'error.*an id of its own'),
    (lambda d: d.update(annotations=[]), 'error.*no annotations'),
    (lambda d: d.update(images=3), 'error.*no images'),
])
def test_incomplete_records(drawn, own_data, tmp_path, edit, words):
    """Put right, or left out by name, or refused; never a traceback."""
    root = tmp_path / 'data'
    shutil.copytree(drawn.folder, root)
    edited(root, train=edit)
    done, cfg = own_data(root, '--train',
                         'annotations/instances_train2017.json', '--val',
                         root / 'annotations/instances_val2017.json')
    output = done.stdout + done.stderr
    assert re.search(words, output), output
    assert bool(done.returncode) == words.startswith('error'), output
    if cfg:
        assert len(built(cfg)) == 8 - ('missing' in words)
        assert tuple(built(cfg).metainfo['classes']) == STAR


def test_other_orders_and_background(drawn, own_data, tmp_path):
    """Classes are matched by name; pictures without objects are kept."""
    root = tmp_path / 'data'
    shutil.copytree(drawn.folder, root)
    emptied = []

    def without(data):
        emptied.extend(i['id'] for i in data['images'][:3])
        data['annotations'] = [
            a for a in data['annotations'] if a['image_id'] not in emptied]

    edited(root, train=without, val=lambda d: d['categories'].reverse())
    done, cfg = own_data(root)
    assert done.returncode == 0, done.stderr
    assert '8 pictures' in done.stdout and '3 without objects' in done.stdout
    dataset = built(cfg)
    assert len(dataset) == 8
    val = built(cfg, 'val')
    assert val.metainfo['classes'] == dataset.metainfo['classes']
    for i in range(len(val)):
        info = val.get_data_info(i)
        wanted = drawn.objects[drawn.like(cv2.imread(info['img_path']))]
        assert [x['bbox_label'] + 1 for x in info['instances']] == [
            a['category_id'] for a in wanted]


def test_broken_files(drawn, own_data, tmp_path):
    """Each format with what is damaged in it: counted, named, and trained
    without; a folder without labels is told from one with."""
    def fresh(layout):
        root = tmp_path / layout
        root.mkdir()
        layouts.LAYOUTS[layout](drawn, root)
        return root

    root = fresh('yolo_plain')
    texts = sorted((root / 'labels').glob('*.txt'))
    texts[0].write_text('0 0.5 0.5\n1 0.5 0.5 0.2 0.2\nfoo\n0 90 90 9 9\n')
    texts[1].unlink()
    (root / 'images/junk.jpg').write_text('junk')
    done, _ = own_data(root)
    assert "3 lines other than YOLO's" in done.stdout, done.stderr
    assert '1 without objects' in done.stdout
    assert '1 file unreadable as a picture' in done.stdout
    texts[2].write_text('7 0.5 0.5 0.2 0.2\n')
    done, _ = own_data(root)
    assert f'{texts[2].name}, line 1: class 7' in done.stderr

    root = fresh('labelme')
    texts = sorted(root.glob('*.json'))
    texts[0].write_text('{')
    texts[1].write_text(json.dumps(dict(
        json.loads(texts[1].read_text()), shapes=[3, dict(label='x')])))
    texts[2].unlink()
    done, _ = own_data(root)
    assert '1 file unreadable as JSON' in done.stdout, done.stderr
    assert '2 pictures without labels' in done.stdout

    root = fresh('voc')
    texts = sorted((root / 'Annotations').glob('*.xml'))
    texts[0].write_text('<annotation>')
    texts[1].write_text(texts[1].read_text().replace('<xmin>', '<x>', 1)
                        .replace('</xmin>', '</x>', 1))
    done, _ = own_data(root)
    assert '1 file unreadable as XML' in done.stdout, done.stderr
    assert '1 object without a name or a box' in done.stdout

    (tmp_path / 'bare').mkdir()
    done, _ = own_data(tmp_path / 'bare')
    assert 'holds no pictures' in done.stderr
    cv2.imwrite(str(tmp_path / 'bare/a.png'), np.zeros((9, 9, 3), np.uint8))
    done, _ = own_data(tmp_path / 'bare')
    assert 'no labels' in done.stderr and 'Pascal VOC' in done.stderr

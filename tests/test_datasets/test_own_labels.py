"""What own_data.py makes of labels that are incomplete, broken or odd."""
import json
import shutil

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from . import layouts
from .conftest import built, read


@pytest.fixture
def edited(drawn, tmp_path):
    """edited(train=edit): the drawn set, its annotations changed by a function
    for each split."""

    def edited(**edits):
        root = tmp_path / 'data'
        shutil.copytree(drawn.folder, root)
        for split, edit in edits.items():
            path = root / f'annotations/instances_{split}2017.json'
            data = json.loads(path.read_text())
            edit(data)
            path.write_text(json.dumps(data))
        return root

    return edited


def test_maps_in_colours(drawn, tmp_path):
    """Green is one as red is, though its number is small."""
    root = tmp_path / 'data'
    for picture, _ in drawn.splits['train']:
        drawn.copy(picture, root / 'JPEGImages' / picture.name)
        label = np.zeros((96, 96, 3), np.uint8)
        label[:40], label[50:] = (0, 128, 0), (0, 0, 128)
        path = root / f'SegmentationClass/{picture.stem}.png'
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), label)
    said, cfg = read(root)
    dataset = built(cfg)
    assert dataset.metainfo['classes'] == (
        'background', 'colour_0_128_0', 'colour_128_0_0')
    assert "'colour_0_0_0', 'colour_0_128_0', " in said
    label = cv2.imread(dataset.get_data_info(0)['seg_map_path'], -1)
    assert [label[0, 0], label[45, 0], label[90, 0]] == [1, 0, 2]


def test_incomplete_records(edited):
    """Put right or left out, each counted and named, and built without."""

    def edit(data):
        for image in data['images'][1:]:
            del image['width']
        data['images'][0]['file_name'] = 'gone.jpg'
        data['categories'].insert(0, dict(id=77, name='shape'))
        there = [a for a in data['annotations'] if a['image_id'] > 1]
        for ann, changes in zip(there, (
                dict(area=None, iscrowd=None), dict(bbox=None),
                dict(bbox=None, segmentation=[]), dict(bbox=[1, 1, 0.2, 9]),
                dict(bbox=[900, 1, 20, 9]), dict(image_id=999),
                dict(segmentation=[]), {})):
            ann.update(changes)
        # Nearly all have outlines.
        data['annotations'] += [
            dict(there[-1], id=1000 + i) for i in range(20)]

    said, cfg = read(edited(train=edit))
    for words in (
            '7 pictures without width and height: read from the file',
            '1 object without a proper area: added',
            '1 object without a proper iscrowd: added',
            '1 object without a proper bbox: added',
            '1 object without a box of four numbers or an outline: left out',
            '1 object narrower or lower than a pixel: left out',
            '1 object outside of the picture: left out',
            'of a picture that is not listed, or left out: left out',
            '1 object without an outline: left out',
            '2017.json and missing: left out', "('gone.jpg')",
            "category 'shape' has no objects to learn from"):
        assert words in said
    dataset = built(cfg)
    assert len(dataset) == 7
    assert dataset.metainfo['classes'] == layouts.CLASSES
    # What is written is what is used.
    written = COCO(dataset.ann_file).anns
    assert sum(len(dataset.get_data_info(i)['instances'])
               for i in range(7)) == len(written)
    assert 0 < len(written) < 16 + 20


@pytest.mark.parametrize('edit, words', [
    (lambda d: [a.update(bbox=[0, 0, .2, .2]) for a in d['annotations']],
     'boxes cannot be used'),
    (lambda d: d['annotations'][0].update(category_id=99), 'category_id.*99'),
    (lambda d: d['categories'][1].update(name='star'), 'a name of its own'),
    (lambda d: d['images'][0].pop('id'), 'an id of its own'),
    (lambda d: d.update(annotations=[]), 'no annotations'),
    (lambda d: d.update(images=3), 'no images'),
    (lambda d: [i.update(file_name='a.jpg') for i in d['images']],
     'none of its 8 pictures')])
def test_wrong_records(edited, edit, words):
    with pytest.raises(ValueError, match=words):
        read(edited(train=edit), '--train',
             'annotations/instances_train2017.json')


def test_other_orders_and_background(drawn, edited):
    """Classes are matched by name; pictures without objects are kept."""

    def without(data):
        emptied = [image['id'] for image in data['images'][:3]]
        data['annotations'] = [
            a for a in data['annotations'] if a['image_id'] not in emptied]

    said, cfg = read(
        edited(train=without, val=lambda d: d['categories'].reverse()))
    assert '8 pictures' in said and '3 without objects' in said
    dataset, val = built(cfg), built(cfg, 'val')
    assert len(dataset) == 8
    assert val.metainfo['classes'] == dataset.metainfo['classes']
    for i in range(len(val)):
        info = val.get_data_info(i)
        wanted = drawn.objects[drawn.like(cv2.imread(info['img_path']))]
        assert [x['bbox_label'] + 1 for x in info['instances']] == [
            a['category_id'] for a in wanted]


def test_broken_files(laid_out, tmp_path, call_tool):
    """Each format with what is damaged in it: counted, named, and trained
    without; a folder without labels is told from one with."""
    root = laid_out('yolo_plain')
    texts = sorted((root / 'labels').glob('*.txt'))
    texts[0].write_text('0 0.5 0.5\n1 0.5 0.5 0.2 0.2\nfoo\n0 90 90 9 9\n'
                        '0 0.5 0.5 0.001 0.2\n')
    texts[1].unlink()
    (root / 'images/junk.jpg').write_text('junk')
    done = call_tool('dataset_tools/own_data', root, tmp_path / 'mine.py')
    assert done.returncode == 0, done.stderr
    for words in ("3 lines other than YOLO's", '1 without objects',
                  '1 file unreadable as a picture',
                  f'{texts[0].stem}.jpg: object 2'):
        assert words in done.stdout
    texts[2].write_text('7 0.5 0.5 0.2 0.2\n')
    with pytest.raises(ValueError, match=f'{texts[2].name}, line 1: class 7'):
        read(root)
    for path in texts:
        path.write_text('0 0.5 0.5 0.001 0.2\n' * 3)
    with pytest.raises(ValueError, match='a pixel wide and high at least'):
        read(root)

    root = laid_out('labelme')
    texts = sorted(root.glob('*.json'))
    texts[0].write_text('{')
    texts[1].write_text(json.dumps(dict(
        json.loads(texts[1].read_text()), shapes=[3, dict(label='x')])))
    texts[2].unlink()
    said, _ = read(root)
    assert '1 file unreadable as JSON' in said
    assert '2 pictures without labels' in said

    root = laid_out('voc')
    texts = sorted((root / 'Annotations').glob('*.xml'))
    texts[0].write_text('<annotation>')
    texts[1].write_text(texts[1].read_text().replace('<xmin>', '<x>', 1)
                        .replace('</xmin>', '</x>', 1))
    said, _ = read(root)
    assert '1 file unreadable as XML' in said
    assert '1 object without a name or a box' in said

    root = tmp_path / 'bare'
    root.mkdir()
    with pytest.raises(FileNotFoundError, match='holds no pictures'):
        read(root)
    cv2.imwrite(str(root / 'a.png'), np.zeros((9, 9, 3), np.uint8))
    done = call_tool('dataset_tools/own_data', root, tmp_path / 'no.py')
    assert 'no labels' in done.stderr and 'Pascal VOC' in done.stderr
    assert 'Traceback' not in done.stderr

# Copyright (c) mmfishnet authors. All rights reserved.
import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from mmfishnet.config import config_path
from mmfishnet.datasets import CLASSES, draw_classification, draw_coco, shapes

ROOT = Path(__file__).parents[2]
COCO_SET = dict(train=60, val=8, max_objects=6, classes=CLASSES, clutter=1.0)
CLS_SET = dict(train=360, val=120, size=48)


@pytest.fixture(scope='module')
def coco_dir(tmp_path_factory):
    out = tmp_path_factory.mktemp('shapes') / 'coco'
    assert draw_coco(out, **COCO_SET)
    return out


@pytest.fixture(scope='module')
def cls_dir(tmp_path_factory):
    out = tmp_path_factory.mktemp('shapes') / 'cls'
    assert draw_classification(out, **CLS_SET)
    return out


def load_coco(out, split='train'):
    return COCO(str(out / 'annotations' / f'instances_{split}2017.json'))


def contents(folder):
    """Digest of every file in a folder, by relative path."""
    return {
        str(path.relative_to(folder)): hashlib.md5(
            path.read_bytes()).hexdigest()
        for path in folder.rglob('*') if path.is_file()
    }


# ----------------------------------------------------------------------------
# The COCO set


def test_coco_set(coco_dir):
    """Files, sizes, and annotations that agree with pycocotools' masks; of
    them the semantic maps are made up."""
    assert sorted(p.name for p in coco_dir.iterdir()) == [
        'annotations', 'semantic', 'shapes.json', 'train2017', 'val2017'
    ]
    assert json.loads((coco_dir / 'shapes.json').read_text())['train'] == 60
    kinds, ranges, classes = Counter(), Counter(), Counter()
    per_image, seen = Counter(), set()
    for split, number in (('train', 60), ('val', 8)):
        coco = load_coco(coco_dir, split)
        assert [c['name'] for c in coco.loadCats(coco.getCatIds())
                ] == list(CLASSES)
        assert len(coco.imgs) == number
        folder = coco_dir / f'{split}2017'
        assert {p.name for p in folder.iterdir()} == {
            i['file_name'] for i in coco.imgs.values()}
        for info in coco.imgs.values():
            image = cv2.imread(str(folder / info['file_name']))
            assert image.shape == (192, 192, 3)
            assert (info['height'], info['width']) == (192, 192)
            total = np.zeros((192, 192), int)
            semantic = np.zeros((192, 192), np.uint8)
            for ann in coco.loadAnns(coco.getAnnIds(info['id'])):
                mask, rle = coco.annToMask(ann), coco.annToRLE(ann)
                assert ann['iscrowd'] == 0
                assert ann['area'] == coco_mask.area(rle) == mask.sum() > 0
                assert ann['bbox'] == coco_mask.toBbox(rle).tolist()
                total += mask
                semantic[mask > 0] = ann['category_id']
                kinds[type(ann['segmentation'])] += 1
                ranges[int(np.digitize(ann['area'], [32**2, 96**2]))] += 1
                classes[ann['category_id']] += 1
                per_image[split, info['id']] += 1
            assert total.max() == 1  # visible parts do not overlap
            path = coco_dir / f'semantic/{split}2017' / info['file_name']
            found = cv2.imread(str(path.with_suffix('.png')), -1)
            assert found.dtype == np.uint8 and (found == semantic).all()
            seen |= {*np.unique(found)}
    assert seen == {*range(len(CLASSES) + 1)}
    assert set(kinds) == {list, dict} and min(kinds.values()) > 10
    assert set(ranges) == {0, 1, 2} and min(ranges.values()) > 5
    assert set(classes) == set(range(1, len(CLASSES) + 1))
    assert set(per_image.values()) == {1, 2, 3, 4, 5, 6}


def test_coco_in_mmdet(coco_dir):
    """MMDetection's own data set and training pipeline read it, with no
    object lost or changed."""
    cfg = Config.fromfile(
        config_path('shapes/mask_rcnn_fishnet_shapes.py'))
    init_default_scope('mmdet')
    cfg = cfg.train_dataloader.dataset
    cfg.update(data_root=str(coco_dir), metainfo=dict(classes=CLASSES))
    cfg.pipeline = [dict(type='LoadImageFromFile'),
                    dict(type='LoadAnnotations', with_bbox=True,
                         with_mask=True), dict(type='PackDetInputs')]
    dataset = DATASETS.build(cfg)
    assert len(dataset) == 60
    coco = load_coco(coco_dir)
    for index in range(20):
        sample = dataset[index]['data_samples']
        found = sample.gt_instances
        wanted = coco.loadAnns(coco.getAnnIds(sample.img_id))
        assert found.labels.tolist() == [a['category_id'] - 1 for a in wanted]
        assert (found.masks.masks == [coco.annToMask(a) for a in wanted]).all()
        boxes = np.array([a['bbox'] for a in wanted])
        boxes[:, 2:] += boxes[:, :2]
        assert (found.bboxes.numpy() == boxes).all()
        assert not len(sample.ignored_instances)


def test_coco_classes_and_clutter(tmp_path):
    """Some classes only, numbered in the order given, on plain ground."""
    wanted = ('star', 'arrow')
    draw_coco(tmp_path, train=12, val=1, classes=iter(wanted), clutter=0)
    coco = load_coco(tmp_path)
    assert [c['name'] for c in coco.loadCats([1, 2])] == list(wanted)
    areas = {1: [], 2: []}
    for ann in coco.anns.values():
        x, y, w, h = ann['bbox']
        areas[ann['category_id']].append(ann['area'] / max(w, h)**2)
    assert min(map(len, areas.values())) > 5
    # An arrow fills less of its box than a star.
    assert np.mean(areas[1]) > np.mean(areas[2]) + 0.05
    for info in coco.imgs.values():
        path = tmp_path / 'train2017' / info['file_name']
        image = cv2.imread(str(path)).astype(float)
        path = tmp_path / 'semantic/train2017' / info['file_name']
        semantic = cv2.imread(str(path.with_suffix('.png')), -1)
        expected = np.zeros(image.shape[:2], np.uint8)
        for ann in coco.loadAnns(coco.getAnnIds(info['id'])):
            expected[coco.annToMask(ann) > 0] = ann['category_id']
        assert (semantic == expected).all()
        ground = cv2.erode((semantic == 0).astype(np.uint8), np.ones((9, 9)))
        # The grain's spread is at most 3 %; edges in JPEG ring a little.
        assert (image[ground > 0].std(axis=0) < 12).all()


# ----------------------------------------------------------------------------
# The classification set


def test_classification_in_mmpretrain(cls_dir):
    from mmpretrain.datasets import CustomDataset
    for split, number in (('train', 360), ('val', 120)):
        dataset = CustomDataset(data_root=str(cls_dir), data_prefix=split)
        assert tuple(dataset.CLASSES) == CLASSES
        assert len(dataset) == number
        labels = Counter(int(x) for x in dataset.get_gt_labels())
        assert set(labels.values()) == {number // len(CLASSES)}
        info = dataset.get_data_info(number // 2)
        assert CLASSES[info['gt_label']] == Path(info['img_path']).parent.name
        assert cv2.imread(info['img_path']).shape == (48, 48, 3)


def test_linear_models_fail(cls_dir):
    """Neither pixels nor the statistics of colours tell the class to a ridge
    regression with the best of several strengths."""

    def load(split):
        paths = sorted((cls_dir / split).glob('*/*.png'))
        images = np.array([cv2.imread(str(p)) for p in paths]) / 255 - 0.5
        return images, np.array([CLASSES.index(p.parent.name) for p in paths])

    def statistics(images):
        moments = [images.mean((1, 2)), images.std((1, 2))]
        return np.concatenate(moments, axis=1) * 30

    images, labels = load('train')
    val_images, val_labels = load('val')
    for features in (lambda x: x.reshape(len(x), -1), statistics):
        x, v = features(images), features(val_images)
        accuracies = []
        for strength in (1, 100, 10000):
            weights = np.linalg.solve(
                x @ x.T + strength * np.eye(len(x)),
                np.eye(len(CLASSES))[labels] - 1 / len(CLASSES))
            guess = (v @ x.T @ weights).argmax(axis=1)
            accuracies.append((guess == val_labels).mean())
        assert max(accuracies) < 0.35


# ----------------------------------------------------------------------------
# Folders


def test_same_seed_same_bytes(tmp_path):
    """In another process, too; it can do without mmdet and mmpretrain."""
    code = ('import runpy, sys; '
            'sys.modules["mmdet"] = sys.modules["mmpretrain"] = None\n'
            'for task in "coco", "cls":\n'
            '    sys.argv[1:] = [f"{task}/there", "--task", task, "--train", '
            '"24", "--val", "12"]\n'
            f'    runpy.run_path({str(ROOT)!r} + "/tools/dataset_tools/'
            'draw_shapes.py", run_name="__main__")')
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=tmp_path, text=True,
        env={**os.environ, 'PYTHONPATH': str(ROOT)}, capture_output=True)
    assert done.returncode == 0, done.stderr
    draw_coco(tmp_path / 'coco/here', train=24, val=12)
    draw_classification(tmp_path / 'cls/here', train=24, val=12)
    for task in 'coco', 'cls':
        assert f'Drew shapes to {task}/there' in done.stdout
        assert contents(tmp_path / task / 'there') == contents(
            tmp_path / task / 'here')


def test_other_seeds_and_numbers(coco_dir, tmp_path):
    less = {**COCO_SET, 'train': 5, 'val': 5}
    draw_coco(tmp_path / 'less', **less)
    draw_coco(tmp_path / 'other', **less, seed=1)
    first, less = contents(coco_dir), contents(tmp_path / 'less')
    other = contents(tmp_path / 'other')
    images = [name for name in less if name.endswith(('.jpg', '.png'))]
    assert len({less[name] for name in images}) == 20  # train is not val
    for name in images:
        assert less[name] == first[name] != other[name]


def test_finished_set_is_left_alone(tmp_path):
    out = tmp_path / 'set'
    assert draw_coco(out, train=3, val=1)
    before = {p: p.stat().st_mtime_ns for p in out.rglob('*')}
    assert not draw_coco(out, train=3, val=1)
    assert not draw_coco(str(out), train=3, val=1, overwrite=True)
    assert {p: p.stat().st_mtime_ns for p in out.rglob('*')} == before


def test_other_parameters(tmp_path, call_tool):
    """What was drawn is replaced if that is said, and what was not, never."""
    out, tool = tmp_path / 'set', 'dataset_tools/draw_shapes'
    draw_coco(out, train=3, val=2)
    before = contents(out)
    with pytest.raises(FileExistsError, match="task is 'coco' and not 'cls'"):
        draw_classification(out, train=12, val=12)
    done = call_tool(tool, out, '--train', 2, '--val', 2)
    assert done.returncode == 1
    assert re.search('train is 3 and not 2.*--overwrite', done.stderr)
    assert 'already' in call_tool(tool, out, '--train', 3, '--val', 2).stdout
    assert contents(out) == before

    mine = out / 'train2017/mine.txt'
    mine.write_text('mine')
    refused = call_tool(tool, out, '--train', 2, '--val', 2, '--overwrite')
    assert "'train2017/mine.txt' was not drawn" in refused.stderr
    assert mine.read_text() == 'mine'
    mine.unlink()
    # Another task altogether leaves nothing behind.
    draw_classification(out, train=12, val=12, overwrite=True)
    draw_classification(tmp_path / 'cls', train=12, val=12)
    assert contents(out) == contents(tmp_path / 'cls')
    assert not (out / 'annotations').exists()


@pytest.mark.parametrize('name, content', [
    ('annotations/instances_val2017.json', 'real'),
    ('shapes.json', '{"shapes": []}'), ('shapes.json', '[3]')])
def test_foreign_folder(tmp_path, name, content):
    path = tmp_path / 'set' / name
    path.parent.mkdir(parents=True)
    path.write_text(content)
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match=f"{name}' was not drawn"):
            draw_coco(tmp_path / 'set', train=2, val=2, overwrite=overwrite)
    assert list(contents(tmp_path / 'set')) == [name]
    with pytest.raises(FileExistsError, match='is a file'):
        draw_coco(path, train=2, val=2)


def test_empty_folder(tmp_path):
    """It is no other's, and a link stays one."""
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'link').symlink_to('empty')
    assert draw_coco(tmp_path / 'link', train=2, val=2)
    assert (tmp_path / 'link').is_symlink()
    assert (tmp_path / 'empty/shapes.json').exists()


def test_killed_half_way(tmp_path, monkeypatch):
    """What was drawn so far is in another folder, and is drawn anew."""
    drawn = []

    def draw(*args):
        if len(drawn) == 3:
            raise KeyboardInterrupt
        drawn.append(draw_scene(*args))
        return drawn[-1]

    draw_scene = shapes.draw_scene
    with monkeypatch.context() as patch:
        patch.setattr(shapes, 'draw_scene', draw)
        with pytest.raises(KeyboardInterrupt):
            draw_coco(tmp_path / 'set', train=9)
    assert not (tmp_path / 'set').exists()
    assert len([*tmp_path.glob('set.part/train2017/*.jpg')]) == 3
    assert draw_coco(tmp_path / 'set', train=2, val=2)
    draw_coco(tmp_path / 'fresh', train=2, val=2)
    assert contents(tmp_path / 'set') == contents(tmp_path / 'fresh')
    assert not (tmp_path / 'set.part').exists()


@pytest.mark.parametrize('draw,kwargs,message', [
    (draw_coco, dict(train=0), 'train must be an integer, 1 or more, .* 0'),
    (draw_coco, dict(size=10), 'size must be an integer, 64 or more'),
    (draw_coco, dict(seed=-1), 'seed must be an integer, 0 or more'),
    (draw_coco, dict(val=1.5), 'val must be an integer, 1 or more, .* 1.5'),
    (draw_coco, dict(max_objects=99), 'max_objects must .* 1 to 50'),
    (draw_coco, dict(classes=['disc', 'cube']), "once, but got .*'cube'"),
    (draw_coco, dict(classes=['disc', 'disc']), 'each once, but got'),
    (draw_coco, dict(clutter=2), 'clutter must be from 0 to 1, but got 2'),
    (draw_classification, dict(val=11), 'val must be an integer, 12 or more'),
])
def test_bad_arguments(tmp_path, draw, kwargs, message):
    with pytest.raises(ValueError, match=message):
        draw(tmp_path / 'set', **kwargs)
    assert not (tmp_path / 'set').exists()

"""Drawn pictures in the folders of label tools, for test_own_data.py."""
import copy
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
from pycocotools.coco import COCO

from mmfishnet.datasets import draw_classification, draw_coco

CLASSES = ('star', 'cross', 'heart')


class Drawn:
    """A set with its annotations, by split: (picture, objects)."""

    def __init__(self, folder):
        draw_coco(folder, classes=CLASSES, train=8, val=3, size=96)
        self.folder, self.splits, self.coco = folder, {}, {}
        for split in ('train', 'val'):
            coco = COCO(
                str(folder / f'annotations/instances_{split}2017.json'))
            self.coco[split] = coco
            self.splits[split] = [
                (folder / f'{split}2017' / info['file_name'],
                 coco.loadAnns(coco.getAnnIds(info['id'])))
                for info in coco.imgs.values()
            ]
        self.objects = {str(picture): objects
                        for found in self.splits.values()
                        for picture, objects in found}
        self.pictures = {name: cv2.imread(name) for name in self.objects}

    def like(self, image):
        """The drawn picture that an image is a copy of."""
        name, = [n for n, p in self.pictures.items() if (p == image).all()]
        return name

    def records(self, split):
        return copy.deepcopy(self.coco[split].dataset)

    def semantic(self, picture):
        path = Path(picture)
        return cv2.imread(str(self.folder / 'semantic' / path.parent.name /
                              f'{path.stem}.png'), cv2.IMREAD_UNCHANGED)

    def copy(self, picture, target):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, target)

    def mask(self, split, ann):
        return self.coco[split].annToMask(ann)

    def outline(self, split, ann):
        """The largest contour of an object, as one polygon (n, 2)."""
        contours = cv2.findContours(
            self.mask(split, ann), cv2.RETR_EXTERNAL,
            cv2.CHAIN_APPROX_NONE)[0]
        return max(contours, key=len)[:, 0].astype(float)


def _write(path, content):
    """Text, an image, or what JSON can hold."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, np.ndarray):
        cv2.imwrite(str(path), content)
    else:
        path.write_text(content if isinstance(content, str) else
                        json.dumps(content))


def roboflow_coco(drawn, root):
    for split, name in (('train', 'train'), ('val', 'valid')):
        data = drawn.records(split)
        for picture, _ in drawn.splits[split]:
            drawn.copy(picture, root / name / picture.name)
        data['categories'] = [
            dict(id=0, name='things', supercategory='none')
        ] + [dict(c, supercategory='things') for c in data['categories']]
        _write(root / name / '_annotations.coco.json', data)


def cvat_coco(drawn, root):
    """One file for all, pictures in images/default."""
    for picture, _ in drawn.splits['train']:
        drawn.copy(picture, root / 'images/default' / picture.name)
    _write(root / 'annotations/instances_default.json', drawn.records('train'))


def label_studio_coco(drawn, root):
    """result.json with paths of another machine, and without sizes."""
    data = drawn.records('train')
    for image in data['images']:
        drawn.copy(drawn.folder / 'train2017' / image['file_name'],
                   root / 'images' / image['file_name'])
        image['file_name'] = 'C:\\data\\images\\' + image['file_name']
        del image['width'], image['height']
    _write(root / 'result.json', data)


def _yolo(drawn, root, split, images, labels, polygons=False):
    for picture, objects in drawn.splits[split]:
        drawn.copy(picture, root / images / picture.name)
        lines = ''
        for ann in objects:
            x, y, w, h = ann['bbox']
            values = np.array([x + w / 2, y + h / 2, w, h])
            if polygons:
                values = drawn.outline(split, ann).ravel()
            lines += ' '.join([str(ann['category_id'] - 1),
                               *(f'{v:.6f}' for v in values / 96)]) + '\n'
        _write(root / labels / f'{picture.stem}.txt', lines)


def yolo_roboflow(drawn, root):
    """Boxes; data.yaml names folders as Roboflow does, a level too high."""
    for split, name in (('train', 'train'), ('val', 'valid')):
        _yolo(drawn, root, split, f'{name}/images', f'{name}/labels')
    _write(root / 'data.yaml', 'train: ../train/images\nval: ../valid/images\n'
           f'test: ../test/images\nnc: 3\nnames: {list(CLASSES)}\n')


def yolo_ultralytics(drawn, root):
    """Polygons; names as a dictionary, and splits that it alone names: a
    folder, and a list."""
    for split, name in (('train', 'one'), ('val', 'two')):
        _yolo(drawn, root, split, f'images/{name}', f'labels/{name}', True)
    _write(root / 'second.txt', ''.join(
        f'./images/two/{picture.name}\n' for picture, _ in
        drawn.splits['val']))
    _write(root / 'shapes.yaml',
           'path: ../datasets/shapes\ntrain: images/one\nval: second.txt\n'
           'names:\n' + ''.join(f'  {i}: {n}\n' for i, n in
                                enumerate(CLASSES)))


def yolo_plain(drawn, root):
    """Label Studio's: classes.txt, no split."""
    _yolo(drawn, root, 'train', 'images', 'labels')
    _write(root / 'classes.txt', '\n'.join(CLASSES) + '\n')


def voc(drawn, root):
    for split in ('train', 'val'):
        stems = []
        for picture, objects in drawn.splits[split]:
            stem = f'{split}_{picture.stem}'
            stems.append(stem)
            drawn.copy(picture, root / f'JPEGImages/{stem}.jpg')
            items = ''
            for ann in objects:
                x, y, w, h = ann['bbox']
                items += (
                    f'<object><name>{CLASSES[ann["category_id"] - 1]}</name>'
                    f'<difficult>0</difficult><bndbox><xmin>{x + 1}</xmin>'
                    f'<ymin>{y + 1}</ymin><xmax>{x + w + 1}</xmax>'
                    f'<ymax>{y + h + 1}</ymax></bndbox></object>')
            _write(root / f'Annotations/{stem}.xml',
                   f'<annotation><filename>{stem}.jpg</filename>'
                   f'{items}</annotation>')
        _write(root / f'ImageSets/Main/{split}.txt', '\n'.join(stems) + '\n')


def labelme(drawn, root):
    """A JSON beside each picture; no split."""
    for picture, objects in drawn.splits['train']:
        drawn.copy(picture, root / picture.name)
        shapes = [dict(label=CLASSES[ann['category_id'] - 1],
                       points=drawn.outline('train', ann).tolist(),
                       group_id=None, shape_type='polygon')
                  for ann in objects]
        shapes.append(dict(label='star', points=[[3, 3]], shape_type='point'))
        _write(root / f'{picture.stem}.json',
               dict(shapes=shapes, imagePath=picture.name))


def instance_maps(drawn, root):
    """One label picture an image: 1, 2, 3 ... for its objects."""
    for split in ('train', 'val'):
        for picture, objects in drawn.splits[split]:
            drawn.copy(picture, root / split / 'images' / picture.name)
            label = np.zeros((96, 96), np.uint16)
            for i, ann in enumerate(objects):
                label[drawn.mask(split, ann) > 0] = i + 1
            _write(root / split / 'masks' / f'{picture.stem}.png', label)


def mask_each(drawn, root):
    """One mask an object, in a folder for each picture; no split."""
    for picture, objects in drawn.splits['train']:
        folder = root / picture.stem
        drawn.copy(picture, folder / f'images/{picture.name}')
        for i, ann in enumerate(objects):
            _write(folder / f'masks/{i:08x}.png',
                   255 * drawn.mask('train', ann))


def maps(drawn, root):
    """Pairs, numbers from 0 on."""
    for split in ('train', 'val'):
        for picture, _ in drawn.splits[split]:
            drawn.copy(picture, root / f'img_dir/{split}/{picture.name}')
            _write(root / f'ann_dir/{split}/{picture.stem}.png',
                   drawn.semantic(picture))


def maps_0_255(drawn, root):
    """Something or nothing, beside each other, no split."""
    for picture, _ in drawn.splits['train']:
        drawn.copy(picture, root / picture.name)
        label = drawn.semantic(picture) > 0
        _write(root / f'{picture.stem}_mask.png', 255 * label.astype(np.uint8))


def folders(drawn, root):
    draw_classification(root, train=24, val=12, size=48)


def folders_without_split(drawn, root):
    draw_classification(root.parent / 'cls', 36, 12, size=48)
    for path in (root.parent / 'cls/train').glob('*/*'):
        drawn.copy(path, root / path.parent.name / path.name)


LAYOUTS = {
    function.__name__: function
    for function in (roboflow_coco, cvat_coco, label_studio_coco,
                     yolo_roboflow, yolo_ultralytics, yolo_plain, voc,
                     labelme, instance_maps, mask_each, maps, maps_0_255,
                     folders, folders_without_split)
}

"""Drawn pictures in the folders of label tools, for test_own_data.py."""
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
from pycocotools.coco import COCO

from mmfishnet.datasets import draw_classification, draw_coco

CLASSES = ('star', 'cross', 'heart')


class Drawn:
    """A set with its annotations, by split: (picture, size, objects)."""

    def __init__(self, folder, **numbers):
        numbers = dict(dict(train=8, val=3, size=96), **numbers)
        draw_coco(folder, classes=CLASSES, **numbers)
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
        self.pictures = {
            str(picture): cv2.imread(str(picture))
            for found in self.splits.values() for picture, _ in found
        }
        self.objects = {
            str(picture): objects
            for found in self.splits.values() for picture, objects in found
        }

    def like(self, image):
        """The drawn picture that an image is a copy of."""
        name, = [n for n, p in self.pictures.items() if (p == image).all()]
        return name

    def semantic(self, name):
        path = Path(name)
        return cv2.imread(
            str(self.folder / 'semantic' / path.parent.name /
                f'{path.stem}.png'), cv2.IMREAD_UNCHANGED)

    def copy(self, picture, target):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, target)
        return target

    def mask(self, split, ann):
        return self.coco[split].annToMask(ann)

    def outline(self, split, ann):
        """The largest contour of an object, as one polygon (n, 2)."""
        contours = cv2.findContours(
            self.mask(split, ann), cv2.RETR_EXTERNAL,
            cv2.CHAIN_APPROX_NONE)[0]
        return max(contours, key=len)[:, 0].astype(float)


def roboflow_coco(drawn, root):
    for split, name in (('train', 'train'), ('val', 'valid')):
        data = json.loads(
            (drawn.folder /
             f'annotations/instances_{split}2017.json').read_text())
        for picture, _ in drawn.splits[split]:
            drawn.copy(picture, root / name / picture.name)
        data['categories'] = [
            dict(id=0, name='things', supercategory='none')
        ] + [dict(c, supercategory='things') for c in data['categories']]
        (root / name / '_annotations.coco.json').write_text(json.dumps(data))


def cvat_coco(drawn, root):
    """One file for all, pictures in images/default."""
    data = json.loads(
        (drawn.folder / 'annotations/instances_train2017.json').read_text())
    for picture, _ in drawn.splits['train']:
        drawn.copy(picture, root / 'images/default' / picture.name)
    (root / 'annotations').mkdir()
    (root / 'annotations/instances_default.json').write_text(json.dumps(data))


def label_studio_coco(drawn, root):
    """result.json with paths of another machine, and without sizes."""
    data = json.loads(
        (drawn.folder / 'annotations/instances_train2017.json').read_text())
    for image in data['images']:
        drawn.copy(drawn.folder / 'train2017' / image['file_name'],
                   root / 'images' / image['file_name'])
        image['file_name'] = 'C:\\data\\images\\' + image['file_name']
        del image['width'], image['height']
    (root / 'result.json').write_text(json.dumps(data))


def _yolo(drawn, root, split, images, labels, polygons):
    for picture, objects in drawn.splits[split]:
        drawn.copy(picture, root / images / picture.name)
        height, width = cv2.imread(str(picture)).shape[:2]
        lines = []
        for ann in objects:
            x, y, w, h = ann['bbox']
            values = [(x + w / 2) / width, (y + h / 2) / height, w / width,
                      h / height]
            if polygons:
                values = (drawn.outline(split, ann) /
                          [width, height]).ravel()
            lines.append(' '.join(
                [str(ann['category_id'] - 1), *(f'{v:.6f}' for v in values)]))
        text = root / labels / f'{picture.stem}.txt'
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text('\n'.join(lines) + '\n')


def yolo_roboflow(drawn, root):
    """Boxes; data.yaml names folders as Roboflow does, a level too high."""
    for split, name in (('train', 'train'), ('val', 'valid')):
        _yolo(drawn, root, split, f'{name}/images', f'{name}/labels', False)
    (root / 'data.yaml').write_text(
        'train: ../train/images\nval: ../valid/images\n\nnc: 3\n'
        f'names: {list(CLASSES)}\n')


def yolo_ultralytics(drawn, root):
    """Polygons; names as a dictionary, splits below images and labels."""
    for split in ('train', 'val'):
        _yolo(drawn, root, split, f'images/{split}', f'labels/{split}', True)
    (root / 'shapes.yaml').write_text(
        'path: ../datasets/shapes\ntrain: images/train\nval: images/val\n'
        'names:\n' + ''.join(f'  {i}: {n}\n' for i, n in enumerate(CLASSES)))


def yolo_plain(drawn, root):
    """Label Studio's: classes.txt, no split."""
    _yolo(drawn, root, 'train', 'images', 'labels', False)
    (root / 'classes.txt').write_text('\n'.join(CLASSES) + '\n')


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
            path = root / f'Annotations/{stem}.xml'
            path.parent.mkdir(exist_ok=True)
            path.write_text(f'<annotation><filename>{stem}.jpg</filename>'
                            f'{items}</annotation>')
        path = root / f'ImageSets/Main/{split}.txt'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('\n'.join(stems) + '\n')


def labelme(drawn, root):
    """A JSON beside each picture; no split."""
    for picture, objects in drawn.splits['train']:
        drawn.copy(picture, root / picture.name)
        shapes = [
            dict(
                label=CLASSES[ann['category_id'] - 1],
                points=drawn.outline('train', ann).tolist(),
                group_id=None,
                shape_type='polygon') for ann in objects
        ]
        shapes.append(
            dict(label='star', points=[[3, 3]], shape_type='point'))
        (root / f'{picture.stem}.json').write_text(
            json.dumps(dict(shapes=shapes, imagePath=picture.name)))


def instance_maps(drawn, root):
    """One label picture an image: 1, 2, 3 ... for its objects."""
    for split in ('train', 'val'):
        for picture, objects in drawn.splits[split]:
            drawn.copy(picture, root / split / 'images' / picture.name)
            label = np.zeros(drawn.mask(split, objects[0]).shape, np.uint16)
            for i, ann in enumerate(objects):
                label[drawn.mask(split, ann) > 0] = i + 1
            path = root / split / 'masks' / f'{picture.stem}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), label)


def mask_each(drawn, root):
    """One mask an object, in a folder for each picture; no split."""
    for picture, objects in drawn.splits['train']:
        folder = root / picture.stem
        drawn.copy(picture, folder / f'images/{picture.name}')
        (folder / 'masks').mkdir()
        for i, ann in enumerate(objects):
            cv2.imwrite(
                str(folder / f'masks/{i:08x}.png'),
                255 * drawn.mask('train', ann))


def maps(drawn, root):
    """Pairs, numbers from 0 on."""
    for split in ('train', 'val'):
        for picture, _ in drawn.splits[split]:
            drawn.copy(picture, root / f'img_dir/{split}/{picture.name}')
            drawn.copy(
                drawn.folder / f'semantic/{split}2017/{picture.stem}.png',
                root / f'ann_dir/{split}/{picture.stem}.png')


def maps_0_255(drawn, root):
    """Something or nothing, beside each other, no split."""
    for picture, _ in drawn.splits['train']:
        drawn.copy(picture, root / picture.name)
        label = cv2.imread(
            str(drawn.folder / f'semantic/train2017/{picture.stem}.png'), 0)
        cv2.imwrite(
            str(root / f'{picture.stem}_mask.png'),
            255 * (label > 0).astype(np.uint8))


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

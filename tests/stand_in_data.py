# Copyright (c) mmfishnet authors. All rights reserved.
"""Small data in the layout that a config's data sets read.

:func:`make` goes through the data sets of a config, asks each (built without
reading anything) where it looks for what, and writes a few pictures with their
annotations there. Paths of stock configs lead to ``data/...`` of the current
folder; whoever uses the data works in the folder that :func:`make` was given.
"""
import csv
import json
import os
import os.path as osp
import pickle
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from mmengine.registry import DATASETS

from mmfishnet.kinds import dicts_in, find_class, scope_of, setting

SIZE = 64, 48  # width and height
PARTS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
COUNT = 3  # of the pictures that a file of annotations names
BOXES = ((4, 6, 20, 16), (30, 20, 24, 18))  # x, y, width, height


@contextmanager
def chdir(folder):
    """Work in a folder (Python 3.11 has it in contextlib)."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def make(cfg: dict, folder, count: int = 3) -> list[str]:
    """Write data for all data sets of a config.

    Args:
        cfg (dict): Whole config; nothing in it is changed.
        folder (str | Path): Where its relative paths begin.
        count (int): Pictures of each file of annotations. Default: 3.

    Returns:
        list[str]: Names of the classes of data sets whose layout is not known
        here.
    """
    global COUNT
    scope, unknown, COUNT = scope_of(cfg), [], count
    with chdir(folder), DATASETS.switch_scope_and_registry(scope) as registry:
        for part in PARTS:
            for leaf in leaves((cfg.get(part) or {}).get('dataset')):
                cls = find_class(DATASETS, leaf, scope)
                names = [b.__name__ for b in getattr(cls, '__mro__', ())]
                layout = next((n for n in names if n in LAYOUTS), None)
                if layout is None:
                    unknown.append(str(names[0] if names else leaf['type']))
                    continue
                if 'BaseSegDataset' in names or layout == 'V3DetDataset':
                    _prepare(leaf, cls)
                LAYOUTS[layout](registry.build(
                    dict(leaf, lazy_init=True, pipeline=[])))
    return unknown


def leaves(node):
    """The data sets inside ConcatDataset, RepeatDataset and their like."""
    for item in dicts_in(node):
        inner = item.get('datasets', item.get('dataset'))
        if 'type' in item and 'pipeline' in item and not isinstance(
                inner, (dict, list)):
            yield item


def draw(path, seed=0, shift=0):
    """A picture with noise, and two rectangles where the boxes are."""
    if osp.exists(path):
        return
    os.makedirs(osp.dirname(path) or '.', exist_ok=True)
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 90, (SIZE[1], SIZE[0], 3), np.uint8)
    for i, (x, y, w, h) in enumerate(BOXES):
        picture[y:y + h, x:x + w, i] = 200
    if path.endswith('.npy'):
        np.save(path, picture)
    else:
        cv2.imwrite(path, picture)


def draw_map(path, values=(0, 1)):
    """A map of the same rectangles."""
    os.makedirs(osp.dirname(path), exist_ok=True)
    found = np.full((SIZE[1], SIZE[0]), values[0], np.uint8)
    for (x, y, w, h), value in zip(BOXES, values[1:] + values):
        found[y:y + h, x:x + w] = value
    cv2.imwrite(path, found)


def write(path, text):
    os.makedirs(osp.dirname(path) or '.', exist_ok=True)
    Path(path).write_text(text)


def write_json(path, content):
    write(path, json.dumps(content))


def stems(path):
    """Names that belong to one file of annotations."""
    return [f'{Path(path).stem}_{i}' for i in range(COUNT)]


def coco(data, lvis=False):
    names = data.metainfo['classes']
    images, objects = [], []
    for i, stem in enumerate(stems(data.ann_file)):
        images.append(dict(
            id=i + 1, file_name=f'{stem}.jpg', width=SIZE[0], height=SIZE[1],
            coco_url=f'http://images.cocodataset.org/val2017/{stem}.jpg',
            neg_category_ids=[], not_exhaustive_category_ids=[]))
        name = f'val2017/{stem}.jpg' if lvis else f'{stem}.jpg'
        draw(osp.join(data.data_prefix['img'], name), i)
        if data.data_prefix.get('seg'):
            draw_map(osp.join(data.data_prefix['seg'],
                              stem + data.seg_map_suffix))
        for j, (x, y, w, h) in enumerate(BOXES):
            objects.append(dict(
                id=len(objects) + 1, image_id=i + 1, bbox=[x, y, w, h],
                category_id=(i + j) % len(names) + 1, area=w * h, iscrowd=0,
                segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]]))
    write_json(data.ann_file, dict(
        info={}, images=images, annotations=objects, categories=[
            dict(id=i + 1, name=name, frequency='f')
            for i, name in enumerate(names)]))


def panoptic(data):
    meta = data.metainfo
    annotations, images = [], []
    for i, stem in enumerate(stems(data.ann_file)):
        images.append(dict(id=i + 1, file_name=f'{stem}.jpg', width=SIZE[0],
                           height=SIZE[1]))
        draw(osp.join(data.data_prefix['img'], f'{stem}.jpg'), i)
        draw_map(osp.join(data.data_prefix['seg'], f'{stem}.png'), (3, 1, 2))
        # OpenCV writes a value in three channels; ids are of red.
        path = osp.join(data.data_prefix['seg'], f'{stem}.png')
        ids = cv2.imread(path, 0)
        cv2.imwrite(path, np.stack([0 * ids, 0 * ids, ids], -1))
        segments = [
            dict(id=j + 1, category_id=j + 1, bbox=list(box), iscrowd=0,
                 area=box[2] * box[3]) for j, box in enumerate(BOXES)
        ] + [dict(id=3, category_id=len(meta['classes']), iscrowd=0,
                  bbox=[0, 0, *SIZE], area=2000)]
        annotations.append(dict(image_id=i + 1, file_name=f'{stem}.png',
                                segments_info=segments))
    write_json(data.ann_file, dict(
        info={}, images=images, annotations=annotations, categories=[
            dict(id=i + 1, name=name, isthing=int(
                name in meta['thing_classes']))
            for i, name in enumerate(meta['classes'])]))


def xml(names, folder=''):
    objects = ''.join(
        f'<object><name>{names[i % len(names)]}</name><difficult>0'
        f'</difficult><bndbox><xmin>{x}</xmin><ymin>{y}</ymin><xmax>{x + w}'
        f'</xmax><ymax>{y + h}</ymax></bndbox></object>'
        for i, (x, y, w, h) in enumerate(BOXES))
    return (f'<annotation><folder>{folder}</folder><size><width>{SIZE[0]}'
            f'</width><height>{SIZE[1]}</height></size>{objects}</annotation>')


def voc(data):
    ids, root = stems(data.ann_file), data.sub_data_root
    write(data.ann_file, '\n'.join(ids))
    for i, stem in enumerate(ids):
        draw(osp.join(root, data.img_subdir, f'{stem}.jpg'), i)
        write(osp.join(root, data.ann_subdir, f'{stem}.xml'),
              xml(data.metainfo['classes']))


def wider_face(data):
    ids, root = stems(data.ann_file), data.data_prefix['img']
    write(data.ann_file, '\n'.join(ids))
    for i, stem in enumerate(ids):
        draw(osp.join(root, 'faces', f'{stem}.jpg'), i)
        write(osp.join(root, 'Annotations', f'{stem}.xml'),
              xml(data.metainfo['classes'], 'faces'))


def crowd_human(data):
    lines = []
    for i, stem in enumerate(stems(data.ann_file)):
        draw(osp.join(data.data_prefix['img'], f'{stem}.jpg'), i)
        lines.append(json.dumps(dict(ID=stem, gtboxes=[
            dict(tag='person', fbox=box, hbox=box, vbox=box)
            for box in BOXES])))
    write(data.ann_file, '\n'.join(lines))
    for part in ('train', 'val'):
        if part in osp.basename(data.ann_file):
            write_json(osp.join(data.data_root, f'id_hw_{part}.json'),
                       {s: SIZE[::-1] for s in stems(data.ann_file)})


def open_images(data, challenge=False):
    ids = stems(data.ann_file)
    # 601 and 500 classes; most are not used.
    count = 500 if challenge else 601
    kinds = [f'/m/{i:04d}' for i in range(count)]
    os.makedirs(osp.dirname(data.label_file), exist_ok=True)
    with open(data.label_file, 'w', newline='') as file:
        csv.writer(file).writerows(
            [kind, f'class {i}', i + 1] if challenge else
            [kind, f'class {i}'] for i, kind in enumerate(kinds))
    share = [(x / SIZE[0], (x + w) / SIZE[0], y / SIZE[1], (y + h) / SIZE[1])
             for x, y, w, h in BOXES]
    os.makedirs(osp.dirname(data.ann_file), exist_ok=True)
    with open(data.ann_file, 'w', newline='') as file:
        if challenge:
            for stem in ids:
                file.write(f'{stem}.jpg\n{SIZE[0]} {SIZE[1]}\n2\n')
                for i, (x1, x2, y1, y2) in enumerate(share):
                    file.write(f'{i + 1} {x1} {y1} {x2} {y2} 0\n')
        else:
            rows = csv.writer(file)
            rows.writerow(['ImageID'] + [''] * 12)
            for stem in ids:
                for kind, box in zip(kinds, share):
                    rows.writerow([stem, '', kind, 1, *box, 0, 0, 0, 0, 0])
    if challenge:
        np.save(data.hierarchy_file, np.eye(count))
    else:
        write_json(data.hierarchy_file, dict(
            LabelName='/m/0bl9f',
            Subcategory=[dict(LabelName=kind) for kind in kinds]))
    for i, stem in enumerate(ids):
        draw(osp.join(data.data_prefix['img'], f'{stem}.jpg'), i)
    os.makedirs(osp.dirname(data.meta_file), exist_ok=True)
    with open(data.meta_file, 'wb') as file:
        pickle.dump([dict(filename=f'{stem}.jpg', ori_shape=(*SIZE[::-1], 3))
                     for stem in ids], file)
    if data.image_level_ann_file:
        write(data.image_level_ann_file, 'ImageID,,LabelName,Confidence\n' +
              ''.join(f'{stem},,{kinds[0]},1\n' for stem in ids))


def _prepare(leaf, cls):
    """What a constructor looks for already."""
    root = setting(leaf, cls, 'data_root') or ''
    for prefix in (setting(leaf, cls, 'data_prefix') or {}).values():
        os.makedirs(osp.join(root, prefix), exist_ok=True)
    lists = setting(leaf, cls, 'ann_file')
    if lists and cls.__name__ != 'V3DetDataset':
        write(osp.join(root, lists), '\n'.join(stems(lists)))
    if cls.__name__ == 'V3DetDataset':
        write(osp.join(root, setting(leaf, cls, 'label_file')),
              '\n'.join(f'class {i}' for i in range(13204)))


def maps(data):
    root, labels = data.data_prefix['img_path'], data.data_prefix.get(
        'seg_map_path')
    names = stems(data.ann_file) if data.ann_file else ['1', '2', '3']
    shift = int(bool(getattr(data, 'reduce_zero_label', False)))
    # Where there are three, some are left if the pipeline drops the first.
    last = min(2, len(data.metainfo.get('classes') or 'ab') - 1)
    for i, stem in enumerate(names):
        draw(osp.join(root, stem + data.img_suffix), i)
        if labels:
            draw_map(osp.join(labels, stem + data.seg_map_suffix),
                     (shift, 1 + shift, last + shift))


def changes(data):
    """Pairs of pictures, as LEVIR's."""
    for i in range(3):
        for key in ('img_path', 'img_path2'):
            draw(osp.join(data.data_prefix[key], f'{i}{data.img_suffix}'), i)
        draw_map(osp.join(data.data_prefix['seg_map_path'],
                          f'{i}{data.seg_map_suffix}'))


def folders(data):
    """A folder for each class, or the list that the config names."""
    root = data.img_prefix
    names = [f'n{i:08d}' for i in range(len(data.CLASSES or 'ab'))]
    if not data.with_label:
        names = names[:2]
    elif data.ann_file:
        names = names[:3]
        write(data.ann_file, '\n'.join(
            f'{name}/{name}.jpg {i}' for i, name in enumerate(names)))
    for i, name in enumerate(names):
        draw(osp.join(root, name, f'{name}.jpg'), i)
    if not data.with_label and data.ann_file:
        write(data.ann_file, '\n'.join(f'{n}/{n}.jpg' for n in names))


def labels(data):
    """MMPretrain's own lists: multi-label and others."""
    root = data.data_prefix['img_path']
    several = 'MultiLabel' in type(data).__name__
    found = []
    for i, stem in enumerate(stems(data.ann_file)):
        draw(osp.join(root, f'{stem}.jpg'), i)
        found.append(dict(img_path=f'{stem}.jpg',
                          gt_label=[0, 1] if several else i % 2))
    write_json(data.ann_file, dict(metainfo={}, data_list=found))


def voc_labels(data):
    ids = stems(data.image_set_path)
    write(data.image_set_path, '\n'.join(ids))
    for i, stem in enumerate(ids):
        draw(osp.join(data.img_prefix, f'{stem}.jpg'), i)
        write(osp.join(data.ann_prefix, f'{stem}.xml'), xml(data.CLASSES))


def birds(data):
    names = ['a/1.jpg', 'a/2.jpg', 'b/3.jpg', 'b/4.jpg']
    for i, name in enumerate(names):
        draw(osp.join(data.img_prefix, name), i)
    for path, values in ((data.ann_file, names),
                         (data.image_class_labels_file, (1, 1, 2, 2)),
                         (data.train_test_split_file, (1, 0, 1, 0))):
        write(path, '\n'.join(f'{i + 1} {v}' for i, v in enumerate(values)))


# Class, or the nearest of its bases: who writes what it reads.
LAYOUTS = dict(
    CocoDataset=coco,
    LVISV05Dataset=lambda data: coco(data, lvis=True),
    CocoPanopticDataset=panoptic,
    V3DetDataset=coco,
    XMLDataset=voc,
    WIDERFaceDataset=wider_face,
    CrowdHumanDataset=crowd_human,
    OpenImagesDataset=open_images,
    OpenImagesChallengeDataset=lambda data: open_images(data, challenge=True),
    BaseSegDataset=maps,
    BaseCDDataset=changes,
    CustomDataset=folders,
    MultiLabelDataset=labels,
    VOC=voc_labels,
    CUB=birds)

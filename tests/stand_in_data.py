# Copyright (c) mmfishnet authors. All rights reserved.
"""Small data in the layout that a config's data sets read.

:func:`make` goes through the data sets of a config, asks each (built without
reading anything) where it looks for what, and writes a few pictures with their
annotations there. Paths of stock configs lead to ``data/...`` of the current
folder; whoever uses the data works in the folder that :func:`make` was given.
"""
import json
import os
import os.path as osp
import pickle
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
from mmengine.registry import DATASETS

from mmfishnet.kinds import dicts_in, find_class, scope_of, setting

SIZE = 64, 48  # width and height
PARTS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
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


def stock(name):
    """A stock config (or a folder of them), by its package and its path."""
    package, _, path = name.partition('/')
    module = import_module(package)
    return Path(module.__file__).parent / '.mim' / 'configs' / path


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
    scope, unknown = scope_of(cfg), []

    def stems(path):
        return [f'{Path(path).stem}_{i}' for i in range(count)]

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
                    _prepare(leaf, cls, stems)
                LAYOUTS[layout](registry.build(
                    dict(leaf, lazy_init=True, pipeline=[])), stems)
    return unknown


def leaves(node):
    """The data sets inside ConcatDataset, RepeatDataset and their like."""
    for item in dicts_in(node):
        inner = item.get('datasets', item.get('dataset'))
        if 'type' in item and 'pipeline' in item and not isinstance(
                inner, (dict, list)):
            yield item


def _prepare(leaf, cls, stems):
    """What a constructor looks for already."""
    root = setting(leaf, cls, 'data_root') or ''
    for prefix in (setting(leaf, cls, 'data_prefix') or {}).values():
        os.makedirs(osp.join(root, prefix), exist_ok=True)
    lists = setting(leaf, cls, 'ann_file')
    if cls.__name__ == 'V3DetDataset':
        write(osp.join(root, setting(leaf, cls, 'label_file')),
              [f'class {i}' for i in range(13204)])
    elif lists:
        write(osp.join(root, lists), stems(lists))


def draw(path, seed=0):
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


def draw_map(path, values=(0, 1), red=False):
    """A map of the same rectangles; ``red``: in that channel of three."""
    os.makedirs(osp.dirname(path), exist_ok=True)
    found = np.full((SIZE[1], SIZE[0]), values[0], np.uint8)
    for (x, y, w, h), value in zip(BOXES, values[1:] + values):
        found[y:y + h, x:x + w] = value
    cv2.imwrite(path, np.stack([0 * found, 0 * found, found], -1)
                if red else found)


def write(path, content):
    """Lines, or what JSON holds."""
    os.makedirs(osp.dirname(path) or '.', exist_ok=True)
    Path(path).write_text(json.dumps(content) if isinstance(content, dict)
                          else '\n'.join(content))


def _records(data, stems, **more):
    """Images of a file in COCO's format, drawn."""
    for i, stem in enumerate(stems(data.ann_file)):
        draw(osp.join(data.data_prefix['img'], f'{stem}.jpg'), i)
        yield dict(id=i + 1, file_name=f'{stem}.jpg', width=SIZE[0],
                   height=SIZE[1], **more)


def coco(data, stems):
    names = data.metainfo['classes']
    images, objects = list(_records(
        data, stems, neg_category_ids=[], not_exhaustive_category_ids=[])), []
    for i, image in enumerate(images):
        name = f'val2017/{image["file_name"]}'  # where LVIS looks
        image['coco_url'] = f'http://images.cocodataset.org/{name}'
        if 'LVIS' in type(data).__name__:
            draw(osp.join(data.data_prefix['img'], name), i)
        if data.data_prefix.get('seg'):
            draw_map(osp.join(data.data_prefix['seg'], Path(
                name).stem + data.seg_map_suffix))
        for j, (x, y, w, h) in enumerate(BOXES):
            objects.append(dict(
                id=len(objects) + 1, image_id=i + 1, bbox=[x, y, w, h],
                category_id=(i + j) % len(names) + 1, area=w * h, iscrowd=0,
                segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]]))
    write(data.ann_file, dict(
        info={}, images=images, annotations=objects, categories=[
            dict(id=i + 1, name=name, frequency='f')
            for i, name in enumerate(names)]))


def panoptic(data, stems):
    names, things = (data.metainfo[k] for k in ('classes', 'thing_classes'))
    images = list(_records(data, stems))
    for image in images:
        draw_map(osp.join(data.data_prefix['seg'], Path(
            image['file_name']).with_suffix('.png')), (3, 1, 2), red=True)
    segments = [
        dict(id=i + 1, category_id=i + 1, bbox=list(box), iscrowd=0,
             area=box[2] * box[3]) for i, box in enumerate(BOXES)
    ] + [dict(id=3, category_id=len(names), iscrowd=0, bbox=[0, 0, *SIZE],
              area=2000)]
    write(data.ann_file, dict(
        info={}, images=images, annotations=[
            dict(image_id=image['id'], segments_info=segments,
                 file_name=image['file_name'].replace('.jpg', '.png'))
            for image in images
        ], categories=[dict(id=i + 1, name=name, isthing=int(name in things))
                       for i, name in enumerate(names)]))


def _xml(ids, stems, pictures, xmls, names, folder=''):
    """A list, and a picture and an XML file for each name in it."""
    objects = ''.join(
        f'<object><name>{names[i % len(names)]}</name><difficult>0'
        f'</difficult><bndbox><xmin>{x}</xmin><ymin>{y}</ymin><xmax>{x + w}'
        f'</xmax><ymax>{y + h}</ymax></bndbox></object>'
        for i, (x, y, w, h) in enumerate(BOXES))
    text = (f'<annotation><folder>{folder}</folder><size><width>{SIZE[0]}'
            f'</width><height>{SIZE[1]}</height></size>{objects}</annotation>')
    write(ids, stems(ids))
    for i, stem in enumerate(stems(ids)):
        draw(osp.join(pictures, folder, f'{stem}.jpg'), i)
        write(osp.join(xmls, f'{stem}.xml'), [text])


def voc(data, stems):
    _xml(data.ann_file, stems, osp.join(data.sub_data_root, data.img_subdir),
         osp.join(data.sub_data_root, data.ann_subdir),
         data.metainfo['classes'])


def wider_face(data, stems):
    root = data.data_prefix['img']
    _xml(data.ann_file, stems, root, osp.join(root, 'Annotations'),
         data.metainfo['classes'], 'faces')


def voc_labels(data, stems):
    _xml(data.image_set_path, stems, data.img_prefix, data.ann_prefix,
         data.CLASSES)


def crowd_human(data, stems):
    ids = [image['file_name'][:-4] for image in _records(data, stems)]
    write(data.ann_file, [json.dumps(dict(ID=stem, gtboxes=[
        dict(tag='person', fbox=box, hbox=box, vbox=box) for box in BOXES]))
        for stem in ids])
    for part in ('train', 'val'):
        if part in osp.basename(data.ann_file):
            write(osp.join(data.data_root, f'id_hw_{part}.json'),
                  {stem: SIZE[::-1] for stem in ids})


def open_images(data, stems, challenge=False):
    ids = [image['file_name'][:-4] for image in _records(data, stems)]
    # 601 and 500 classes; most are not used.
    kinds = [f'/m/{i:04d}' for i in range(500 if challenge else 601)]
    share = [(x / SIZE[0], (x + w) / SIZE[0], y / SIZE[1], (y + h) / SIZE[1])
             for x, y, w, h in BOXES]
    write(data.label_file, [
        f'{kind},class {i}' + f',{i + 1}' * challenge
        for i, kind in enumerate(kinds)])
    if challenge:
        lines = []
        for stem in ids:
            lines += [f'{stem}.jpg', f'{SIZE[0]} {SIZE[1]}', '2']
            lines += [f'{i + 1} {x1} {y1} {x2} {y2} 0'
                      for i, (x1, x2, y1, y2) in enumerate(share)]
        np.save(data.hierarchy_file, np.eye(len(kinds)))
    else:
        lines = ['ImageID' + ',' * 12] + [
            ','.join(map(str, (stem, '', kind, 1, *box, 0, 0, 0, 0, 0)))
            for stem in ids for kind, box in zip(kinds, share)]
        write(data.hierarchy_file, dict(
            LabelName='/m/0bl9f',
            Subcategory=[dict(LabelName=kind) for kind in kinds]))
    write(data.ann_file, [*lines, ''])
    os.makedirs(osp.dirname(data.meta_file), exist_ok=True)
    Path(data.meta_file).write_bytes(pickle.dumps([
        dict(filename=f'{stem}.jpg', ori_shape=(*SIZE[::-1], 3))
        for stem in ids]))
    if data.image_level_ann_file:
        write(data.image_level_ann_file, [
            'ImageID,,LabelName,Confidence',
            *(f'{stem},,{kinds[0]},1' for stem in ids)])


def maps(data, stems):
    root, labels = data.data_prefix['img_path'], data.data_prefix.get(
        'seg_map_path')
    shift = int(bool(getattr(data, 'reduce_zero_label', False)))
    # Where there are three, some are left if the pipeline drops the first.
    last = min(2, len(data.metainfo.get('classes') or 'ab') - 1)
    for i, stem in enumerate(stems(data.ann_file or 'a')):
        draw(osp.join(root, stem + data.img_suffix), i)
        if 'img_path2' in data.data_prefix:  # pairs, as LEVIR's
            draw(osp.join(data.data_prefix['img_path2'],
                          stem + data.img_suffix), i)
        if labels:
            draw_map(osp.join(labels, stem + data.seg_map_suffix),
                     (shift, 1 + shift, last + shift))


def folders(data, stems):
    """A folder for each class, or the list that the config names."""
    names = [f'n{i:08d}' for i in range(len(data.CLASSES or 'ab'))]
    if not data.with_label:
        names = names[:2]
    elif data.ann_file:
        names = names[:3]
    if data.ann_file:
        write(data.ann_file, [f'{name}/{name}.jpg' + f' {i}' * data.with_label
                              for i, name in enumerate(names)])
    for i, name in enumerate(names):
        os.makedirs(osp.join(data.img_prefix, name), exist_ok=True)
        if i < 4:  # of a thousand
            draw(osp.join(data.img_prefix, name, f'{name}.jpg'), i)


def labels(data, stems):
    """MMPretrain's own lists: multi-label and others."""
    several, ids = 'MultiLabel' in type(data).__name__, stems(data.ann_file)
    for i, stem in enumerate(ids):
        draw(osp.join(data.data_prefix['img_path'], f'{stem}.jpg'), i)
    write(data.ann_file, dict(metainfo={}, data_list=[
        dict(img_path=f'{stem}.jpg', gt_label=[0, 1] if several else i % 2)
        for i, stem in enumerate(ids)]))


def birds(data, stems):
    names = ['a/1.jpg', 'a/2.jpg', 'b/3.jpg', 'b/4.jpg']
    for i, name in enumerate(names):
        draw(osp.join(data.img_prefix, name), i)
    for path, values in ((data.ann_file, names),
                         (data.image_class_labels_file, (1, 1, 2, 2)),
                         (data.train_test_split_file, (1, 0, 1, 0))):
        write(path, [f'{i + 1} {v}' for i, v in enumerate(values)])


# Class, or the nearest of its bases: who writes what it reads.
LAYOUTS = dict(
    CocoDataset=coco,
    CocoPanopticDataset=panoptic,
    V3DetDataset=coco,
    XMLDataset=voc,
    WIDERFaceDataset=wider_face,
    CrowdHumanDataset=crowd_human,
    OpenImagesDataset=open_images,
    OpenImagesChallengeDataset=partial(open_images, challenge=True),
    BaseSegDataset=maps,
    BaseCDDataset=maps,
    CustomDataset=folders,
    MultiLabelDataset=labels,
    VOC=voc_labels,
    CUB=birds)

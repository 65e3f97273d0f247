# Copyright (c) mmfishnet authors. All rights reserved.
"""Samples, and COCO's records of them.

A *sample* is what all readers give of a picture: its path in the folder, its
(width, height) and its objects. These are dicts with ``category``, a name,
``bbox``, and what else an annotation of COCO's may have. What can be put right
with certainty is, what cannot is left out, counted and named; what would make
a whole file wrong is refused.
"""
from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence

from pycocotools import mask as coco_mask

from mmfishnet.words import first_few, near, short
from picture_folder import PictureFolder

KEYS = ('images', 'annotations', 'categories')


def read_coco(folder: PictureFolder, name: str, place: str | None = None):
    """Read a file in COCO's format, of the folder or by its whole path.

    Args:
        folder (PictureFolder): Whose pictures they are of.
        name (str): The file.
        place (str, optional): Folder of the pictures, where it is known.

    Returns:
        tuple: Samples; names of the classes, in order; and the folder that
        the pictures' names start from if the file can be used as it lies,
        else None.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it is no JSON, without COCO's three lists, or its ids,
            names or references are not as they should be.
    """
    data = _load(folder, name)
    names = _categories(data['categories'], name)
    images, prefix = _images(folder, data['images'], name, place)
    lost = []
    for ann in data['annotations']:
        image = images.get(_key(ann.get('image_id')))
        category = _key(ann.get('category_id'))
        if image is None:
            prefix = None
            folder.leave_out('object of a picture that is not listed, or left '
                             'out', f'{name}: id {ann.get("id")}')
        elif category not in names:
            lost.append(ann)
        else:
            image[2].append(dict(ann, category=names[category]))
    if lost:
        raise ValueError(
            f'{name}: {len(lost)} annotations '
            f'(ids {first_few([a.get("id") for a in lost])}) have a '
            f'category_id that the file does not list '
            f'({short(lost[0].get("category_id"))}; it lists '
            f'{first_few(names)}). Add the category or remove them.')
    read = [*images.values()]
    samples = tidy(folder, read, name)
    # pycocotools takes 0 for none.
    ids = {_key(ann.get('id')) for ann in data['annotations']} - {None, 0}
    if samples != read or len(ids) < len(data['annotations']):
        prefix = None
    return samples, [*names.values()], prefix


def _load(folder: PictureFolder, name: str) -> dict:
    if not os.path.isfile(folder.root / name):
        others = folder.with_suffix('.json')
        raise FileNotFoundError(
            f'there is no annotation file {folder.root / name} (looked for '
            f'{os.path.abspath(folder.root / name)}); its name in the folder '
            'is an argument: --train, --val.' +
            (f' There are {first_few(others)}.' if others else ''))
    try:
        data = json.loads(folder.read(name))
    except ValueError as fault:
        raise ValueError(f'{name} is no JSON: {fault}') from None
    for key in KEYS:
        records = data.get(key) if isinstance(data, dict) else None
        if not isinstance(records, list) or not records or not all(
                isinstance(record, dict) for record in records):
            raise ValueError(
                f'{name} has no {key}: {short(records)}; it should hold '
                "instances in COCO's format, an object with the lists "
                f'{", ".join(KEYS)} of records.')
    return data


def _key(value):
    return value if type(value) in (int, str) else None


def _categories(categories: list[dict], name: str) -> dict:
    """Names by id."""
    ids, names = ([c.get(key) for c in categories] for key in ('id', 'name'))
    for values, what in ((ids, 'an id'), (names, 'a name')):
        if not all(type(v) in (int, str) and v != '' for v in values) or len(
                set(values)) < len(values):
            raise ValueError(
                f'{name}: every category should have {what} of its own; they '
                f'are {first_few(values)}.')
    return dict(zip(ids, map(str, names)))


def _images(folder: PictureFolder, images: list[dict], name: str,
            place: str | None) -> tuple[dict, str | None]:
    """Samples by id, without objects yet; and what all names start from, None
    if there is no such or a record is not as it should be."""
    found, ids, prefixes = {}, set(), set()
    for image in images:
        key, file_name = _key(image.get('id')), image.get('file_name')
        if key is None or key in ids or not isinstance(file_name, str):
            raise ValueError(
                f'{name}: every image should have an id of its own and a '
                f'file_name, but one is {short(image)}.')
        ids.add(key)
        path = folder.find(file_name, name, place)
        if path is None:
            folder.leave_out(f'picture listed in {name} and missing',
                             file_name)
        size = path and folder.size(path)
        if not size:
            prefixes.add(None)
            continue
        said = image.get('width'), image.get('height')
        if all(type(side) is int and side > 0 for side in said):
            size = said
            prefixes.add(path.removesuffix(file_name)
                         if path.endswith(file_name) else None)
        else:
            prefixes.add(None)
            folder.leave_out('picture without width and height', file_name,
                             'read from the file')
        found[key] = path, size, []
    if not found:
        raise ValueError(
            f'{name}: none of its {len(images)} pictures is in {folder.root} '
            f'({first_few([i["file_name"] for i in images])})'
            f'{near(images[0]["file_name"], folder.pictures)}.')
    return found, prefixes.pop() if len(prefixes) == 1 else None


def tidy(folder: PictureFolder, samples: Sequence[tuple],
         name: str = '') -> list[tuple]:
    """Put objects right, and leave out what cannot be.

    Args:
        folder (PictureFolder): Whose pictures they are of; is told what is
            left out.
        samples (Sequence[tuple]): The samples, not changed.
        name (str): Their file, for messages, where it is COCO's: objects have
            an id there, and should have an area.

    Raises:
        ValueError: If most objects cannot be used.
    """
    tidied, good, bad = [], 0, []
    for picture, size, items in samples:
        kept = []
        for number, item in enumerate(items, 1):
            where = (f'{name}: id {item.get("id")}' if name else
                     f'{picture}: object {number}')
            item, reason, added = _object(item, *size)
            for key in added if name else ():
                folder.leave_out(f'object without a proper {key}', where,
                                 'added')
            if reason:
                folder.leave_out(reason, where)
                bad.append(where)
            else:
                kept.append(item)
        good += len(kept)
        tidied.append((picture, size, kept))
    if len(bad) > good:
        raise ValueError(
            f'{len(bad)} of {len(bad) + good} boxes cannot be '
            f'used ({first_few(bad)}): ' +
            ("COCO's are [x, y, width, height] in pixels" if name else
             'each should be a pixel wide and high at least') +
            ', inside of the picture.')
    return tidied


def _object(item: dict, width: int, height: int) -> tuple[dict, str, dict]:
    """An object with all keys, why it is left out (or nothing), and what was
    added."""
    outline = _outline(item.get('segmentation'))
    if item.get('segmentation'):
        item = dict(item, segmentation=outline)
    box, area = item.get('bbox'), item.get('area')
    rle, added = None, {}
    has_box = isinstance(box, list) and len(box) == 4 and all(
        map(_is_number, box))
    has_area = _is_number(area) and area > 0
    if outline and not (has_box and has_area):
        try:
            rle = coco_mask.frPyObjects(outline, height, width)
            rle = coco_mask.merge(rle) if isinstance(rle, list) else rle
        except (TypeError, ValueError, KeyError):  # whole RLE is taken as is
            rle = outline if isinstance(outline, dict) else None
    if not has_box:
        if rle is None:
            return (item, 'object without a box of four numbers or an outline',
                    {})
        box = added['bbox'] = coco_mask.toBbox(rle).tolist()
    x, y, w, h = box
    if min(w, h) < 1:
        return item, 'object narrower or lower than a pixel', {}
    if min(x + w, width) <= max(x, 0) or min(y + h, height) <= max(y, 0):
        return item, 'object outside of the picture', {}
    if not has_area:
        added['area'] = float(coco_mask.area(rle)) if rle else w * h
    if item.get('iscrowd') not in (0, 1):
        added['iscrowd'] = 0
    return {**item, **added}, '', added


def _is_number(value) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _outline(outline) -> dict | list:
    """Polygons of three corners and more, or RLE; empty if there is none."""
    if isinstance(outline, dict):
        return outline if outline.get('counts') else []
    return [p for p in outline if isinstance(p, list) and len(p) >= 6
            and len(p) % 2 == 0 and all(map(_is_number, p))
            ] if isinstance(outline, list) else []


def coco_of(samples: Sequence[tuple], names: Sequence[str]) -> dict:
    """COCO's records of samples, with the classes in order."""
    numbers = {name: i for i, name in enumerate(names, 1)}
    images, annotations = [], []
    for i, (path, (width, height), items) in enumerate(samples, 1):
        images.append(dict(id=i, file_name=path, width=width, height=height))
        for item in items:
            item = dict(item, category_id=numbers[item['category']],
                        image_id=i, id=len(annotations) + 1)
            del item['category']
            annotations.append(item)
    return dict(
        info={}, licenses=[], images=images, annotations=annotations,
        categories=[dict(id=i, name=name) for name, i in numbers.items()])


def outlined(folder: PictureFolder, splits: dict[str, list[tuple]]) -> str:
    """Leave out the objects without outlines where nearly all have some that
    are more than boxes.

    Args:
        folder (PictureFolder): Is told what is left out.
        splits (dict[str, list[tuple]]): Samples by split; changed.

    Returns:
        str: Nothing if there are outlines, else what there is instead.
    """
    every = [item for samples in splits.values() for *_, items in samples
             for item in items]
    having = [item for item in every if item.get('segmentation')]
    if not having or all(map(_is_box, having)):
        return 'boxes without outlines'
    if len(having) < 0.95 * len(every):
        return (f'boxes, and outlines of {len(having)} of {len(every)} '
                'objects alone')
    if len(having) < len(every):
        for split, samples in splits.items():
            for picture, _, items in samples:
                for number, item in enumerate(items, 1):
                    if not item.get('segmentation'):
                        folder.leave_out('object without an outline',
                                         f'{picture}: object {number}')
            splits[split] = [
                (picture, size, [o for o in items if o.get('segmentation')])
                for picture, size, items in samples]
    return ''


def _is_box(item: dict) -> bool:
    """Whether an outline is the box itself, as some tools write it."""
    outline = item['segmentation']
    if not isinstance(outline, list) or len(outline) > 1:
        return False
    x, y, w, h = item['bbox']
    near_corner = [min(abs(px - x), abs(px - x - w)) < 1
                   and min(abs(py - y), abs(py - y - h)) < 1
                   for px, py in zip(outline[0][::2], outline[0][1::2])]
    return len(near_corner) in (4, 5) and all(near_corner)

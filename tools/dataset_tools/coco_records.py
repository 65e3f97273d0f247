# Copyright (c) mmfishnet authors. All rights reserved.
"""Records in COCO's format: put right where that is certain, and written.

What cannot be put right is left out, counted and named; what would make a
whole file wrong is refused.
"""
from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence

from pycocotools import mask as coco_mask

from mmfishnet.words import first_few, near, short
from picture_folder import PictureFolder

OPENED = 5000  # of more pictures the check opens some
KEYS = ('images', 'annotations', 'categories')


def load_coco(folder: PictureFolder, name: str) -> dict:
    """Read a file in COCO's format, of the folder or by its whole path.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it is no JSON, or without COCO's three lists.
    """
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


def tidy(folder: PictureFolder, data: dict, name: str,
         place: str | None = None) -> tuple[dict, str]:
    """Put records right, and leave out what cannot be.

    Args:
        folder (PictureFolder): Whose pictures they are of; is told what is
            left out.
        data (dict): Records in COCO's format, not changed.
        name (str): Their file, for messages.
        place (str, optional): Folder of the pictures, where it is known.

    Returns:
        tuple[dict, str]: The records, equal to the old ones if nothing was to
        be done; and the folder that their ``file_name`` starts from.

    Raises:
        ValueError: If ids, names or references are not as they should be.
    """
    categories = _categories(data['categories'], name)
    images, prefix = _images(folder, data['images'], name, place)
    annotations, lost, bad = [], [], []
    places = _places(data, name)
    for ann, where in zip(data['annotations'], places):
        image = images.get(_key(ann.get('image_id')))
        if image is None:
            folder.leave_out('object of a picture that is not listed, or left '
                             'out', where)
        elif _key(ann.get('category_id')) not in categories:
            lost.append(ann)
        else:
            ann, reason, mended = _annotation(ann, image)
            for key in mended if name else ():
                folder.leave_out(f'object without a proper {key}', where,
                                 'added')
            if reason:
                folder.leave_out(reason, where)
            (bad if reason else annotations).append(
                where if reason else ann)
    if lost:
        raise ValueError(
            f'{name}: {len(lost)} annotations '
            f'(ids {first_few([a.get("id") for a in lost])}) have a '
            f'category_id that the file does not list '
            f'({short(lost[0].get("category_id"))}; it lists '
            f'{first_few(categories)}). Add the category or remove them.')
    if len(bad) > len(annotations):
        raise ValueError(
            f'{len(bad)} of {len(bad) + len(annotations)} boxes cannot be '
            f'used ({first_few(bad)}): ' +
            ("COCO's are [x, y, width, height] in pixels" if name else
             'each should be a pixel wide and high at least') +
            ', inside of the picture.')
    ids = [_key(ann.get('id')) for ann in annotations]
    if {None, 0} & {*ids} or len(set(ids)) < len(ids):
        annotations = [dict(a, id=i + 1) for i, a in enumerate(annotations)]
    return dict(data, images=list(images.values()),
                annotations=annotations), prefix


def _places(data: dict, name: str) -> list[str]:
    """Where each object stands: its id in a file in COCO's format; labels of
    other formats have none, so its number in the picture."""
    if name:
        return [f'{name}: id {ann.get("id")}' for ann in data['annotations']]
    pictures = {image['id']: image['file_name'] for image in data['images']}
    seen = Counter()
    places = []
    for ann in data['annotations']:
        picture = pictures[ann['image_id']]
        seen[picture] += 1
        places.append(f'{picture}: object {seen[picture]}')
    return places


def _key(value):
    return value if type(value) in (int, str) else None


def _categories(categories: list, name: str) -> set:
    ids = [_key(category.get('id')) for category in categories]
    names = [category.get('name') for category in categories]
    for values, what in ((ids, 'an id'), (names, 'a name')):
        if not all(type(v) in (int, str) and v != '' for v in values) or len(
                set(values)) < len(values):
            raise ValueError(
                f'{name}: every category should have {what} of its own; they '
                f'are {first_few(values)}.')
    return set(ids)


def _images(folder: PictureFolder, images: list, name: str,
            place: str | None) -> tuple[dict, str]:
    """Records of the pictures by id, and what their paths start from."""
    found, paths = {}, {}
    for image in images:
        key, file_name = _key(image.get('id')), image.get('file_name')
        if key is None or key in found or not isinstance(file_name, str):
            raise ValueError(
                f'{name}: every image should have an id of its own and a '
                f'file_name, but one is {short(image)}.')
        path = folder.find(file_name, name, place)
        if path is None:
            folder.leave_out(f'picture listed in {name} and missing',
                             file_name)
        else:
            found[key], paths[key] = image, path
    if not found:
        raise ValueError(
            f'{name}: none of its {len(images)} pictures is in {folder.root} '
            f'({first_few([i["file_name"] for i in images])})'
            f'{near(images[0]["file_name"], folder.pictures)}.')
    # One folder for all, or they are named from the data's.
    prefixes = {paths[key].removesuffix(image['file_name'])
                if paths[key].endswith(image['file_name']) else ''
                for key, image in found.items()}
    prefix = prefixes.pop() if len(prefixes) == 1 else ''
    for key, image in list(found.items()):
        sides = [image.get('width'), image.get('height')]
        said = all(type(side) is int and side > 0 for side in sides)
        size = sides if said and len(images) > OPENED else folder.size(
            paths[key])
        if size is None:
            del found[key]
            continue
        if not said:
            sides = size
            folder.leave_out('picture without width and height',
                             image['file_name'], 'read from the file')
        found[key] = dict(image, width=sides[0], height=sides[1],
                          file_name=paths[key].removeprefix(prefix))
    return found, prefix


def _annotation(ann: dict, image: dict) -> tuple[dict, str, list[str]]:
    """A record with all keys, why it is left out (or nothing), and the keys
    that were added."""
    width, height = image['width'], image['height']
    outline = _outline(ann.get('segmentation'))
    if outline or ann.get('segmentation'):
        ann = dict(ann, segmentation=outline or [])
    box, area = ann.get('bbox'), ann.get('area')
    has_box = isinstance(box, list) and len(box) == 4 and all(
        map(_is_number, box))
    has_area = _is_number(area) and area > 0
    rle, added = None, {}
    if outline and not (has_box and has_area):
        try:
            rle = coco_mask.frPyObjects(outline, height, width)
            rle = coco_mask.merge(rle) if isinstance(rle, list) else rle
        except (TypeError, ValueError, KeyError):  # whole RLE is taken as is
            rle = outline if isinstance(outline, dict) else None
    if not has_box:
        if rle is None:
            return (ann, 'object without a box of four numbers or an outline',
                    [])
        box = added['bbox'] = coco_mask.toBbox(rle).tolist()
    x, y, w, h = box
    if min(w, h) < 1:
        return ann, 'object narrower or lower than a pixel', []
    if min(x + w, width) <= max(x, 0) or min(y + h, height) <= max(y, 0):
        return ann, 'object outside of the picture', []
    if not has_area:
        added['area'] = float(coco_mask.area(rle)) if rle else w * h
    if ann.get('iscrowd') not in (0, 1):
        added['iscrowd'] = 0
    return {**ann, **added}, '', [*added]


def _is_number(value) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _outline(outline):
    """Polygons of three corners and more, or RLE; None if there is none."""
    if isinstance(outline, dict):
        return outline if outline.get('counts') else None
    polygons = outline if isinstance(outline, list) else []
    return [p for p in polygons if isinstance(p, list) and len(p) >= 6
            and len(p) % 2 == 0 and all(map(_is_number, p))] or None


def samples_of(data: dict, prefix: str) -> list[tuple]:
    """The samples that records in COCO's format come to, see `coco_of`."""
    names = {c['id']: c['name'] for c in data['categories']}
    objects = {image['id']: [] for image in data['images']}
    for ann in data['annotations']:
        objects[ann['image_id']].append(
            dict(ann, category=names[ann['category_id']]))
    return [(prefix + image['file_name'], (image['width'], image['height']),
             objects[image['id']]) for image in data['images']]


def coco_of(samples: Sequence[tuple], names: Sequence[str]) -> dict:
    """COCO's records of samples.

    Args:
        samples (Sequence[tuple]): For each picture its path, its (width,
            height), and its objects: dicts with ``category``, a name,
            ``bbox``, and what else an annotation may have.
        names (Sequence[str]): Names of the classes, in order.
    """
    numbers = {name: i for i, name in enumerate(names, 1)}
    images = [dict(id=i, file_name=path, width=size[0], height=size[1])
              for i, (path, size, _) in enumerate(samples, 1)]
    annotations = []
    for image, (_, _, items) in zip(images, samples):
        for item in items:
            item = dict(item, category_id=numbers[item['category']],
                        image_id=image['id'], id=len(annotations) + 1)
            del item['category']
            annotations.append(item)
    return dict(
        images=images, annotations=annotations,
        categories=[dict(id=i, name=name) for name, i in numbers.items()])


# ----------------------------------------------------------------------------
# Two splits of one data set


def same_classes(folder: PictureFolder, train: dict, val: dict,
                 prefix: str) -> dict:
    """Another split's records with the categories of training, in their order:
    labels are counted in the order of each file's categories.

    Returns:
        dict: ``val`` itself if they are so already; else paths start from
        the folder, and not from ``prefix``.
    """
    names = [c['name'] for c in train['categories']]
    if names == [c['name'] for c in val['categories']]:
        return val
    samples = []
    for path, size, items in samples_of(val, prefix):
        for item in items:
            if item['category'] not in names:
                folder.leave_out('object of validation or test of a class '
                                 'without any in training', item['category'])
        samples.append((path, size, [item for item in items
                                     if item['category'] in names]))
    return coco_of(samples, names)


def shown_classes(train: dict) -> tuple[tuple[str, ...], list[str]]:
    """Names of the classes that training shows, in order; and a note on each
    of the others."""
    shown = {ann['category_id'] for ann in train['annotations']}
    parents = {c.get('supercategory') for c in train['categories']}
    return tuple(c['name'] for c in train['categories'] if c['id'] in shown), [
        f'{"parent " if c["name"] in parents else ""}category {c["name"]!r} '
        'has no objects to learn from: left out'
        for c in train['categories'] if c['id'] not in shown
    ]


def has_outlines(splits: Iterable[dict]) -> tuple[bool, str]:
    """Whether nearly all objects have outlines that are more than boxes, and
    what there is, in words."""
    every = [ann for data in splits for ann in data['annotations']]
    outlined = [ann for ann in every if ann.get('segmentation')]
    if not outlined or all(map(_is_box, outlined)):
        return False, 'boxes without outlines'
    if len(outlined) < 0.95 * len(every):
        return False, (f'boxes, and outlines of {len(outlined)} of '
                       f'{len(every)} objects alone')
    return True, 'outlines'


def drop_unoutlined(folder: PictureFolder, data: dict) -> bool:
    """Leave out the objects without outlines; whether there are any."""
    bare = [ann for ann in data['annotations'] if not ann.get('segmentation')]
    pictures = {image['id']: image['file_name'] for image in data['images']}
    for ann in bare:
        folder.leave_out('object without an outline',
                         f'{pictures[ann["image_id"]]}: id {ann["id"]}')
    data['annotations'] = [
        ann for ann in data['annotations'] if ann.get('segmentation')]
    return bool(bare)


def _is_box(ann: dict) -> bool:
    """Whether an outline is the box itself, as some tools write it."""
    outline = ann.get('segmentation')
    if not isinstance(outline, list) or len(outline) > 1:
        return False
    x, y, w, h = ann['bbox']
    near_corner = [min(abs(px - x), abs(px - x - w)) < 1
                   and min(abs(py - y), abs(py - y - h)) < 1
                   for px, py in zip(outline[0][::2], outline[0][1::2])]
    return len(near_corner) in (4, 5) and all(near_corner)

# Copyright (c) mmfishnet authors. All rights reserved.
"""Annotation files in COCO's format.

What is an error and what a warning follows from what MMDetection's
``CocoDataset`` and ``CocoMetric`` and pycocotools do with it. Columns are
NumPy arrays, so that COCO's 860,000 annotations take seconds.
"""
from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from itertools import chain

import numpy as np

from .problem import Problem, error, short, some, warning

SLACK = 1.0  # pixels by which a box or polygon may pass the border
ID_RULE = 'ids should be whole numbers, each given once'


class CocoFile:
    """The content of an annotation file, whatever it is.

    Args:
        path (str): The file, for messages.
        content: What its JSON holds.
        panoptic (bool): Whether the annotations are segments of images, as in
            COCO's panoptic files. Defaults to False.

    Attributes:
        images, annotations, categories (list[dict]): Their records; what is no
            record is left out. The annotations of a panoptic file are its
            segments, each with ``image_id``.
        row (dict): Image id to position in ``images``.
        image (np.ndarray): Position of each annotation's image, or -1.
        size (np.ndarray): Width and height of the images, (images, 2); nan
            where they are no numbers.
        boxes (np.ndarray): (annotations, 4); nan where they are no numbers.
    """

    def __init__(self, path: str, content, panoptic: bool = False) -> None:
        self.path, self.content, self.panoptic = path, content, panoptic
        self.images = self._records('images')
        self.categories = self._records('categories')
        self.annotations = self._records('annotations')
        if panoptic:
            self.annotations = [
                dict(segment, image_id=annotation.get('image_id'))
                for annotation in self.annotations
                for segment in _list(annotation.get('segments_info'))
                if isinstance(segment, dict)
            ]
        self.row = {
            key: i
            for i, image in enumerate(self.images)
            if (key := _key(image.get('id'))) is not None
        }
        self.image = np.array([
            self.row.get(_key(a.get('image_id')), -1) for a in self.annotations
        ], int)
        self.size = np.stack([
            numbers([image.get(side) for image in self.images])
            for side in ('width', 'height')
        ], 1)
        boxes = [a.get('bbox') for a in self.annotations]
        whole = np.array([type(b) is list and len(b) == 4 for b in boxes],
                         bool)
        self.boxes = np.full((len(boxes), 4), np.nan)
        self.boxes[whole] = numbers(
            list(chain.from_iterable(
                b for b, ok in zip(boxes, whole) if ok))).reshape(-1, 4)

    def _records(self, name: str) -> list[dict]:
        if not isinstance(self.content, dict):
            return []
        return [r for r in _list(self.content.get(name)) if type(r) is dict]

    @property
    def names(self) -> list[str]:
        """Names of the categories in the order of the file."""
        return [
            c['name'] for c in self.categories
            if isinstance(c.get('name'), str)
        ]

    def column(self, name: str) -> list:
        """A value of each annotation; None where it is missing."""
        return [a.get(name) for a in self.annotations]

    def count(self, rows) -> str:
        """Say how many annotations, and which."""
        rows = np.flatnonzero(rows) if isinstance(
            rows, np.ndarray) and rows.dtype == bool else rows
        ids = [self.annotations[i].get('id') for i in rows]
        return f'{len(ids)} of {len(self.annotations)} annotations ' \
               f'(ids {some(ids)})'

    def example(self, name: str, rows) -> str:
        """The value of the first of these annotations."""
        rows = np.flatnonzero(rows) if isinstance(
            rows, np.ndarray) and rows.dtype == bool else rows
        return short(self.annotations[rows[0]].get(name))

    @property
    def limits(self) -> np.ndarray:
        """Width and height of each annotation's image, (annotations, 2)."""
        limits = np.full((len(self.annotations), 2), np.nan)
        known = self.image >= 0
        limits[known] = self.size[self.image[known]]
        return limits


def numbers(values: list) -> np.ndarray:
    """Make an array of what should be numbers.

    Args:
        values (list): Values from a JSON.

    Returns:
        np.ndarray: float64; nan where a value is no number.
    """
    if set(map(type, values)) <= {int, float}:
        try:
            return np.array(values, dtype=np.float64)
        except OverflowError:  # an integer beyond 1e308
            pass
    return np.array([_number(value) for value in values], dtype=np.float64)


def _number(value) -> float:
    try:
        return float(value) if type(value) in (int, float) else math.nan
    except OverflowError:
        return math.inf


def _list(value) -> list:
    return value if isinstance(value, list) else []


def _key(value):
    """A value for a dict: ids that are lists or objects are none."""
    return value if isinstance(value, (int, float, str)) else None


def check_structure(coco: CocoFile, evaluated: bool) -> Iterator[Problem]:
    """The three lists of records."""
    if not isinstance(coco.content, dict):
        yield error(
            coco.path, f"the file holds {short(coco.content)}; COCO's format "
            "is an object with the lists 'images', 'annotations' and "
            "'categories'")
        return
    for name in ('images', 'annotations', 'categories'):
        if name == 'annotations' and name not in coco.content \
                and not evaluated:
            continue  # such as COCO's test sets
        value = coco.content.get(name)
        if not isinstance(value, list):
            yield error(
                coco.path, f'{name!r} is {short(value)}; it should be a list '
                'of records' if name in coco.content else
                f"there is no {name!r}; COCO's format is an object with the "
                "lists 'images', 'annotations' and 'categories'")
            continue
        wrong = [i for i, record in enumerate(value)
                 if not isinstance(record, dict)]
        if wrong:
            yield error(
                coco.path, f'{len(wrong)} of {len(value)} items of {name!r} '
                f'(positions {some(wrong)}) are no records; the first is '
                f'{short(value[wrong[0]])}')
        if not value and name != 'annotations':
            yield error(coco.path, f'{name!r} is empty')


def check_ids(place: str, name: str, ids: list) -> Iterator[Problem]:
    """Ids of one kind of record.

    Args:
        place (str): The file.
        name (str): 'image', 'annotation' or 'category'.
        ids (list): Their ids; None where there is none.
    """
    kinds = set(map(type, ids))
    if not kinds <= {int, float, str}:
        rows = [i for i, v in enumerate(ids)
                if type(v) not in (int, float, str)]
        yield error(
            place, f'{len(rows)} of {len(ids)} {name} ids are missing or no '
            f'numbers (positions {some(rows)}; the first is '
            f'{short(ids[rows[0]])}); {ID_RULE}')
    for kind, word in ((str, 'strings'), (float, 'floats')):
        if kind in kinds:
            found = [v for v in ids if type(v) is kind]
            yield warning(
                place, f'{len(found)} of {len(ids)} {name} ids are {word} '
                f'({some(found)}); {ID_RULE}: other tools refuse them, and '
                f'they match no id that is written otherwise')
    good = [v for v in ids if type(v) in (int, float, str)]
    if len(set(good)) < len(good):
        doubled = [v for v, times in Counter(good).items() if times > 1]
        yield error(
            place, f'{len(doubled)} {name} ids are given more than once '
            f'({some(doubled)}); {ID_RULE}')


def check_images(coco: CocoFile) -> Iterator[Problem]:
    """Records of the images."""
    yield from check_ids(coco.path, 'image',
                         [image.get('id') for image in coco.images])

    def count(rows):
        ids = [coco.images[i].get('id') for i in rows]
        return f'{len(ids)} of {len(coco.images)} images (ids {some(ids)})'

    names = [image.get('file_name') for image in coco.images]
    wrong = [i for i, v in enumerate(names) if not isinstance(v, str) or not v]
    if wrong:
        yield error(
            coco.path, f'{count(wrong)} have no file_name; the first says '
            f'{short(names[wrong[0]])}. It should be the path below the '
            "data set's data_prefix.img")
    wrong = [
        i for i, image in enumerate(coco.images)
        if not all(type(image.get(side)) is int and image[side] > 0
                   for side in ('width', 'height'))
    ]
    if wrong:
        first = coco.images[wrong[0]]
        yield error(
            coco.path, f'{count(wrong)} have no proper width and height; the '
            f'first says width={short(first.get("width"))}, '
            f'height={short(first.get("height"))}. They should be whole '
            'numbers above 0')
    names = [name for name in names if isinstance(name, str)]
    if len(set(names)) < len(names):
        doubled = [v for v, times in Counter(names).items() if times > 1]
        yield warning(
            coco.path, f'{len(doubled)} image files are listed under more '
            f'than one id ({some(doubled)})')


def check_categories(coco: CocoFile) -> Iterator[Problem]:
    """Records of the categories."""
    yield from check_ids(coco.path, 'category',
                         [c.get('id') for c in coco.categories])
    wrong = [
        c.get('id') for c in coco.categories
        if not isinstance(c.get('name'), str) or not c['name'].strip()
    ]
    if wrong:
        yield error(coco.path, f'{len(wrong)} categories (ids {some(wrong)}) '
                    'have no name')
    doubled = [v for v, times in Counter(coco.names).items() if times > 1]
    if doubled:
        yield error(
            coco.path, f'{len(doubled)} category names are given more than '
            f'once ({some(doubled)}): each gets a label of its own, and the '
            'later ones have no class. Join them under one id')


def check_references(coco: CocoFile, evaluated: bool) -> Iterator[Problem]:
    """Ids of the annotations, and those of images and categories in them."""
    ids = coco.column('id')
    if coco.panoptic:  # unique in an image
        pairs = [(_key(i), short(v)) for i, v in
                 zip(coco.column('image_id'), ids)]
        doubled = [v for v, times in Counter(pairs).items() if times > 1]
        if doubled:
            yield error(
                coco.path, f'{len(doubled)} segment ids are given more than '
                'once in one image (image and segment: '
                f'{some(doubled)})')
    else:
        yield from check_ids(coco.path, 'annotation', ids)
    zeros = [i for i, v in enumerate(ids)
             if type(v) in (int, float) and v == 0]
    if zeros and (evaluated or coco.panoptic):
        yield warning(
            coco.path, f'{coco.count(zeros)} have id 0. ' + (
                'It stands for no segment at all' if coco.panoptic else
                "COCO's evaluation takes id 0 for unmatched: the object "
                'counts as missed even where it is found, which lowers AP '
                '(perfect boxes reach less than 1)') +
            '. Count ids from 1')
    lost = np.flatnonzero(coco.image < 0)
    if len(lost):
        found = dict.fromkeys(
            short(coco.annotations[i].get('image_id')) for i in lost)
        yield warning(
            coco.path, f'{coco.count(lost)} are of images that the file does '
            f'not list (image_id {", ".join(list(found)[:5])}): they are left '
            'out')
    known = {_key(c.get('id')) for c in coco.categories} - {None}
    kinds = coco.column('category_id')
    lost = [i for i, v in enumerate(kinds) if _key(v) not in known]
    if lost and coco.categories:
        found = dict.fromkeys(short(kinds[i]) for i in lost)
        yield error(
            coco.path, f'{coco.count(lost)} have a category_id that the file '
            f'does not list ({", ".join(list(found)[:5])}; it lists '
            f'{some(sorted(map(short, known)))}): they would be left out, '
            'and their objects be background. Add the category or remove '
            'the annotations')


def check_boxes(coco: CocoFile) -> Iterator[Problem]:
    """Boxes: numbers, sizes, and where they lie."""
    boxes = coco.boxes
    finite = np.isfinite(boxes).all(1)
    if not finite.all():
        yield error(
            coco.path, f'{coco.count(~finite)} have a bbox that is not four '
            f'finite numbers; the first is {coco.example("bbox", ~finite)}. '
            'It should be [x, y, width, height]')
    with np.errstate(invalid='ignore', over='ignore'):
        left_top, size = boxes[:, :2], boxes[:, 2:]
        right_bottom = left_top + size
        limits = coco.limits
        negative = finite & (size < 0).any(1)
        tiny = finite & ~negative & (size < 1).any(1)
        sound = finite & ~negative & ~tiny & (coco.image >= 0)
        inside = np.minimum(right_bottom, limits) - np.maximum(left_top, 0)
        outside = sound & (inside <= 0).any(1)
        partly = sound & ~outside & ((left_top < -SLACK) | (
            right_bottom > limits + SLACK)).any(1)
        # Would all fit if the last two numbers were a corner?
        corners = (finite & (coco.image >= 0)
                   & (size >= left_top).all(1)
                   & (size <= limits + SLACK).all(1))
    if negative.any():
        yield error(
            coco.path, f'{coco.count(negative)} have a negative width or '
            f'height; the first is {coco.example("bbox", negative)}. They are '
            'left out in training and never matched in evaluation; a bbox is '
            '[x, y, width, height]')
    if tiny.any():
        fractions = (finite.any() and tiny[finite].all()
                     and (boxes[finite] <= 1).all())
        yield (error if fractions else warning)(
            coco.path, f'{coco.count(tiny)} have a bbox narrower or lower '
            f'than a pixel; the first is {coco.example("bbox", tiny)}. They '
            'are left out in training' +
            ('. All boxes look like fractions of the image; they should be '
             'in pixels' if fractions else ''))
    hint = ''
    suspect = partly | outside
    if suspect.sum() > 1 and corners[finite].all():
        hint = '. All boxes would fit as two corners, [x1, y1, x2, y2]; ' \
               "COCO's are [x, y, width, height]"
    if outside.any():
        first = np.flatnonzero(outside)[0]
        yield error(
            coco.path, f'{coco.count(outside)} have a bbox outside of the '
            f'image; the first is {coco.example("bbox", outside)} in an image '
            f'of {_size(limits[first])}. They are left out in training and '
            f'never matched in evaluation{hint}')
    if partly.any():
        first = np.flatnonzero(partly)[0]
        yield (error if hint else warning)(
            coco.path, f'{coco.count(partly)} have a bbox that passes the '
            f'border of the image by more than {SLACK:g} pixel; the first is '
            f'{coco.example("bbox", partly)} in an image of '
            f'{_size(limits[first])}{hint}')


def _size(size) -> str:
    return f'{size[0]:g}x{size[1]:g} pixels (width x height)'


def check_keys(coco: CocoFile, evaluated: bool) -> Iterator[Problem]:
    """``area`` and ``iscrowd``."""
    missing = [i for i, a in enumerate(coco.annotations) if 'area' not in a]
    if missing:
        yield error(
            coco.path, f'{coco.count(missing)} have no area, which '
            "MMDetection's data sets and COCO's evaluation read. Set it to "
            'the pixels of the mask or, without masks, of the box')
    area = numbers(coco.column('area'))
    wrong = ~np.isfinite(area)
    wrong[missing] = False
    if wrong.any():
        yield error(
            coco.path, f'{coco.count(wrong)} have an area that is no finite '
            f'number; the first is {coco.example("area", wrong)}')
    if (area <= 0).any():
        yield warning(
            coco.path, f'{coco.count(area <= 0)} have an area of 0 or less; '
            f'the first is {coco.example("area", area <= 0)}. They are left '
            'out in training')

    crowd = coco.column('iscrowd')
    missing = [i for i, a in enumerate(coco.annotations) if 'iscrowd' not in a]
    if missing and evaluated and not coco.panoptic:
        yield error(
            coco.path, f"{coco.count(missing)} have no iscrowd, which COCO's "
            'evaluation reads. Set it to 0, and to 1 for a mask that covers '
            'a crowd of objects')
    values = numbers([int(v) if type(v) is bool else v for v in crowd])
    wrong = ~np.isin(values, (0, 1))
    wrong[missing] = False
    if wrong.any():
        yield error(
            coco.path, f'{coco.count(wrong)} have an iscrowd other than 0 and '
            f'1; the first is {coco.example("iscrowd", wrong)}')
    if len(values) and (values == 1).all():
        yield warning(
            coco.path, 'all annotations have iscrowd=1: there is nothing to '
            'learn and nothing to find')

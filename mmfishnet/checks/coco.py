# Copyright (c) mmfishnet authors. All rights reserved.
"""Annotation files in COCO's format.

What is an error follows from what MMDetection's ``CocoDataset`` and
``CocoMetric`` and pycocotools do with it. Columns are NumPy arrays, so that
COCO's 860,000 annotations take seconds.
"""
from __future__ import annotations

import gc
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from functools import cached_property
from itertools import chain
from typing import NamedTuple

import mmengine
import numpy as np

from ..words import first_few, short
from .problem import Problem, error, warning

SLACK = 1.0  # pixels by which a box or polygon may pass the border
ID_RULE = 'ids should be whole numbers, each given once'
FORMAT = ("COCO's format is an object with the lists 'images', 'annotations' "
          "and 'categories'")


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
        limits (np.ndarray): Width and height of each annotation's image.
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
        boxes = self.column('bbox')
        whole = np.array([type(b) is list and len(b) == 4 for b in boxes],
                         bool)
        self.boxes = np.full((len(boxes), 4), np.nan)
        self.boxes[whole] = numbers(
            list(chain.from_iterable(
                b for b, ok in zip(boxes, whole) if ok))).reshape(-1, 4)
        self.limits = np.full((len(boxes), 2), np.nan)
        self.limits[self.image >= 0] = self.size[self.image[self.image >= 0]]

    def _records(self, name: str) -> list[dict]:
        if not isinstance(self.content, dict):
            return []
        return [r for r in _list(self.content.get(name)) if type(r) is dict]

    def column(self, name: str) -> list:
        """A value of each annotation; None where it is missing."""
        return [a.get(name) for a in self.annotations]

    def lacks(self, name: str) -> np.ndarray:
        """Which annotations have no such key."""
        return np.array([name not in a for a in self.annotations], bool)

    @cached_property
    def names(self) -> list[str]:
        """Names of the categories in the order of the file."""
        return [
            c['name'] for c in self.categories
            if isinstance(c.get('name'), str)
        ]

    @cached_property
    def categories_by_id(self) -> dict:
        return {
            c['id']: c.get('name')
            for c in self.categories if _key(c.get('id')) is not None
        }

    @cached_property
    def finite(self) -> np.ndarray:
        """Annotations whose bbox is four finite numbers."""
        return np.isfinite(self.boxes).all(1)

    @cached_property
    def negative(self) -> np.ndarray:
        return self.finite & (self.boxes[:, 2:] < 0).any(1)

    @cached_property
    def tiny(self) -> np.ndarray:
        return self.finite & ~self.negative & (self.boxes[:, 2:] < 1).any(1)

    @cached_property
    def fractions(self) -> bool:
        """Whether all boxes look like shares of the image."""
        finite = self.finite
        return bool(finite.any() and self.tiny[finite].all()
                    and (self.boxes[finite] <= 1).all())

    @cached_property
    def outside(self) -> np.ndarray:
        with np.errstate(invalid='ignore', over='ignore'):
            inside = np.minimum(
                self.boxes[:, :2] + self.boxes[:, 2:],
                self.limits) - np.maximum(self.boxes[:, :2], 0)
            return self._sound & (inside <= 0).any(1)

    @cached_property
    def partly(self) -> np.ndarray:
        with np.errstate(invalid='ignore', over='ignore'):
            right = self.boxes[:, :2] + self.boxes[:, 2:]
            return self._sound & ~self.outside & (
                (self.boxes[:, :2] < -SLACK) |
                (right > self.limits + SLACK)).any(1)

    @property
    def _sound(self) -> np.ndarray:
        return self.finite & ~self.negative & ~self.tiny & (self.image >= 0)

    @cached_property
    def kept(self) -> np.ndarray:
        """What CocoDataset keeps, if all classes are chosen."""
        area = numbers(self.column('area'))
        ignored = np.array([bool(v) for v in self.column('ignore')], bool)
        known = np.array([_key(v) in self.categories_by_id
                          for v in self.column('category_id')], bool)
        with np.errstate(invalid='ignore'):
            return (self._sound & ~self.outside & ~ignored & known
                    & (area > 0))

    def count(self, rows) -> str:
        """Say how many annotations, and which."""
        rows = _rows(rows)
        ids = [self.annotations[i].get('id') for i in rows]
        return f'{len(ids)} of {len(self.annotations)} annotations ' \
               f'(ids {first_few(ids)})'

    def example(self, name: str, rows) -> str:
        """The value of the first of these annotations."""
        return short(self.annotations[_rows(rows)[0]].get(name))


def read_coco(path: str, panoptic: bool = False,
              backend_args=None) -> CocoFile:
    """Read an annotation file, without the garbage collector's visits.

    Args:
        path (str): File, on a disk or behind a storage backend.
        panoptic (bool): As of :class:`CocoFile`. Defaults to False.
        backend_args (dict, optional): Of the data set. Defaults to None.

    Raises:
        Exception: Whatever the storage backend raises; ValueError or
            RecursionError if it is no JSON.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        content = mmengine.load(
            path, file_format='json', backend_args=backend_args)
    finally:
        if enabled:
            gc.enable()
    return CocoFile(path, content, panoptic)


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


def _rows(rows) -> np.ndarray:
    rows = np.asarray(rows)
    return np.flatnonzero(rows) if rows.dtype == bool else rows


def _as(test: Callable, name: str) -> Callable:
    """Rows whose value, if there is one, is so."""
    return lambda coco: np.array(
        [name in a and test(a[name]) for a in coco.annotations], bool)


def _corners(coco: CocoFile) -> str:
    """A hint, if all boxes would fit as two corners."""
    boxes, limits = coco.boxes, coco.limits
    with np.errstate(invalid='ignore'):
        fit = ((boxes[:, 2:] >= boxes[:, :2]).all(1)
               & (boxes[:, 2:] <= limits + SLACK).all(1))
    if (coco.partly | coco.outside).sum() > 1 and fit[coco.finite].all():
        return '. All boxes would fit as two corners, [x1, y1, x2, y2]; ' \
               "COCO's are [x, y, width, height]"
    return ''


def _unknown_category(coco: CocoFile) -> np.ndarray:
    return np.array([bool(coco.categories) and
                     _key(v) not in coco.categories_by_id
                     for v in coco.column('category_id')], bool)


class Rule(NamedTuple):
    """A mistake of annotations.

    Attributes:
        levels (str): What it is where the file is read (by a data set),
            trained on, evaluated with and, of these alone, where it is
            panoptic: E an error, W a warning, - nothing.
        key (str): Of the annotation, for the first example.
        find (Callable): Which annotations.
        words (str): ``{these}``, ``{first}``, ``{size}`` and ``{hint}`` are
            filled in.
    """

    levels: str
    key: str
    find: Callable[[CocoFile], np.ndarray]
    words: str


RULES = [
    Rule('EEEE', 'bbox', lambda c: ~c.finite & ~np.array(
        [bool(v) for v in c.column('ignore')], bool),
         '{these} have a bbox that is not four finite numbers; the first is '
         '{first}. It should be [x, y, width, height]'),
    Rule('-WEW', 'bbox', lambda c: c.negative,
         '{these} have a negative width or height; the first is {first}. They '
         'are left out in training and never matched in evaluation; a bbox is '
         '[x, y, width, height]'),
    Rule('-W-W', 'bbox', lambda c: c.tiny & (not c.fractions),
         '{these} have a bbox narrower or lower than a pixel; the first is '
         '{first}. They are left out in training'),
    Rule('-EE-', 'bbox', lambda c: c.tiny & c.fractions,
         '{these} have a bbox narrower or lower than a pixel; the first is '
         '{first}. All boxes look like fractions of the image; they should be '
         'in pixels'),
    Rule('-WE-', 'bbox', lambda c: c.outside,
         '{these} have a bbox outside of the image; the first is {first} in '
         'an image of {size}. They are left out in training and never matched '
         'in evaluation{hint}'),
    Rule('-WW-', 'bbox', lambda c: c.partly,
         '{these} have a bbox that passes the border of the image by more '
         f'than {SLACK:g} pixel; the first is {{first}} in an image of '
         '{size}{hint}'),
    Rule('EEEE', 'area', lambda c: c.lacks('area'),
         "{these} have no area, which MMDetection's data sets and COCO's "
         'evaluation read. Set it to the pixels of the mask or, without '
         'masks, of the box'),
    Rule('EEEE', 'area', _as(lambda v: type(v) not in (int, float), 'area'),
         '{these} have an area that is no number; the first is {first}'),
    Rule('-WWW', 'area', _as(lambda v: type(v) in (int, float)
                             and not 0 < v < math.inf, 'area'),
         '{these} have an area that is not above 0; the first is {first}. '
         'They are left out in training'),
    Rule('--E-', 'iscrowd', lambda c: c.lacks('iscrowd'),
         "{these} have no iscrowd, which COCO's evaluation reads. Set it to "
         '0, and to 1 for a mask that covers a crowd of objects'),
    Rule('-EE-', 'iscrowd', _as(lambda v: type(v) not in (int, float, bool),
                                'iscrowd'),
         '{these} have an iscrowd other than 0 and 1; the first is {first}. '
         'Whatever is not 0 is taken for a crowd, which is neither learnt nor '
         'looked for'),
    Rule('-WW-', 'iscrowd', _as(lambda v: type(v) in (int, float)
                                and v not in (0, 1), 'iscrowd'),
         '{these} have an iscrowd other than 0 and 1; the first is {first}'),
    Rule('-WWW', 'image_id', lambda c: c.image < 0,
         '{these} are of images that the file does not list; the first has '
         'image_id {first}: they are left out'),
    Rule('-WWE', 'category_id', _unknown_category,
         '{these} have a category_id that the file does not list; the first '
         'is {first}, and it lists {categories}: they are left out, and their '
         'objects are background'),
    Rule('--WW', 'id', _as(lambda v: type(v) in (int, float) and v == 0,
                           'id'),
         "{these} have id 0, which stands for no segment, and in COCO's "
         'evaluation for unmatched: the object counts as missed even where it '
         'is found, which lowers AP (perfect boxes reach less than 1). Count '
         'ids from 1'),
]
LEVELS = dict(E='error', W='warning')


def check_annotations(coco: CocoFile,
                      uses: Collection[str]) -> Iterator[Problem]:
    """All rules about a file.

    Args:
        coco (CocoFile): Its content.
        uses (Collection[str]): Of 'read' (by a data set), 'train' and 'eval'.
    """
    columns = [3] if coco.panoptic else [
        i for i, use in enumerate(('read', 'train', 'eval')) if use in uses
    ]
    yield from _check_structure(coco, uses)
    yield from _check_images(coco)
    yield from _check_categories(coco)
    if 'read' in uses and not coco.panoptic:
        yield from _check_ids(coco.path, 'annotation', coco.column('id'))
    if not coco.annotations:
        return
    for rule in RULES:
        level = min((rule.levels[i] for i in columns),
                    key='EW-'.index, default='-')
        rows = rule.find(coco) if level != '-' else np.zeros(0, bool)
        if rows.any():
            first = np.flatnonzero(rows)[0]
            size = coco.limits[first]
            yield Problem(LEVELS[level], coco.path, rule.words.format(
                these=coco.count(rows), first=coco.example(rule.key, rows),
                size=f'{size[0]:g}x{size[1]:g} pixels (width x height)',
                hint=_corners(coco), categories=first_few(
                    sorted(map(short, coco.categories_by_id)))))
    crowd = coco.column('iscrowd')
    if all(v in (1, True) for v in crowd):
        yield warning(coco.path, 'all annotations have iscrowd=1: there is '
                      'nothing to learn and nothing to find')


def _check_structure(coco: CocoFile, uses) -> Iterator[Problem]:
    if not isinstance(coco.content, dict):
        yield error(coco.path,
                    f'the file holds {short(coco.content)}; {FORMAT}')
        return
    for name in ('images', 'annotations', 'categories'):
        # pycocotools does without annotations, as of COCO's test sets, where
        # nothing is to be learnt or compared.
        if name == 'annotations' and name not in coco.content and not (
                coco.panoptic or 'eval' in uses):
            continue
        value = coco.content.get(name)
        if not isinstance(value, list):
            yield error(
                coco.path, f'{name!r} is {short(value)}; it should be a list '
                'of records' if name in coco.content else
                f'there is no {name!r}; {FORMAT}')
            continue
        wrong = [i for i, r in enumerate(value) if not isinstance(r, dict)]
        if wrong:
            yield error(
                coco.path, f'{len(wrong)} of {len(value)} items of {name!r} '
                f'(positions {first_few(wrong)}) are no records; the first is '
                f'{short(value[wrong[0]])}')
        if not value and name != 'annotations':
            yield error(coco.path, f'{name!r} is empty')


def _check_ids(place: str, name: str, ids: list,
               same: Callable = lambda key: False) -> Iterator[Problem]:
    """Ids of one kind of record; ``same`` tells harmless doubles."""
    kinds = set(map(type, ids))
    if not kinds <= {int, float, str}:
        rows = [i for i, v in enumerate(ids)
                if type(v) not in (int, float, str)]
        yield error(
            place, f'{len(rows)} of {len(ids)} {name} ids are missing or no '
            f'numbers (positions {first_few(rows)}; the first is '
            f'{short(ids[rows[0]])}); {ID_RULE}')
    for kind, word in ((str, 'strings'), (float, 'floats')):
        if kind in kinds:
            found = [v for v in ids if type(v) is kind]
            yield warning(
                place, f'{len(found)} of {len(ids)} {name} ids are {word} '
                f'({first_few(found)}); {ID_RULE}: other tools refuse them, '
                'and they match no id that is written otherwise')
    good = [v for v in ids if type(v) in (int, float, str)]
    if len(set(good)) < len(good):
        doubled = [v for v, times in Counter(good).items() if times > 1]
        harmless = all(map(same, doubled))
        yield (warning if harmless else error)(
            place, f'{len(doubled)} {name} ids are given more than once '
            f'({first_few(doubled)}); {ID_RULE}')


def _check_images(coco: CocoFile) -> Iterator[Problem]:
    def same(key):
        records = [r for r in coco.images if r.get('id') == key]
        return all(record == records[0] for record in records)

    def these(rows):
        ids = [coco.images[i].get('id') for i in rows]
        return (f'{len(ids)} of {len(coco.images)} images '
                f'(ids {first_few(ids)})')

    yield from _check_ids(coco.path, 'image', [r.get('id') for r in coco.images
                                               ], same)
    files = [image.get('file_name') for image in coco.images]
    wrong = [i for i, v in enumerate(files) if not isinstance(v, str) or not v]
    if wrong:
        yield error(
            coco.path, f'{these(wrong)} have no file_name; the first says '
            f'{short(files[wrong[0]])}. It should be the path below the '
            "data set's data_prefix.img")
    for problem, rows in (
        (error, ~np.isfinite(coco.size).all(1)),
        (warning, np.isfinite(coco.size).all(1) &
         ((coco.size <= 0) | (coco.size % 1 != 0)).any(1))):
        if rows.any():
            rows = np.flatnonzero(rows)
            first = coco.images[rows[0]]
            yield problem(
                coco.path, f'{these(rows)} have no proper width and height; '
                f'the first says width={short(first.get("width"))}, '
                f'height={short(first.get("height"))}. They should be whole '
                'numbers above 0')
    files = [name for name in files if isinstance(name, str)]
    if len(set(files)) < len(files):
        doubled = [v for v, times in Counter(files).items() if times > 1]
        yield warning(
            coco.path, f'{len(doubled)} image files are listed more than once '
            f'({first_few(doubled)})')


def _check_categories(coco: CocoFile) -> Iterator[Problem]:
    yield from _check_ids(coco.path, 'category',
                          [c.get('id') for c in coco.categories])
    wrong = [
        c.get('id') for c in coco.categories
        if not isinstance(c.get('name'), str) or not c['name'].strip()
    ]
    if wrong:
        yield error(coco.path, f'{len(wrong)} categories (ids '
                    f'{first_few(wrong)}) have no name')
    doubled = [v for v, times in Counter(coco.names).items() if times > 1]
    if doubled:
        yield error(
            coco.path, f'{len(doubled)} category names are given more than '
            f'once ({first_few(doubled)}): each gets a label of its own, and '
            'the later ones have no class. Join them under one id')

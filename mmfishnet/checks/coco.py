# Copyright (c) mmfishnet authors. All rights reserved.
"""Rules for annotation files in COCO's format.

What is an error follows from what MMDetection's ``CocoDataset`` and
``CocoMetric`` and pycocotools do with it.
"""
from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

import numpy as np

from ..words import first_few, short
from .coco_file import SLACK, CocoFile, key
from .problem import Problem, error, warning

ID_RULE = 'ids should be whole numbers, each given once'
FORMAT = ("COCO's format is an object with the lists 'images', 'annotations' "
          "and 'categories'")


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
                     key(v) not in coco.categories_by_id
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
        if not value and name != 'annotations' and (
                coco.annotations or name == 'images'):
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

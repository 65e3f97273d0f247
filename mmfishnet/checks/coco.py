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
from .problem import Problem, error

ID_RULE = 'ids should be whole numbers, each given once'
FORMAT = ("COCO's format is an object with the lists 'images', 'annotations' "
          "and 'categories'")
LEVELS = dict(E='error', W='warning')


class Rule(NamedTuple):
    """A mistake of records.

    Attributes:
        of (str): 'images', 'annotations' or 'categories'.
        levels (str): What it is for each use of the file (``USES``): E an
            error, W a warning, - nothing.
        key (str): Of a record, for the first example.
        find (Callable): Which records, as a mask, of what was read.
        words (str): ``{first}``, ``{bbox}``, ``{size}`` of its image,
            ``{listed}`` ids of categories and ``{hint}`` are filled in.
    """

    of: str
    levels: str
    key: str
    find: Callable
    words: str


def _mask(values) -> np.ndarray:
    return np.array(list(values), bool)


def _are(of: str, name: str, test: Callable) -> Callable:
    """Records whose value (None where it is missing) is so."""
    return lambda coco: _mask(test(r.get(name)) for r in getattr(coco, of))


def _given(name: str, test: Callable) -> Callable:
    """Annotations that have a value which is so."""
    return lambda coco: _mask(
        name in a and test(a[name]) for a in coco.annotations)


def _unread(name: str) -> Callable:
    """Annotations on which pycocotools stops: by a KeyError, or as what is no
    key of a dict."""
    return lambda coco: _mask(
        isinstance(a.get(name, []), (list, dict)) for a in coco.annotations)


def _doubled(of: str, name: str, copies: bool = True) -> Callable:
    """Records that share a value; ``copies``: and those that share all."""
    def find(coco):
        records = getattr(coco, of)
        values = [key(r.get(name)) for r in records]
        times = Counter(values if copies else (
            value for value, _ in set(zip(values, map(repr, records)))))
        return _mask(v is not None and times[v] > 1 for v in values)

    return find


def _id_rules(of: str, level: str, copies: bool = True) -> list[Rule]:
    return [
        Rule(of, level, 'id', _are(of, 'id', lambda v: type(v) not in (
            int, float, str)),
            f'have no id, or one that is no number, as {{first}}; {ID_RULE}'),
        Rule(of, 'WWW-W', 'id', _are(of, 'id', lambda v: type(v) in (
            float, str)),
            f'have ids that are strings or floats, as {{first}}; {ID_RULE}: '
            'other tools refuse them, and they match no id that is written '
            'otherwise'),
        Rule(of, level, 'id', _doubled(of, 'id', copies), 'have an id that is '
             f'given more than once, as {{first}}; {ID_RULE}'),
    ]


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


IMAGES, CATEGORIES, ANNOTATIONS = 'images', 'categories', 'annotations'
USES = 'read', 'train', 'eval', 'boxes', 'panoptic'
RULES = [
    *_id_rules(IMAGES, 'EEE-E', copies=False),
    Rule(IMAGES, 'EE--E', 'file_name', _are(
        IMAGES, 'file_name', lambda v: not isinstance(v, str) or not v),
        'have no file_name; the first says {first}. It should be the path '
        "below the data set's data_prefix.img"),
    Rule(IMAGES, 'WWW-W', 'file_name', _doubled(IMAGES, 'file_name'),
         'have a file that others have too, as {first}'),
    *(Rule(IMAGES, 'EEE-E', side, lambda c, i=i: ~np.isfinite(c.size[:, i]),
           f'have no {side}; the first says {side}={{first}}. It should be a '
           'whole number above 0') for i, side in enumerate((
               'width', 'height'))),
    *_id_rules(CATEGORIES, 'EEE-E'),
    Rule(CATEGORIES, 'EEE-E', 'name', _are(
        CATEGORIES, 'name', lambda v: not isinstance(v, str)),
        'have no name'),
    Rule(CATEGORIES, 'EEE-E', 'name', _doubled(CATEGORIES, 'name'),
         'have a name that is given more than once, as {first}: each gets a '
         'label of its own, and the later ones have no class. Join them under '
         'one id'),
    *_id_rules(ANNOTATIONS, 'E----'),
    Rule(ANNOTATIONS, 'EE-EE', 'bbox', lambda c: ~c.finite & ~_mask(
        c.column('ignore')),
        'have a bbox that is not four finite numbers; the first is {first}. '
        'It should be [x, y, width, height]'),
    Rule(ANNOTATIONS, '-W-EW', 'bbox', lambda c: c.negative,
         'have a negative width or height; the first is {first}. They are '
         'left out in training and never matched in evaluation; a bbox is '
         '[x, y, width, height]'),
    Rule(ANNOTATIONS, '-W--W', 'bbox', lambda c: c.tiny & (not c.fractions),
         'have a bbox narrower or lower than a pixel; the first is {first}. '
         'They are left out in training'),
    Rule(ANNOTATIONS, '---W-', 'bbox', lambda c: c.finite & (
        c.boxes[:, 2:] == 0).any(1) & ~_mask(c.column('iscrowd')),
        'have a bbox without width or height; the first is {first}. They are '
        'never matched in evaluation'),
    Rule(ANNOTATIONS, '-E-E-', 'bbox', lambda c: c.tiny & c.fractions,
         'have a bbox narrower or lower than a pixel; the first is {first}. '
         'All boxes look like fractions of the image; they should be in '
         'pixels'),
    Rule(ANNOTATIONS, '-W-E-', 'bbox', lambda c: c.outside,
         'have a bbox outside of the image; the first is {first} in an image '
         'of {size}. They are left out in training and never matched in '
         'evaluation{hint}'),
    Rule(ANNOTATIONS, '-W-W-', 'bbox', lambda c: c.partly,
         'have a bbox that passes the border of the image by more than '
         f'{SLACK:g} pixel; the first is {{first}} in an image of '
         '{size}{hint}'),
    Rule(ANNOTATIONS, 'EEE-E', 'area', _are(
        ANNOTATIONS, 'area', lambda v: v is None),
        "have no area, which MMDetection's data sets and COCO's evaluation "
        'read. Set it to the pixels of the mask or, without masks, of the '
        'box'),
    Rule(ANNOTATIONS, 'EEE-E', 'area', _given(
        'area', lambda v: v is not None and type(v) not in (int, float)),
        'have an area that is no number; the first is {first}'),
    Rule(ANNOTATIONS, '-WW-W', 'area', _given(
        'area', lambda v: type(v) in (int, float) and not 0 < v < math.inf),
        'have an area that is not above 0; the first is {first}. They are '
        'left out in training'),
    Rule(ANNOTATIONS, '--E--', 'iscrowd', lambda c: _mask(
        'iscrowd' not in a for a in c.annotations),
        "have no iscrowd, which COCO's evaluation reads. Set it to 0, and to "
        '1 for a mask that covers a crowd of objects'),
    Rule(ANNOTATIONS, '-EE--', 'iscrowd', _given(
        'iscrowd', lambda v: type(v) not in (int, float, bool)),
        'have an iscrowd other than 0 and 1; the first is {first}. Whatever '
        'is not 0 is taken for a crowd, which is neither learnt nor looked '
        'for'),
    *(Rule(ANNOTATIONS, 'EEE--', name, _unread(name),
           f'have no {name}, or a list; the first says {{first}}. It should be'
           f' the id of {whose}')
      for name, whose in (('image_id', 'an image'),
                          ('category_id', 'a category'))),
    Rule(ANNOTATIONS, '-WW-W', 'image_id', lambda c: (
        c.image < 0) & ~_unread('image_id')(c),
         'are of images that the file does not list; the first has image_id '
         '{first}: they are left out'),
    Rule(ANNOTATIONS, '-WW-E', 'category_id', lambda c: _mask(
        bool(c.categories) and key(v) not in c.categories_by_id
        for v in c.column('category_id')) & ~_unread('category_id')(c),
        'have a category_id that the file does not list; the first is '
        '{first}, and it lists {listed}: they are left out, and their objects '
        'are background'),
    Rule(ANNOTATIONS, '--W-W', 'id', _given(
        'id', lambda v: type(v) in (int, float) and v == 0),
        "have id 0, which stands for no segment, and in COCO's evaluation for "
        'unmatched: the object counts as missed even where it is found, which '
        'lowers AP (perfect boxes reach less than 1). Count ids from 1'),
]


def find_problems(rules: list[Rule], read, coco: CocoFile, uses: list[int],
                  **words) -> Iterator[Problem]:
    """Say which rules hold.

    Args:
        rules (list[Rule]): Rules.
        read: What they ask: the file, or what was read of it.
        coco (CocoFile): The file.
        uses (list[int]): Letters of the levels that count; the worst is taken.
        **words (str): What else is filled in.
    """
    for rule in rules:
        records = getattr(coco, rule.of)
        level = min((rule.levels[i] for i in uses), key='EW-'.index)
        rows = np.flatnonzero(rule.find(read)) if (
            level != '-' and records) else ()
        if not len(rows):
            continue
        first, ids = records[rows[0]], [records[i].get('id') for i in rows]
        size = coco.limits[rows[0]] if rule.of == ANNOTATIONS else (0, 0)
        value = first.get(rule.key)
        if isinstance(value, dict) and 'size' in value:  # not the long counts
            value = {'size': value['size'], **value}
        said = rule.words.format(
            first=short(value), bbox=first.get('bbox'),
            size=f'{size[0]:g}x{size[1]:g} pixels (width x height)',
            hint=_corners(coco) if '{hint}' in rule.words else '',
            listed=first_few(sorted(map(short, coco.categories_by_id))),
            **words)
        yield Problem(LEVELS[level], coco.path,
                      f'{len(ids)} of {len(records)} {rule.of} (ids '
                      f'{first_few(ids)}) {said}')


def check_annotations(coco: CocoFile,
                      uses: Collection[str]) -> Iterator[Problem]:
    """All rules about a file, but those about masks.

    Args:
        coco (CocoFile): Its content.
        uses (Collection[str]): Of 'read' (by a data set), 'train', 'eval',
            and 'boxes' where the evaluation compares them; of what is panoptic
            none counts.
    """
    yield from _check_structure(coco, uses)
    yield from find_problems(
        RULES, coco, coco, [i for i, use in enumerate(USES) if (
            use == 'panoptic' if coco.panoptic else use in uses)])


def _check_structure(coco: CocoFile, uses) -> Iterator[Problem]:
    if not isinstance(coco.content, dict):
        yield error(coco.path,
                    f'the file holds {short(coco.content)}; {FORMAT}')
        return
    for name in (IMAGES, ANNOTATIONS, CATEGORIES):
        # pycocotools does without annotations, as of COCO's test sets, where
        # nothing is to be learnt or compared.
        if name == ANNOTATIONS and name not in coco.content and not (
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
        if not value and name != ANNOTATIONS and (
                coco.annotations or name == IMAGES):
            yield error(coco.path, f'{name!r} is empty')

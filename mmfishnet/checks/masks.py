# Copyright (c) mmfishnet authors. All rights reserved.
"""Masks in COCO's format: polygons and run lengths."""
from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import numpy as np

from .coco import ANNOTATIONS, Rule, find_problems
from .coco_file import SLACK, CocoFile, numbers
from .problem import Problem, note

# Compressed run lengths that are decoded; a million a minute is too slow.
DECODED = 2000
FORMS = ('. It should be a list of polygons, [[x1, y1, x2, y2, x3, y3, ...], '
         "...], or run lengths, {{'size': [height, width], 'counts': ...}}")


class Masks:
    """The ``segmentation`` of annotations.

    Args:
        coco (CocoFile): Their file.
        used (np.ndarray): Which of them are needed, as a mask.

    Attributes:
        kinds (np.ndarray): What each is: 'polygons', 'runs', 'coded'
            (compressed runs), or what is wrong with it; '' where it is not
            needed.
        infinite, outside, apart (np.ndarray): Those with polygons of
            coordinates that are no numbers, outside of the image, and apart
            from the box.
        coded, decoded (int): Compressed ones, and how many were decoded.
    """

    def __init__(self, coco: CocoFile, used: np.ndarray) -> None:
        masks = coco.column('segmentation')
        self.kinds = np.array([
            _kind(mask, *limits) if use else ''
            for mask, limits, use in zip(masks, coco.limits.tolist(), used)
        ], '<U8')
        coded = np.flatnonzero(self.kinds == 'coded')
        some = coded[::max(1, -(-len(coded) // DECODED))]
        self.coded, self.decoded = len(coded), len(some)
        for i in some:
            if not _covers(_decode(masks[i]['counts']), masks[i]['size']):
                self.kinds[i] = 'broken'
        self.infinite, self.outside, self.apart = np.zeros(
            (3, len(masks)), bool)
        drawn = np.flatnonzero(self.kinds == 'polygons')
        if len(drawn):
            self._place(coco, masks, drawn)

    def _place(self, coco: CocoFile, masks: list, drawn: np.ndarray) -> None:
        """Look where the polygons of the annotations ``drawn`` lie."""
        polygons = [[p for p in masks[i] if _is_polygon(p)] for i in drawn]
        counts = [len(several) for several in polygons]
        owners = np.repeat(drawn, counts)
        polygons = list(chain.from_iterable(polygons))
        points = numbers(list(chain.from_iterable(polygons))).reshape(-1, 2)
        starts = np.cumsum([0] + [len(p) // 2 for p in polygons[:-1]])
        low = np.minimum.reduceat(points, starts)  # nan stays
        high = np.maximum.reduceat(points, starts)
        limits = coco.limits[owners]
        infinite = ~np.isfinite(low).all(1) | ~np.isfinite(high).all(1)
        outside = ((low >= limits) | (high <= 0)).any(1) & ~infinite
        self.infinite[owners[infinite]] = True
        self.outside[owners[outside]] = True
        # Extent of all polygons of an annotation, against its box.
        firsts = np.cumsum([0] + counts[:-1])
        with np.errstate(invalid='ignore', over='ignore'):
            common = np.minimum(
                np.maximum.reduceat(high, firsts), coco.ends[drawn]
            ) - np.maximum(np.minimum.reduceat(low, firsts),
                           coco.boxes[drawn, :2])
            self.apart[drawn] = (common < -SLACK).any(1)


def _rule(levels: str, find, words: str) -> Rule:
    """Levels where masks are trained with and where they are evaluated; a
    name is a kind."""
    return Rule(ANNOTATIONS, levels, 'segmentation', (
        lambda m: m.kinds == find) if isinstance(find, str) else find, words)


RULES = [
    _rule('EE', 'empty', 'have no segmentation, or an empty one, and {reader} '
          'needs it. Add the masks, remove these annotations, or do without '
          'masks'),
    _rule('EE', 'unknown', 'have a segmentation of an unknown form; the first '
          'is {first}' + FORMS),
    _rule('WE', 'short', 'have no polygon of at least 3 points, which is an '
          'even number of 6 coordinates or more; the first is {first}. '
          "Training leaves them out, and COCO's evaluation takes 4 numbers "
          'for a box' + FORMS),
    _rule('EE', lambda m: m.infinite, 'have a polygon whose coordinates are '
          'not all finite numbers; the first is {first}'),
    _rule('WE', lambda m: m.outside, 'have a polygon that lies outside of the '
          'image; the first is {first} in an image of {size}. Masks and '
          'images should be of one size'),
    _rule('WW', lambda m: m.apart, 'have polygons that do not touch their '
          'bbox; the first has bbox {bbox} and segmentation {first}. Both '
          'should be in pixels of the same image'),
    _rule('EE', 'other', 'have a mask of another size than their image; the '
          'first is {first}, size=[height, width], in an image of {size}. '
          'Masks and images should be of one size'),
    _rule('EE', 'broken', 'have run lengths that do not make up a mask of '
          'their size; the first is {first}' + FORMS),
]


def check_masks(coco: CocoFile, reader: str,
                scored: bool) -> Iterator[Problem]:
    """The ``segmentation`` of each annotation.

    Args:
        coco (CocoFile): File whose masks are needed.
        reader (str): Who needs them, for messages.
        scored (bool): Whether they are compared with predictions. What
            training leaves out is a mistake there.
    """
    masks = Masks(coco, np.ones(len(coco.annotations), bool)
                  if scored else coco.kept)
    yield from find_problems(RULES, masks, coco, [int(scored)], reader=reader)
    if masks.decoded < masks.coded:
        yield note(
            coco.path, f'{masks.decoded} of {masks.coded} compressed masks '
            'were decoded; of the others only the size was looked at')


def _kind(mask, width: float, height: float) -> str:
    if mask is None or mask == [] or mask == {}:
        return 'empty'
    if isinstance(mask, list):
        if any(type(polygon) is not list for polygon in mask):
            return 'unknown'
        return 'polygons' if any(map(_is_polygon, mask)) else 'short'
    if not isinstance(mask, dict):
        return 'unknown'
    size, counts = mask.get('size'), mask.get('counts')
    if (not isinstance(size, list) or len(size) != 2
            or not isinstance(counts, (list, str))):
        return 'broken'
    if size != [height, width] and height == height:
        return 'other'
    if isinstance(counts, str):
        return 'coded'
    return 'runs' if _covers(counts, size) else 'broken'


def _is_polygon(points: list) -> bool:
    return len(points) >= 6 and not len(points) % 2


def _covers(counts: list, size: list) -> bool:
    """Whether the runs are as many pixels as the mask has."""
    try:
        runs = set(map(type, counts)) <= {int} and min(counts) >= 0
        return runs and sum(counts) == size[0] * size[1]
    except (TypeError, ValueError):
        return False


def _decode(counts: str) -> list[int]:
    """Runs of COCO's compressed form: six bits a character, of which five are
    digits; from the fourth run on each is the difference to the last but
    one."""
    runs, value, shift = [], 0, 0
    for code in counts.encode():
        code -= 48
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            if code & 16:
                value |= -1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs

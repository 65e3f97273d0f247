# Copyright (c) mmfishnet authors. All rights reserved.
"""The content of an annotation file in COCO's format, whatever it is.

Columns are NumPy arrays, so that COCO's 860,000 annotations take seconds.
"""
from __future__ import annotations

import math
import sys
from itertools import chain

import numpy as np

SLACK = 1.0  # pixels by which a box or polygon may pass the border


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
        names (list[str]): Of the categories, in the order of the file.
        categories_by_id (dict): Their names.
        row (dict): Image id to position in ``images``.
        image (np.ndarray): Position of each annotation's image, or -1.
        size (np.ndarray): Width and height of the images, (images, 2); nan
            where they are no numbers.
        boxes (np.ndarray): (annotations, 4); nan where they are no numbers.
        ends (np.ndarray): Their right and lower borders, (annotations, 2).
        limits (np.ndarray): Width and height of each annotation's image.
        finite, negative, tiny, outside, partly (np.ndarray): Annotations whose
            box is four finite numbers; has a negative side; one below a pixel;
            lies outside of the image; passes its border.
        fractions (bool): Whether all boxes look like shares of the image.
        kept (np.ndarray): What CocoDataset keeps, if all classes are chosen.
    """

    def __init__(self, path: str, content, panoptic: bool = False) -> None:
        self.path, self.content, self.panoptic = path, content, panoptic
        self.images, self.categories, self.annotations = (
            [r for r in _list(content.get(name)) if type(r) is dict]
            if isinstance(content, dict) else []
            for name in ('images', 'categories', 'annotations'))
        if panoptic:
            self.annotations = [
                dict(segment, image_id=annotation.get('image_id'))
                for annotation in self.annotations
                for segment in _list(annotation.get('segments_info'))
                if isinstance(segment, dict)
            ]
        self.names = [c['name'] for c in self.categories
                      if isinstance(c.get('name'), str)]
        self.categories_by_id = {
            c['id']: c.get('name') for c in self.categories
            if key(c.get('id')) is not None}
        self.row = {
            name: i for i, image in enumerate(self.images)
            if (name := key(image.get('id'))) is not None}
        self.image = np.array([
            self.row.get(key(v), -1) for v in self.column('image_id')], int)
        self.size = np.stack([
            numbers([image.get(side) for image in self.images])
            for side in ('width', 'height')], 1)
        self.limits = np.append(self.size, [[np.nan] * 2], 0)[self.image]
        boxes = [b if type(b) is list and len(b) == 4 else [math.nan] * 4
                 for b in self.column('bbox')]
        self.boxes = numbers(list(chain.from_iterable(boxes))).reshape(-1, 4)
        with np.errstate(invalid='ignore', over='ignore'):
            self.ends = self.boxes[:, :2] + self.boxes[:, 2:]
        self._look()

    def _look(self) -> None:
        """What is odd about the boxes."""
        starts, sides = self.boxes[:, :2], self.boxes[:, 2:]
        self.finite = finite = np.isfinite(self.boxes).all(1)
        self.negative = finite & (sides < 0).any(1)
        self.tiny = finite & ~self.negative & (sides < 1).any(1)
        self.fractions = bool(finite.any() and self.tiny[finite].all()
                              and (self.boxes[finite] <= 1).all())
        sound = finite & ~self.negative & ~self.tiny & (self.image >= 0)
        self.outside = sound & (
            np.minimum(self.ends, self.limits) <= np.maximum(starts, 0)).any(1)
        self.partly = sound & ~self.outside & (
            (starts < -SLACK) | (self.ends > self.limits + SLACK)).any(1)
        ignored = np.array([bool(v) for v in self.column('ignore')], bool)
        known = np.array([key(v) in self.categories_by_id
                          for v in self.column('category_id')], bool)
        self.kept = sound & ~self.outside & ~ignored & known & (
            numbers(self.column('area')) > 0)

    def column(self, name: str) -> list:
        """A value of each annotation; None where it is missing."""
        return [a.get(name) for a in self.annotations]


def numbers(values: list) -> np.ndarray:
    """Make an array of what should be numbers.

    Args:
        values (list): Values from a JSON.

    Returns:
        np.ndarray: float64; nan where a value is no number.
    """
    if not set(map(type, values)) <= {int, float}:
        values = [v if type(v) in (int, float) else math.nan for v in values]
    try:
        return np.array(values, dtype=np.float64)
    except OverflowError:  # an integer beyond 1e308
        return np.array([math.inf if abs(v) > sys.float_info.max else v
                         for v in values], dtype=np.float64)


def _list(value) -> list:
    return value if isinstance(value, list) else []


def key(value):
    """A value for a dict: ids that are lists or objects are none."""
    return value if isinstance(value, (int, float, str)) else None

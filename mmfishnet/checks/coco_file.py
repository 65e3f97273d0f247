# Copyright (c) mmfishnet authors. All rights reserved.
"""The content of an annotation file in COCO's format, whatever it is.

Columns are NumPy arrays, so that COCO's 860,000 annotations take seconds.
"""
from __future__ import annotations

import gc
import math
from functools import cached_property
from itertools import chain

import mmengine
import numpy as np

from ..words import first_few, short

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
            name: i
            for i, image in enumerate(self.images)
            if (name := key(image.get('id'))) is not None
        }
        self.image = np.array([
            self.row.get(key(a.get('image_id')), -1) for a in self.annotations
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
            for c in self.categories if key(c.get('id')) is not None
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
        known = np.array([key(v) in self.categories_by_id
                          for v in self.column('category_id')], bool)
        with np.errstate(invalid='ignore'):
            return (self._sound & ~self.outside & ~ignored & known
                    & (area > 0))

    def count(self, rows, of: str = 'annotations') -> str:
        """Say how many records, and which."""
        records = getattr(self, of)
        ids = [records[i].get('id') for i in _rows(rows)]
        return f'{len(ids)} of {len(records)} {of} (ids {first_few(ids)})'

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


def key(value):
    """A value for a dict: ids that are lists or objects are none."""
    return value if isinstance(value, (int, float, str)) else None


def _rows(rows) -> np.ndarray:
    rows = np.asarray(rows)
    return np.flatnonzero(rows) if rows.dtype == bool else rows

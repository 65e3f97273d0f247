# Copyright (c) mmfishnet authors. All rights reserved.
"""Detect in tiles of a picture that is larger than what was trained on.

Tiles overlap. What two of them found is one object where both say the same
of the strip that they share. The one that a tile holds in full is kept; of an
object that all tiles cut, the parts are put together, however far it reaches.
"""
from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask

from .inputs import as_loaded

FOR_DETECTORS = (
    'tiles are for detectors; a segmenter of MMSegmentation slides by itself, '
    "with test_cfg=dict(mode='slide', crop_size=(640, 640), stride=(480, "
    '480)) in its model.')
OVERLAP = 0.25  # of a tile's side
SAME = 0.5  # IoU in the shared strip, or share of a piece that is covered


def predict_tiles(run: Callable, data: dict, tile: int,
                  batch_size: int) -> InstanceData:
    """Detect in a picture tile by tile.

    Args:
        run (Callable): :meth:`mmfishnet.apis.Predictor.run`.
        data (dict): The loaded picture.
        tile (int): Side of a tile in pixels.
        batch_size (int): Tiles that go through the model at a time.

    Returns:
        InstanceData: ``bboxes``, ``labels``, ``scores`` and, if there are
        masks, ``masks`` as a list of COCO's RLE of the whole picture; the
        best ones first.

    Raises:
        ValueError: If the model is no detector.
    """
    height, width = data['img'].shape[:2]
    tiles = [(x, y, min(x + tile, width), min(y + tile, height))
             for y in _starts(height, tile) for x in _starts(width, tile)]
    crops = ({**data, **as_loaded(data['img'][y1:y2, x1:x2])}
             for x1, y1, x2, y2 in tiles)
    parts, places = [], iter(tiles)
    while batch := list(itertools.islice(crops, batch_size)):
        for found, *_ in run(batch):
            if found is None:
                raise ValueError(FOR_DETECTORS)
            x, y, *_ = next(places)
            found.bboxes = found.bboxes + [x, y, x, y]
            found.shapes = [_rle(mask, x, y, height, width)
                            for mask in found.masks] if 'masks' in found else (
                _boxes(found.bboxes, height, width))
            parts.append(found)
    owner = np.repeat(range(len(parts)), [len(part) for part in parts])
    found = _merged(InstanceData.cat(parts), owner, np.array(tiles))
    shapes = found.pop('shapes')
    if 'masks' in found:
        found.masks = shapes
    return found


def _starts(length: int, tile: int) -> list[int]:
    count = math.ceil(max(0, length - tile) / (tile * (1 - OVERLAP))) + 1
    return np.linspace(0, max(0, length - tile), count).astype(int).tolist()


def _boxes(boxes, height, width) -> list[dict]:
    boxes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
    return coco_mask.frPyObjects(boxes.astype(float), height, width)


def _rle(mask, x, y, height, width) -> dict:
    """COCO's RLE of a picture that holds a mask at x, y."""
    columns = np.flatnonzero(mask.any(0))
    first, last = (columns[0], columns[-1] + 1) if len(columns) else (0, 0)
    # It runs down the columns: those beside the object are two numbers.
    strip = np.zeros((last - first, height), np.uint8)
    strip[:, y:y + len(mask)] = mask[:, first:last].T
    ends = np.flatnonzero(np.diff(strip.ravel(), prepend=0, append=0))
    ends = (ends + (x + first) * height).tolist()
    counts = np.diff([0, *ends, height * width]).tolist()
    return coco_mask.frPyObjects(
        dict(size=[height, width], counts=counts), height, width)


def _merged(found, owner, tiles) -> InstanceData:
    """Objects of which several tiles found all or a part, each once."""
    cut = _at_inner_border(found.bboxes, owner, tiles)
    pairs = _same(found, owner, tiles)
    free, whole, rest = np.ones(len(found), bool), [], []
    for seed in np.argsort(-found.scores, kind='stable'):
        if not free[seed]:
            continue
        free[seed], members, ends = False, [seed], [seed]
        while ends:
            i, joined = ends.pop(), set()
            for j in sorted(pairs[i], key=lambda j: -found.scores[j]):
                # Of each tile the best goes on with it, the others go.
                if free[j] and owner[j] not in joined:
                    joined.add(owner[j])
                    members.append(j)
                    if cut[seed] and cut[j]:  # it may go further
                        ends.append(j)
                free[j] = False
        entire = [i for i in members if not cut[i]]
        rest.append(not entire)
        # What a tile has in full is not made larger by others.
        parts = found[np.array(entire[:1] or members)]
        whole.append(found[np.array([seed])])
        whole[-1].bboxes = np.concatenate([
            parts.bboxes[:, :2].min(0), parts.bboxes[:, 2:].max(0)])[None]
        whole[-1].shapes = [coco_mask.merge(parts.shapes)]
    if not whole:
        return found
    whole = InstanceData.cat(whole)
    # One by one: pycocotools' own counts up to 255 with numpy 2.
    areas = [coco_mask.area(shape) for shape in whole.shapes]
    # A rest at a tile's border of what another tile found in full.
    covered = coco_mask.iou(
        whole.shapes, whole.shapes, [True] * len(whole)) > SAME
    covered &= np.equal.outer(whole.labels, whole.labels)
    covered &= np.less.outer(areas, areas)
    return whole[~(covered.any(1) & np.array(rest))]


def _same(found, owner, tiles) -> list[list[int]]:
    """Which objects are the same as each one, in the strips of two tiles."""
    pairs = [[] for _ in owner]
    for a, b in itertools.combinations(range(len(tiles)), 2):
        low = np.maximum(tiles[a, :2], tiles[b, :2])
        high = np.minimum(tiles[a, 2:], tiles[b, 2:])
        here = (found.bboxes[:, :2] < high).all(1) & (
            found.bboxes[:, 2:] > low).all(1)
        ours, theirs = (np.flatnonzero(here & (owner == i)) for i in (a, b))
        if (low >= high).any() or not len(ours) or not len(theirs):
            continue
        strip = _boxes(np.array([[*low, *high]]), *found.shapes[0]['size'])
        inside = ([coco_mask.merge([found.shapes[i], *strip], intersect=True)
                   for i in side] for side in (ours, theirs))
        same = coco_mask.iou(*inside, [False] * len(theirs)) > SAME
        same &= np.equal.outer(found.labels[ours], found.labels[theirs])
        for i, j in zip(*np.nonzero(same)):
            pairs[ours[i]].append(theirs[j])
            pairs[theirs[j]].append(ours[i])
    return pairs


def _at_inner_border(boxes, owner, tiles) -> np.ndarray:
    """Whether boxes touch a border of their tile that is not the picture's."""
    low, high = tiles[:, :2].min(0), tiles[:, 2:].max(0)
    own = tiles[owner]
    return ((boxes[:, :2] < own[:, :2] + 2) & (own[:, :2] > low)).any(1) | (
        (boxes[:, 2:] > own[:, 2:] - 2) & (own[:, 2:] < high)).any(1)

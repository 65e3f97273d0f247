# Copyright (c) mmfishnet authors. All rights reserved.
"""Masks in COCO's format: polygons and run lengths."""
from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import numpy as np

from .coco_file import SLACK, CocoFile, numbers
from .problem import Problem, error, note, warning

# Compressed run lengths that are decoded; a million a minute is too slow.
DECODED = 2000
FORMS = ('It should be a list of polygons, [[x1, y1, x2, y2, x3, y3, ...], '
         "...], or run lengths, {'size': [height, width], 'counts': ...}")


def check_masks(coco: CocoFile, reader: str,
                scored: bool) -> Iterator[Problem]:
    """The ``segmentation`` of each annotation.

    Args:
        coco (CocoFile): File whose masks are needed.
        reader (str): Who needs them, for messages.
        scored (bool): Whether they are compared with predictions. What
            training leaves out is a mistake there.
    """
    masks = coco.column('segmentation')
    used = np.ones(len(masks), bool) if scored else coco.kept
    empty = [i for i, mask in enumerate(masks)
             if used[i] and not mask and mask not in (0, '')]
    if empty:
        yield error(
            coco.path, f'{coco.count(empty)} have no segmentation, or an '
            f'empty one, and {reader} needs it. Add the masks, remove these '
            'annotations, or do without masks')
    wrong = [
        i for i, mask in enumerate(masks)
        if used[i] and mask is not None and not isinstance(mask, (list, dict))
    ]
    if wrong:
        yield error(
            coco.path, f'{coco.count(wrong)} have a segmentation of an '
            'unknown form; the first is '
            f'{coco.example("segmentation", wrong)}. {FORMS}')
    masks = [mask if used[i] else None for i, mask in enumerate(masks)]
    yield from _check_polygons(coco, masks, scored)
    yield from _check_run_lengths(coco, masks)


def _check_polygons(coco: CocoFile, masks: list,
                    scored: bool) -> Iterator[Problem]:
    polygons, owners, short, partly, flat = [], [], [], [], []
    for i, mask in enumerate(masks):
        if type(mask) is not list or not mask:
            continue
        if any(type(p) is not list for p in mask):
            flat.append(i)
            continue
        good = [p for p in mask if len(p) >= 6 and not len(p) % 2]
        if len(good) < len(mask):
            (partly if good else short).append(i)
        polygons += good
        owners += [i] * len(good)
    if flat:
        yield error(
            coco.path, f'{coco.count(flat)} have numbers in the place of '
            f'polygons; the first is {coco.example("segmentation", flat)}. '
            f'{FORMS}')
    if short:
        yield (error if scored else warning)(
            coco.path, f'{coco.count(short)} have no polygon of at least 3 '
            'points, which is an even number of 6 coordinates or more; the '
            f'first is {coco.example("segmentation", short)}. Training leaves '
            "them out, and COCO's evaluation takes 4 numbers for a box. "
            f'{FORMS}')
    if partly:
        yield warning(
            coco.path, f'{coco.count(partly)} have a polygon of less than 3 '
            'points beside others; the first is '
            f'{coco.example("segmentation", partly)}. Training leaves these '
            "polygons out, and COCO's evaluation takes 4 numbers for a box")
    if polygons:
        yield from _check_places(coco, polygons, np.array(owners), scored)


def _check_places(coco: CocoFile, polygons: list, owners: np.ndarray,
                  scored: bool) -> Iterator[Problem]:
    """Where the polygons of annotations (``owners``) lie."""
    points = numbers(list(chain.from_iterable(polygons))).reshape(-1, 2)
    starts = np.cumsum([0] + [len(p) // 2 for p in polygons[:-1]])
    low = np.minimum.reduceat(points, starts)  # nan stays
    high = np.maximum.reduceat(points, starts)
    broken = ~(np.isfinite(low) & np.isfinite(high)).all(1)
    if broken.any():
        rows = np.unique(owners[broken])
        yield error(
            coco.path, f'{coco.count(rows)} have a polygon whose coordinates '
            'are not all finite numbers; the first is '
            f'{coco.example("segmentation", rows)}')
    limits = coco.limits[owners]
    with np.errstate(invalid='ignore', over='ignore'):
        outside = ((low >= limits) | (high <= 0)).any(1)
        partly = ((low < -SLACK) | (high > limits + SLACK)).any(1) & ~outside
    for rows, words, problem in (
        (outside, 'lies outside of', error if scored else warning),
        (partly, f'passes the border by more than {SLACK:g} pixel of',
         warning)):
        rows &= ~broken
        if rows.any():
            first = np.flatnonzero(rows)[0]
            width, height = limits[first]
            yield problem(
                coco.path, f'{coco.count(np.unique(owners[rows]))} have a '
                f'polygon that {words} the image; the first reaches from '
                f'{low[first].tolist()} to {high[first].tolist()} in an image '
                f'of {width:g}x{height:g} pixels. Masks and images should be '
                'of one size')
    # Extent of all polygons of an annotation, against its box.
    first = np.flatnonzero(np.diff(owners, prepend=-1))
    boxes = coco.boxes[owners[first]]
    low = np.minimum.reduceat(low, first)
    high = np.maximum.reduceat(high, first)
    with np.errstate(invalid='ignore', over='ignore'):
        common = np.minimum(high, boxes[:, :2] + boxes[:, 2:]) - np.maximum(
            low, boxes[:, :2])
        apart = (common < -SLACK).any(1)
    if apart.any():
        rows = owners[first][apart]
        yield warning(
            coco.path, f'{coco.count(rows)} have polygons that do not touch '
            f'their bbox; the first has bbox {coco.example("bbox", rows)} and '
            f'segmentation {coco.example("segmentation", rows)}. Both should '
            'be in pixels of the same image')


def _check_run_lengths(coco: CocoFile, masks: list) -> Iterator[Problem]:
    rows = [i for i, mask in enumerate(masks) if isinstance(mask, dict)]
    limits = coco.limits.tolist()
    other, broken, coded = [], [], []
    for i in rows:
        size, counts = masks[i].get('size'), masks[i].get('counts')
        width, height = limits[i]
        if (not isinstance(size, list) or len(size) != 2
                or not isinstance(counts, (list, str))):
            broken.append(i)
        elif size != [height, width] and height == height:
            other.append(i)
        elif isinstance(counts, str):
            coded.append(i)
        elif not _covers(counts, size):
            broken.append(i)
    step = max(1, -(-len(coded) // DECODED))
    decoded = coded[::step]
    broken += [i for i in decoded
               if not _covers(_decode(masks[i]['counts']), masks[i]['size'])]
    if len(decoded) < len(coded):
        yield note(
            coco.path, f'{len(decoded)} of {len(coded)} compressed masks were '
            'decoded; of the others only the size was looked at')
    if other:
        first = other[0]
        width, height = limits[first]
        yield error(
            coco.path, f'{coco.count(other)} have a mask of another size than '
            f'their image; the first says size={masks[first]["size"]} '
            f'[height, width], and its image has [{height:g}, {width:g}]. '
            'Masks and images should be of one size')
    if broken:
        yield error(
            coco.path, f'{coco.count(sorted(broken))} have run lengths that '
            'do not make up a mask of their size; the first is '
            f'{coco.example("segmentation", sorted(broken))}. {FORMS}')


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

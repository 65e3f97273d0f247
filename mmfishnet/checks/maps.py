# Copyright (c) mmfishnet authors. All rights reserved.
"""Label maps against their pictures, the classes and the model."""
from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..words import first_few, short
from .built import Data, is_known
from .files import Reading
from .model import class_count, loss_modules
from .problem import Problem, error, warning


def check_maps(data: Data, readings: list[Reading], head) -> Iterator[Problem]:
    """What the loading transforms made of the maps.

    Args:
        data (Data): Data set.
        readings (list[Reading]): Of its files.
        head (nn.Module, optional): Decode head that learns from them.
    """
    found = [r for r in readings if r.map_size is not None]
    if not found:
        return
    place = data.key
    own = data.altered
    resized = any('Resize' in type(t).__name__ for t in data.transforms)
    thick = [r for r in found if len(r.map_size) != 2]
    if thick:
        yield (warning if own else error)(
            place, f'{len(thick)} of {len(found)} label maps that were read '
            f'have {short(thick[0].map_size)} values in the place of (height, '
            f'width): {first_few(_paths(thick))}. A map has one channel, '
            'whose values are the numbers of the classes')
    other = [r for r in found if r not in thick and r.size
             and r.map_size != r.size[:2]]
    if other:
        first = other[0]
        # In training both may come to one size.
        certain = not own and not (data.trained and resized)
        yield (error if certain else warning)(
            place, f'{len(other)} of {len(found)} label maps that were read '
            f'have another size than their picture: {first_few(_paths(other))}'
            f'; the first has {first.map_size[1]}x{first.map_size[0]}, and '
            f'its picture {first.size[1]}x{first.size[0]} (width x height)')
    count = class_count(head)
    if thick or count is None:
        return
    losses = list(loss_modules(head))
    if getattr(head, 'out_channels', None) == 1 and losses and all(
            getattr(loss, 'use_sigmoid', True) for loss in losses):
        count = 2  # a sigmoid tells two apart, whatever num_classes says
    # What losses of one's own make of a number is not known.
    own = own or not all(is_known(type(loss)) for loss in losses)
    ignored = {getattr(head, 'ignore_index', 255),
               getattr(data.dataset, 'ignore_index', 255)}
    values = {id(r): set(r.values.tolist()) - ignored for r in found}
    high = {r.record['seg_map_path']: max(values[id(r)]) for r in found
            if values[id(r)] and max(values[id(r)]) >= count}
    if high:
        path, value = next(iter(high.items()))
        yield (warning if own else error)(
            place, f'{len(high)} of {len(found)} label maps that were read '
            'hold classes that the model does not know: '
            f'{first_few(high)}; the first goes up to {value} as it is '
            f'loaded, and the model has {count} classes, counted from 0 '
            f'({first_few(sorted(ignored))} is ignored)')
        return
    seen = set().union(*values.values())
    hidden = {v for r in found for v in r.values.tolist()} & ignored
    whole = len(found) == len(data.dataset)
    if len(seen) <= 1 and hidden and count > 1:
        words = f'{short(sorted(seen | hidden))} only, as they are loaded, ' \
                f'of which {first_few(sorted(hidden))} is ignored'
        yield (error if whole and not own else warning)(
            place, f'the {len(found)} label maps that were read hold {words}: '
            'there is nothing to tell apart, and mIoU would be 100. Classes '
            f'are counted from 0 to {count - 1}; a drawn mask of 0 and 255 '
            'has to become one of 0 and 1')
    elif whole and data.trained and data.names:
        missing = [n for i, n in enumerate(data.names) if i not in seen]
        if missing:
            yield warning(place, f'{len(missing)} of {len(data.names)} '
                          f'classes are in no map: {first_few(missing)}')


def _paths(readings: list[Reading]) -> list[str]:
    return [r.record['seg_map_path'] for r in readings]


def check_targets(data: Data, count: int | None) -> Iterator[Problem]:
    """Labels of a classification's pictures against the classes.

    Args:
        data (Data): Data set.
        count (int, optional): Classes of the model; None if unknown.
    """
    labels = [r.get('gt_label') for r in data.records]
    if not labels or not all(isinstance(v, (int, np.integer))
                             for v in labels):
        return
    high = sorted({int(v) for v in labels if count and not 0 <= v < count})
    if high:
        yield (error if data.known else warning)(
            data.ann_file or data.key, f'the labels {first_few(high)} are out '
            f'of range: the model has {count} classes, counted from 0')
    names = data.names
    if data.trained and names and not high and data.whole:
        seen = set(map(int, labels))
        empty = [n for i, n in enumerate(names) if i not in seen]
        if empty:
            yield warning(data.key, f'{len(empty)} of {len(names)} classes '
                          f'have no picture: {first_few(empty)}')

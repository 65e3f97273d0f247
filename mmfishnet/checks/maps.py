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

    def say(certain: bool, rows: list, what: str, more: str) -> Problem:
        paths = first_few(r.record['seg_map_path'] for r in rows)
        return (error if certain and not data.altered else warning)(
            data.key, f'{len(rows)} of {len(found)} label maps that were read '
            f'{what} ({paths}){more}')

    thick = [r for r in found if len(r.map_size) != 2]
    if thick:
        yield say(True, thick, f'have {short(thick[0].map_size)} values in '
                  'the place of (height, width)', '. A map has one channel, '
                  'whose values are the numbers of the classes')
    other = [r for r in found if len(r.map_size) == 2 and r.size
             and r.map_size != r.size[:2]]
    if other:
        sizes = [f'{size[1]}x{size[0]}'
                 for size in (other[0].map_size, other[0].size)]
        # In training both may come to one size.
        resized = any('Resize' in type(t).__name__ for t in data.transforms)
        yield say(not (data.trained and resized), other, 'have another size '
                  'than their picture', f'; the first has {sizes[0]}, and its'
                  f' picture {sizes[1]} (width x height)')
    if found and not thick and class_count(head) is not None:
        yield from _check_values(data, found, head, say)


def _check_values(data: Data, found: list[Reading], head,
                  say) -> Iterator[Problem]:
    """Numbers of classes in maps."""
    count, losses = class_count(head), list(loss_modules(head))
    if getattr(head, 'out_channels', None) == 1 and losses and all(
            getattr(loss, 'use_sigmoid', True) for loss in losses):
        count = 2  # a sigmoid tells two apart, whatever num_classes says
    # What losses of one's own make of a number is not known.
    known = all(is_known(type(loss)) for loss in losses)
    ignored = {getattr(head, 'ignore_index', 255),
               getattr(data.dataset, 'ignore_index', 255)}
    values = [set(r.values.tolist()) for r in found]
    high = [i for i, v in enumerate(values)
            if max(v - ignored, default=0) >= count]
    if high:
        yield say(known, [found[i] for i in high], 'hold classes that the '
                  'model does not know', '; the first goes up to '
                  f'{max(values[high[0]] - ignored)} as it is loaded, and the '
                  f'model has {count} classes, counted from 0 '
                  f'({first_few(sorted(ignored))} is ignored)')
        return
    every = set().union(*values)
    seen, hidden = every - ignored, every & ignored
    whole = len(found) == len(data.dataset)
    if len(seen) <= 1 and hidden and count > 1:
        yield say(whole and known, found, f'hold {short(sorted(every))} only, '
                  f'as they are loaded, of which {first_few(sorted(hidden))} '
                  'is ignored', ': there is nothing to tell apart, and mIoU '
                  'would be 100. Classes are counted from 0 to '
                  f'{count - 1}; a drawn mask of 0 and 255 has to become one '
                  'of 0 and 1')
    elif whole and data.trained and data.names:
        missing = [n for i, n in enumerate(data.names) if i not in seen]
        if missing:
            yield warning(data.key, f'{len(missing)} of {len(data.names)} '
                          f'classes are in no map: {first_few(missing)}')


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

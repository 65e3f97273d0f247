# Copyright (c) mmfishnet authors. All rights reserved.
"""Names and order of the classes: in the config, train, val and evaluator.

``CocoDataset`` numbers its labels in the order of the categories in the file,
among those that ``metainfo.classes`` names, and ``CocoMetric`` does so with
its own file. Nothing compares the three orders.
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from .coco import CocoFile
from .problem import Problem, error, near, short, some, warning
from .sources import Source


def check_names(source: Source) -> Iterator[Problem]:
    """``metainfo.classes`` alone."""
    key = f'{source.key}.metainfo.classes'
    for wrong in ('CLASSES', 'class_names', 'names'):
        if wrong in source.metainfo and 'classes' not in source.metainfo:
            yield error(
                f'{source.key}.metainfo', f'{wrong!r} has no effect; the key '
                "is 'classes'")
    if source.kind in ('coco', 'panoptic') and 'classes' in source.cfg:
        yield error(
            f'{source.key}.classes', f'{source.name} takes no such argument; '
            'set metainfo=dict(classes=...)')
    names = source.classes
    if isinstance(names, str):
        yield error(
            key, f'{names!r} is a string, not a tuple of names, and no file '
            f'of names; a tuple of one needs a comma: ({names!r},)')
    elif names is not None and source.good_classes is None:
        yield error(key, f'{short(names)} should be a tuple of names')
    names = source.good_classes or []
    doubled = [name for name, times in Counter(names).items() if times > 1]
    if doubled and source.kind in ('coco', 'panoptic'):
        yield error(key, f'{some(doubled)} given more than once')
    palette = source.metainfo.get('palette')
    if isinstance(palette, (list, tuple)) and len(palette) < len(names):
        yield error(
            f'{source.key}.metainfo.palette', f'it has {len(palette)} colours '
            f'for {len(names)} classes; give as many, or none')


def labels(names: Sequence[str], coco: CocoFile) -> list[str]:
    """The name that each label has: chosen categories in the file's order."""
    return [name for name in coco.names if name in set(names)]


def check_known(source: Source, coco: CocoFile) -> Iterator[Problem]:
    """``metainfo.classes`` against the categories of the file."""
    names = source.good_classes
    if names is None or not coco.categories:
        return
    key = f'{source.key}.metainfo.classes'
    if 'classes' not in source.metainfo:
        key += f' (by default those of {source.name})'
    unknown = [name for name in names if name not in set(coco.names)]
    if unknown:
        near_ones = [f'{name!r}{near(name, coco.names)}' for name in unknown]
        more = len(unknown) - 5
        yield error(
            key, f'{len(unknown)} of {len(names)} names are no categories of '
            f'{coco.path}: {", ".join(near_ones[:5])}'
            f'{f" and {more} more" if more > 0 else ""}. The file has '
            f'{_all(coco.names)}. They are left out without a word, and each '
            'later class gets the label of its neighbour')
        return
    order = labels(names, coco)
    if len(order) == len(names) and order != names:
        i = next(i for i, (a, b) in enumerate(zip(order, names)) if a != b)
        yield error(
            key, f'the names are in another order than in {coco.path}, and '
            f'labels are counted in the order of the file: label {i} would '
            f'mean {order[i]!r} and be called {names[i]!r}. Write them as '
            f'{_all(order)}')


def check_order(sources: Sequence[Source],
                files: Mapping[str, CocoFile]) -> Iterator[Problem]:
    """Labels of one data set against those of the next, and its evaluator.

    Args:
        sources (Sequence[Source]): Data sets of the config.
        files (Mapping[str, CocoFile]): What their annotation files hold.
    """
    known = []
    for source in sources:
        names = source.good_classes
        paths = [source.ann_file] if source.kind in ('coco',
                                                     'panoptic') else []
        paths += [m.get('ann_file') for m in source.metrics]
        for path in dict.fromkeys(paths):
            coco = files.get(path)
            if names is None or coco is None or not coco.categories:
                continue
            order = labels(names, coco)
            if (path, order) not in known:
                known.append((path, order))
    for (first, order), (path, other) in zip(known, known[1:]):
        if order == other:
            continue
        i = next((i for i, (a, b) in enumerate(zip(order, other)) if a != b),
                 min(len(order), len(other)))
        meanings = [short(o[i]) if i < len(o) else 'nothing'
                    for o in (order, other)]
        yield error(
            path, f'label {i} means {meanings[1]} here and {meanings[0]} in '
            f'{first}, so what is learnt is not what is evaluated. Give both '
            'files the same categories in the same order, and both data sets '
            'the same metainfo.classes; '
            f'here: {_all(other)}; there: {_all(order)}')


def check_empty_classes(source: Source,
                        coco: CocoFile) -> Iterator[Problem]:
    """Classes of the training set that have no object."""
    names = source.good_classes
    if not source.trained or not names or not coco.annotations:
        return
    ids = {}
    for category in coco.categories:
        if isinstance(category.get('id'), (int, float, str)):
            ids[category['id']] = category.get('name')
    kinds = Counter(k for k in coco.column('category_id')
                    if isinstance(k, (int, float, str)))
    seen = {ids.get(kind) for kind in kinds
            if isinstance(ids.get(kind), str)}
    empty = [name for name in labels(names, coco) if name not in seen]
    if empty:
        yield warning(
            coco.path, f'{len(empty)} of {len(names)} classes have no '
            f'annotation to learn from: {some(empty)}')


def _all(names: Sequence[str], limit: int = 12) -> str:
    text = ', '.join(map(short, names[:limit]))
    more = len(names) - limit
    return f'({text}, and {more} more)' if more > 0 else f'({text})'

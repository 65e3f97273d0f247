# Copyright (c) mmfishnet authors. All rights reserved.
"""What each label means: in the config, in files, in train and val.

``CocoDataset`` numbers its labels in the order of the categories in the file,
among those that ``metainfo.classes`` names, and ``CocoMetric`` does so with
its own file. Nothing compares these orders.
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from ..words import first_few, near, short
from .built import Data
from .coco_file import CocoFile
from .problem import Problem, error, warning

SHOWN = 12


def check_names(data: Data) -> Iterator[Problem]:
    """``metainfo.classes`` alone."""
    key, meta = f'{data.key}.metainfo', data.meta
    for wrong in ('CLASSES', 'class_names', 'names'):
        if wrong in meta and data.known:
            yield warning(key, f"{wrong!r} has no effect; the key is "
                          "'classes'")
    names = meta.get('classes')
    coco = data.kind in ('coco', 'panoptic')
    if isinstance(names, str):
        yield (error if data.known else warning)(
            f'{key}.classes', f'{names!r} is a string, not a tuple of names, '
            f'and no file of names; a tuple of one needs a comma: ({names!r},)'
        )
    elif names is not None and coco and data.names is None:
        yield error(f'{key}.classes',
                    f'{short(names)} should be a tuple of names')
    names = data.names or []
    doubled = [name for name, times in Counter(names).items() if times > 1]
    if doubled and coco:
        yield error(f'{key}.classes',
                    f'{first_few(doubled)} given more than once')
    palette = meta.get('palette')
    if isinstance(palette, (list, tuple)) and 0 < len(palette) < len(names):
        yield warning(
            f'{key}.palette', f'it has {len(palette)} colours for '
            f'{len(names)} classes, too few to draw them; give as many, or '
            'none')


def labels_of(names: Sequence[str], coco: CocoFile) -> list[str]:
    """The name that each label has: chosen categories in the file's order."""
    return [name for name in coco.names if name in set(names)]


def check_known(data: Data, coco: CocoFile,
                evaluated: bool) -> Iterator[Problem]:
    """``metainfo.classes`` against the categories of the file."""
    names = data.names
    if names is None or not coco.categories:
        return
    key = f'{data.key}.metainfo.classes'
    if names == list(type(data.dataset).METAINFO.get('classes') or ()):
        key += f' (by default those of {data.name})'
    unknown = [name for name in names if name not in set(coco.names)]
    known = [name for name in names if name in set(coco.names)]
    order = labels_of(names, coco)
    if unknown:
        nearest = [f'{name!r}{near(name, coco.names)}' for name in unknown]
        more = len(unknown) - 5
        # At the end they leave the others as they are.
        moved = names[:len(known)] != known or not known
        yield (error if moved or evaluated else warning)(
            key, f'{len(unknown)} of {len(names)} names are no categories of '
            f'{coco.path}: {", ".join(nearest[:5])}'
            f'{f" and {more} more" if more > 0 else ""}. The file has '
            f'{_all(coco.names)}. They are left out without a word, and each '
            'later class gets the label of its neighbour')
    elif len(order) == len(names) and order != names:
        i = next(i for i, (a, b) in enumerate(zip(order, names)) if a != b)
        yield error(
            key, f'the names are in another order than in {coco.path}, and '
            f'labels are counted in the order of the file: label {i} would '
            f'mean {order[i]!r} and be called {names[i]!r}. Write them as '
            f'{_all(order)}')
    if data.trained and coco.annotations and not unknown:
        ids = coco.categories_by_id
        seen = {ids.get(v) for v in coco.column('category_id')
                if isinstance(v, (int, float, str))}
        empty = [name for name in order if name not in seen]
        if empty:
            yield warning(
                coco.path, f'{len(empty)} of {len(names)} classes have no '
                f'annotation to learn from: {first_few(empty)}')


def check_order(meanings: Sequence[tuple]) -> Iterator[Problem]:
    """Labels of the first file or data set against those of the others.

    Args:
        meanings (Sequence[tuple]): Place, names by label, and whether a
            permutation is certain to be wrong.
    """
    for place, names, certain in meanings[1:]:
        first, wanted, sure = meanings[0]
        if names == wanted or not names or not wanted:
            continue
        moved = [n for n in names if n in wanted
                 and wanted.index(n) != names.index(n)]
        i = next((i for i, (a, b) in enumerate(zip(wanted, names)) if a != b),
                 min(len(wanted), len(names)))
        said = [short(o[i]) if i < len(o) else 'nothing'
                for o in (wanted, names)]
        # A subset that goes on in the same order knows fewer labels.
        wrong = moved and certain and sure
        yield (error if wrong else warning)(
            place, f'label {i} means {said[1]} here and {said[0]} in '
            f'{first}' + (', so what is learnt is not what is evaluated. Give '
                          'both the same categories in the same order, and '
                          'the same metainfo.classes' if wrong else '') +
            f'; here: {_all(names)}; there: {_all(wanted)}')


def _all(names: Sequence[str]) -> str:
    text = ', '.join(map(short, names[:SHOWN]))
    more = len(names) - SHOWN
    return f'({text}, and {more} more)' if more > 0 else f'({text})'

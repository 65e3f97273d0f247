# Copyright (c) mmfishnet authors. All rights reserved.
"""MMPretrain's folders of classes, and MMSegmentation's maps."""
from __future__ import annotations

import os
import os.path as osp
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from .images import check_images
from .problem import Problem, error, near, note, some
from .sources import Source, is_remote

MAPS = 50  # segmentation maps whose values are read
IGNORED = 255


def check_folders(sources: Sequence[Source]) -> Iterator[Problem]:
    """Data sets of MMPretrain that ``CustomDataset`` reads."""
    found = {}
    for source in sources:
        if source.kind != 'folders':
            continue
        root = source.prefix('img_path') or source.get('data_root') or ''
        root = osp.expanduser(root)
        if is_remote(root) or is_remote(source.ann_file or ''):
            yield note(source.key, f'{root} was not looked at: it is not on '
                       'a disk of this machine')
        elif not osp.isdir(root):
            yield error(
                source.key, f'the folder {root!r} is not there (looked for '
                f'{osp.abspath(root)}). Set data_root or data_prefix, or '
                '--data-root')
        elif source.ann_file or _split_file(source):
            yield from _check_list(source, root)
        elif source.get('with_label', True):
            names = sorted(e.name for e in os.scandir(root) if e.is_dir())
            yield from _check_classes(source, root, names)
            found[source] = root, names
    for (first, (root, names)), (second, (other_root, others)) in zip(
            list(found.items()), list(found.items())[1:]):
        if names != others:
            missing, more = (some(sorted(a)) or 'none' for a in (
                set(names) - set(others), set(others) - set(names)))
            yield error(
                second.key, f'the folders in {other_root} are not those in '
                f'{root} ({first.key}): missing {missing}, more {more}. '
                'Classes are counted in the order of the folders, so they '
                'would be taken for one another')


def _split_file(source: Source) -> str | None:
    """The list that ImageNet finds by itself."""
    split = source.get('split')
    path = split and source.join(f'meta/{split}.txt')
    return path if path and osp.isfile(path) else None


def _check_classes(source: Source, root: str,
                   names: list[str]) -> Iterator[Problem]:
    if not names:
        yield error(source.key, f'{root} holds no folders; there should be '
                    'one for each class, with its images')
        return
    classes = source.good_classes
    if classes is not None and len(classes) != len(names):
        yield error(
            source.key, f'{root} holds {len(names)} folders ({some(names)}), '
            f'and metainfo.classes has {len(classes)} names')
    elif classes is not None and classes != names:
        unknown = [n for n in classes if n not in names]
        if not unknown:
            yield error(
                f'{source.key}.metainfo.classes', 'it names the folders of '
                f'{root} in another order than theirs, by which labels are '
                f'counted: {names}')
        elif len(unknown) < len(classes):
            yield error(
                f'{source.key}.metainfo.classes', 'these are no folders of '
                f'{root}: ' + ', '.join(
                    f'{n!r}{near(n, names)}' for n in unknown[:5]))
    extensions = tuple(source.get('extensions') or ('', ))
    paths, empty = [], []
    for name in names:
        files = [
            osp.join(folder, file)
            for folder, _, files in os.walk(osp.join(root, name))
            for file in files if file.lower().endswith(extensions)
        ]
        paths += sorted(files)
        if not files:
            empty.append(name)
    if empty:
        yield error(
            root, f'{len(empty)} of {len(names)} folders hold no image '
            f'({", ".join(extensions)}): {some(empty)}')
    yield from check_images(paths, place=root)


def _check_list(source: Source, root: str) -> Iterator[Problem]:
    path = _split_file(source) or source.ann_file
    try:
        with open(path, encoding='utf-8') as file:
            lines = [line.strip() for line in file.read().splitlines()]
    except OSError as fault:
        yield error(path, f'the list of {source.key} cannot be read: '
                    f'{fault.strerror}')
        return
    except UnicodeDecodeError as fault:
        yield error(path, f'it is no text: {fault}')
        return
    labelled = source.get('with_label', True)
    rows = [line.rsplit(' ', 1) if labelled else [line] for line in lines]
    if not rows:
        yield error(path, 'it is empty; it should have a line for each image')
    if labelled:
        wrong = [i + 1 for i, row in enumerate(rows)
                 if len(row) < 2 or not row[1].isdecimal()]
        if wrong:
            yield error(
                path, f'{len(wrong)} of {len(rows)} lines ({some(wrong)}) are '
                f'not "FILE LABEL"; the first is {lines[wrong[0] - 1]!r}')
        rows = [row for row in rows if len(row) == 2 and row[1].isdecimal()]
        classes = source.good_classes
        wrong = sorted({int(row[1]) for row in rows
                        if classes and int(row[1]) >= len(classes)})
        if wrong:
            yield error(
                path, f'the labels {some(wrong)} are out of range: there are '
                f'{len(classes)} classes, counted from 0')
    yield from check_images([osp.join(root, row[0]) for row in rows],
                            place=path)


def list_classes(source: Source) -> list[str] | None:
    """Names of a data set's classes, by its folders where these say them."""
    if source.good_classes or source.kind != 'folders' or source.ann_file:
        return source.good_classes
    root = osp.expanduser(source.prefix('img_path') or '')
    if not osp.isdir(root):
        return None
    return sorted(e.name for e in os.scandir(root) if e.is_dir()) or None


def check_maps(sources: Sequence[Source], count: int | None
               ) -> Iterator[Problem]:
    """Data sets of MMSegmentation.

    Args:
        sources (Sequence[Source]): Data sets of the config.
        count (int, optional): Classes of the model; None if unknown.
    """
    for source in sources:
        if source.kind != 'maps':
            continue
        folders = [source.prefix(n) for n in ('img_path', 'seg_map_path')]
        if any(is_remote(f) for f in folders if f):
            yield note(source.key, 'its files were not looked at: they are '
                       'not on a disk of this machine')
            continue
        missing = [f for f in folders if f and not osp.isdir(f)]
        for folder in missing:
            yield error(
                source.key, f'the folder {folder!r} is not there (looked for '
                f'{osp.abspath(folder)}). Set data_root or data_prefix, or '
                '--data-root')
        if missing or not folders[0]:
            continue
        yield from _check_maps(source, *folders, count)


def _check_maps(source: Source, root: str, maps: str | None,
                count: int | None) -> Iterator[Problem]:
    suffix = source.get('img_suffix', '.jpg')
    map_suffix = source.get('seg_map_suffix', '.png')
    if source.ann_file and osp.isfile(source.ann_file):
        with open(source.ann_file, errors='replace') as file:
            stems = [line.strip() for line in file if line.strip()]
    else:
        stems = sorted(
            osp.relpath(osp.join(folder, name), root)[:-len(suffix)]
            for folder, _, names in os.walk(root) for name in names
            if name.endswith(suffix))
    if not stems:
        yield error(source.key, f'{root} holds no *{suffix}')
        return
    yield from check_images([osp.join(root, s + suffix) for s in stems],
                            place=source.key)
    if not maps:
        return
    paths = [osp.join(maps, s + map_suffix) for s in stems]
    yield from check_images(paths, rotates=False, place=source.key)
    paths = [p for p in paths if osp.isfile(p)]
    paths = paths[::max(1, -(-len(paths) // MAPS))]
    if not paths or not count:
        return
    high = {}
    shift = bool(source.get('reduce_zero_label', False))
    for path in paths:
        try:
            values = np.unique(np.asarray(Image.open(path)))
        except Exception:  # check_images has said so
            continue
        values = values[values != IGNORED].astype(int) - shift
        if values.size and values.max() >= count:
            high[path] = int(values.max())
    if high:
        path, value = next(iter(high.items()))
        yield error(
            source.key, f'{len(high)} of {len(paths)} maps that were read '
            f'hold classes that the model does not know: {some(high)}; the '
            f'first goes up to {value}'
            f'{" after reduce_zero_label" if shift else ""}, and the model '
            f'has {count} classes, counted from 0 ({IGNORED} is ignored)')
    yield note(source.key, f'{len(paths)} of {len(stems)} maps were read, '
               'evenly spread')

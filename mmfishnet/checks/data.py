# Copyright (c) mmfishnet authors. All rights reserved.
"""Data sets in COCO's format, with their filters and their evaluators."""
from __future__ import annotations

import os.path as osp
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from . import classes, coco, images, masks
from .coco import CocoFile
from .problem import Problem, error, note, short, warning
from .sources import Source, is_remote, load_json, metric_names, type_name

COCO_METRICS = {'CocoMetric', 'CocoPanopticMetric'}


def check_coco(sources: Sequence[Source], scope: str | None,
               files: dict) -> Iterator[Problem]:
    """Check all data sets in COCO's format, each file once.

    Args:
        sources (Sequence[Source]): Data sets of the config.
        scope (str, optional): ``default_scope`` of the config.
        files (dict[str, CocoFile | None]): Takes up the files by their paths;
            None for one that could not be read.
    """
    sources = [s for s in sources if s.kind in ('coco', 'panoptic')]
    readers: dict[str, list] = {}  # path: (source, whether to evaluate)
    for source in sources:
        if not source.ann_file:
            yield error(f'{source.key}.ann_file', 'it is not set; it should '
                        "be an annotation file in COCO's format")
            continue
        readers.setdefault(source.ann_file, []).append((source, False))
        for metric in coco_metrics(source, scope):
            path = metric.get('ann_file') or source.ann_file
            if isinstance(path, str) and not metric.get('format_only'):
                readers.setdefault(path, []).append((source, True))
    for path, users in readers.items():
        panoptic = any(source.kind == 'panoptic' for source, _ in users)
        files[path], problem = read(path, users[0][0].key, panoptic)
        if problem:
            yield problem
    for path, users in readers.items():
        if files[path] is not None:
            yield from check_file(files[path], users)
    for source in sources:
        file = files.get(source.ann_file)
        if file is None:
            continue
        yield from classes.check_known(source, file)
        yield from classes.check_empty_classes(source, file)
        yield from check_left(source, file)
        yield from check_files_of(source, file)
        yield from check_evaluator(source, files, scope)
    yield from classes.check_order(sources, files)


def coco_metrics(source: Source, scope: str | None) -> list[dict]:
    """The metrics of a data set that read COCO's format."""
    return [
        metric for metric in source.metrics
        if COCO_METRICS & set(metric_names(metric, scope))
    ]


def read(path: str, key: str,
         panoptic: bool) -> tuple[CocoFile | None, Problem | None]:
    """Read an annotation file, or say why not."""
    if is_remote(path):
        return None, note(key, f'{path} was not looked at: it is not on a '
                          'disk of this machine')
    if not osp.exists(path):
        return None, error(
            path, f'the annotation file of {key} is not there (looked for '
            f'{osp.abspath(path)}). Set data_root or ann_file, or '
            '--data-root')
    try:
        return CocoFile(path, load_json(path), panoptic), None
    except OSError as fault:
        return None, error(path, f'it cannot be read: {fault.strerror}')
    except (ValueError, RecursionError) as fault:
        words = 'it is empty' if not osp.getsize(path) else \
            f'it is no JSON, or cut off: {fault}'
        return None, error(path, words)


def check_file(file: CocoFile, users: Sequence) -> Iterator[Problem]:
    """All checks of one annotation file.

    Args:
        file (CocoFile): Its content.
        users (Sequence[tuple[Source, bool]]): Data sets that read it, and
            whether their evaluator does.
    """
    evaluated = any(by_metric for _, by_metric in users)
    yield from coco.check_structure(file, evaluated)
    yield from coco.check_images(file)
    yield from coco.check_categories(file)
    yield from coco.check_references(file, evaluated)
    yield from coco.check_boxes(file)
    yield from coco.check_keys(file, evaluated)
    trained = [s for s, by_metric in users
               if not by_metric and s.loads_masks and s.trained]
    scored = [s for s, by_metric in users if by_metric and any(
        'segm' in _kinds(metric) for metric in s.metrics)]
    if file.panoptic or not (trained or scored):
        return
    yield from masks.check_masks(
        file, f'{trained[0].key} (with_mask=True)' if trained else
        f'{scored[0].part}_evaluator (metric segm)')


def _kinds(metric: dict) -> list:
    kinds = metric.get('metric', 'bbox')
    return list(kinds) if isinstance(kinds, (list, tuple)) else [kinds]


class Left(NamedTuple):
    """What CocoDataset's filter leaves; all are masks but ``least``.

    ``chosen`` are the annotations of the classes, ``small`` the images below
    ``filter_cfg.min_size`` (``least``), ``bare`` those without annotation.
    """

    chosen: np.ndarray
    small: np.ndarray
    bare: np.ndarray
    least: float

    @property
    def images(self) -> int:
        return int((~(self.small | self.bare)).sum())


def left(source: Source, file: CocoFile) -> Left:
    """Count as CocoDataset does what a training set is left with.

    Args:
        source (Source): Data set.
        file (CocoFile): Its annotations.
    """
    names = source.good_classes
    ids = {
        c['id'] for c in file.categories
        if isinstance(c.get('id'), (int, float, str))
        and isinstance(c.get('name'), str)
        and (names is None or c['name'] in names)
    }
    chosen = np.array([
        isinstance(kind, (int, float, str)) and kind in ids
        for kind in file.column('category_id')
    ], bool) & (file.image >= 0)
    filters = source.get('filter_cfg')
    if not isinstance(filters, dict) or source.get('test_mode'):
        filters = {}
    least = filters.get('min_size', 0)
    if not isinstance(least, (int, float)):
        least = 0
    small = file.size.min(1) < least
    bare = np.zeros(len(file.images), bool)
    if filters.get('filter_empty_gt'):
        bare[:] = True
        bare[file.image[chosen]] = False
    return Left(chosen, small, bare, least)


def count_images(source: Source, files: Mapping) -> int | None:
    """Images that a data set in COCO's format has; None if unknown."""
    file = files.get(source.ann_file)
    if source.kind != 'coco' or file is None or source.get(
            'indices') is not None:
        return None
    return left(source, file).images


def check_left(source: Source, file: CocoFile) -> Iterator[Problem]:
    """Images and annotations that a training set is left with."""
    total = len(file.images)
    if not source.trained or not total:
        return
    rest = left(source, file)
    names = short(source.good_classes)
    with np.errstate(invalid='ignore'):
        usable = rest.chosen & (file.boxes[:, 2:] >= 1).all(1)
    if not usable.any():
        yield error(
            source.key, f'{file.path} has no annotation to learn from: of '
            f'{len(file.annotations)}, {int(rest.chosen.sum())} are of the '
            f'classes {names} and of an image of the file, and none of these '
            'has a box of a pixel or more')
    words = (f'of {total} images in {file.path}, {int(rest.small.sum())} are '
             f'narrower or lower than filter_cfg.min_size={rest.least}, and '
             f'{int(rest.bare.sum())} have no annotation of the classes '
             f'{names} (filter_cfg.filter_empty_gt): {rest.images} are left')
    if not rest.images:
        yield error(
            source.key, f'{words}. Lower min_size, or correct the classes or '
            'the file')
    elif rest.images < total / 2:
        yield warning(source.key, words)


def check_files_of(source: Source, file: CocoFile) -> Iterator[Problem]:
    """The images of a data set."""
    prefix = source.prefix('img')
    if prefix is None:
        yield error(
            f'{source.key}.data_prefix', f"{source.name} needs the key 'img',"
            f' the folder of the images; it has {source.get("data_prefix")}')
        return
    if is_remote(prefix) or source.cfg.get('backend_args'):
        yield note(source.key, f'the images in {prefix} were not looked at: '
                   'they come through a storage backend')
        return
    rows = [i for i, image in enumerate(file.images)
            if isinstance(image.get('file_name'), str) and image['file_name']]
    loaders = [t for t in source.transforms
               if type_name(t) == 'LoadImageFromFile']
    color = loaders[0].get('color_type', 'color') if loaders else 'color'
    backend = loaders[0].get('imdecode_backend', 'cv2') if loaders else 'cv2'
    yield from images.check_images(
        [osp.join(prefix, file.images[i]['file_name']) for i in rows],
        list(map(tuple, file.size[rows].tolist())),
        color in ('color', 'grayscale') and backend in ('cv2', 'pillow'),
        file.path)
    maps = source.prefix('seg')
    if source.kind == 'panoptic' and maps is not None:
        yield from images.check_images(
            [osp.join(maps, file.images[i]['file_name'].replace(
                '.jpg', '.png')) for i in rows],
            list(map(tuple, file.size[rows].tolist())), False, file.path)


def check_evaluator(source: Source, files: Mapping,
                    scope: str | None) -> Iterator[Problem]:
    """The file of an evaluator against that of its data set."""
    for metric in coco_metrics(source, scope):
        path = metric.get('ann_file')
        if not isinstance(path, str) or metric.get('format_only'):
            continue
        key = f'{source.part}_evaluator.ann_file'
        own, other = files.get(source.ann_file), files.get(path)
        if source.get('indices') is not None:
            yield warning(
                key, f'{source.key} takes some images only (indices='
                f'{source.get("indices")}), and {path} is evaluated as a '
                'whole: the others count as missed')
        if own is None or other is None or own is other or osp.realpath(
                path) == osp.realpath(source.ann_file):
            continue
        mine, theirs = set(own.row), set(other.row)
        if mine == theirs and own.content == other.content:
            continue
        yield error(
            key, f'it reads {path} with {len(theirs)} images, and {source.key}'
            f' reads {source.ann_file} with {len(mine)}: '
            f'{len(theirs - mine)} images would count as missed and '
            f'{len(mine - theirs)} have no annotations in the evaluation' +
            ('' if mine != theirs else '; the image ids are the same, the '
             'contents are not') + '. Both should read the same file')

# Copyright (c) mmfishnet authors. All rights reserved.
"""Picture files and label maps, as the data set's own transforms read them."""
from __future__ import annotations

import os
import os.path as osp
import warnings
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter

import cv2
import numpy as np
from PIL import Image

from ..words import counted, first_few
from .built import Data, is_local
from .problem import Problem, error, note, warning

# Files that are read, as many as these seconds are enough for.
READ, SECONDS, AT_ONCE = 1000, 10, 64
THREADS = 8  # disks of a network answer late, but many at a time
SUFFIXES = ('.tif', '.tiff', '.png')  # formats that hold more than 8 bits
ENDS = {b'\xff\xd8': b'\xff\xd9', b'\x89P': b'IEND'}  # JPEG and PNG


@dataclass
class Reading:
    """What the loading transforms made of one record; None if unknown.

    Attributes:
        record (dict): What the data set lists.
        path (str): Picture, or map if that is what could not be read.
        fault (str, optional): Why it could not be read.
        size, map_size (tuple, optional): Height and width, and further axes.
        values (np.ndarray, optional): Those of the map.
        odd (str, optional): What a file holds that is not read.
    """

    record: dict
    path: str
    fault: str | None = None
    size: tuple | None = None
    map_size: tuple | None = None
    values: np.ndarray | None = None
    odd: tuple | None = None


def read_files(data: Data) -> tuple[list[Reading], list[Problem]]:
    """Look for the files of a data set, and read some of them.

    All are looked for, in listings of their folders, and it is asked whether
    they are empty; of ``READ``, evenly spread, or as many as ``SECONDS``
    suffice for, the loading transforms are run.
    """
    records = [r for r in data.records if isinstance(r.get('img_path'), str)]
    backend = getattr(data.loaders[0], 'backend_args', None) \
        if data.loaders else None
    if not records:
        return [], []
    if not data.loaders:
        return [], [note(data.key, 'its pictures were not looked at: they are '
                         'loaded by a transform that is not known here')]
    if not is_local(records[0]['img_path'], backend):
        return [], [note(data.key, 'its pictures were not looked at: they '
                         'come through a storage backend')]
    problems = list(_look_for(data, records, 'img_path', 'image files'))
    if any(hasattr(t, 'with_seg') and t.with_seg for t in data.loaders):
        problems += _look_for(data, records, 'seg_map_path', 'label maps')
    lost = set()
    for problem in problems:
        lost |= problem.lost
    problems = [p.problem for p in problems]
    there = [r for r in records if r['img_path'] not in lost
             and r.get('seg_map_path') not in lost]
    # Evenly spread, and so are any first few of them.
    chosen = [there[i] for i in sorted(
        range(0, len(there), max(1, -(-len(there) // READ))),
        key=lambda i: f'{i:024b}'[::-1])]
    readings, start = [], perf_counter()
    with ThreadPoolExecutor(THREADS) as pool, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for i in range(0, len(chosen), AT_ONCE):
            readings += pool.map(lambda r: _read(data, r),
                                 chosen[i:i + AT_ONCE])
            if perf_counter() - start > SECONDS:
                break
    few = ', evenly spread' if len(readings) < len(there) else ''
    problems.append(note(
        data.key, f'{counted(len(records), "image file")} looked for, and '
        f'{len(readings)}{few}, read by '
        f'{", ".join(type(t).__name__ for t in data.loaders)}'))
    return readings, problems


@dataclass
class _Lost:
    problem: Problem
    lost: set


def _look_for(data: Data, records: list, key: str,
              what: str) -> Iterator[_Lost]:
    paths = [r[key] for r in records if isinstance(r.get(key), str)]
    listings = {}
    for folder in {osp.dirname(path) for path in paths}:
        try:
            with os.scandir(folder or '.') as entries:
                listings[folder] = {entry.name for entry in entries}
        except (OSError, ValueError):  # a null character
            listings[folder] = None
    for folder in sorted(f for f, names in listings.items() if names is None):
        gone = {path for path in paths if osp.dirname(path) == folder}
        yield _Lost(error(
            data.key, f'the folder {folder!r} of {counted(len(gone), "file")} '
            f'of its {what} is not there (looked for {osp.abspath(folder)}). '
            'Set data_root or data_prefix of the data set, or --data-root'),
            gone)
    listed = [p for p in paths if listings[osp.dirname(p)] is not None]
    gone = [p for p in listed
            if osp.basename(p) not in listings[osp.dirname(p)]]
    if gone:
        folder, name = osp.split(gone[0])
        stem = osp.splitext(name)[0].casefold()
        others = sorted(n for n in listings[folder]
                        if osp.splitext(n)[0].casefold() == stem)
        hint = f' (did you mean {others[0]!r}?)' if others else ''
        if '\\' in name:
            hint = ' (a file_name is written with / between folders)'
        yield _Lost(error(
            data.ann_file or data.key, f'{len(gone)} of {len(paths)} {what} '
            f'are not there: {first_few(gone)}{hint}'), set(gone))
    with ThreadPoolExecutor(THREADS) as pool:
        there = sorted(set(listed) - set(gone))
        lengths = pool.map(_length, there, chunksize=1000)
        empty = [p for p, length in zip(there, lengths) if length == 0]
    if empty:
        yield _Lost(error(
            data.ann_file or data.key, f'{len(empty)} of {len(paths)} {what} '
            f'are empty (0 bytes): {first_few(empty)}'), set(empty))


def _length(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):
        return None


def _read(data: Data, record: dict) -> Reading:
    """Run the loading transforms on a record."""
    reading = Reading(record, record['img_path'])
    results = data.dataset.get_data_info(record['index'])
    for transform in data.loaders:
        try:
            results = transform(results)
        except Exception as fault:
            if 'img' in results:
                if not isinstance(record.get('seg_map_path'), str):
                    return reading  # of the annotations, or an own format
                reading.path = record['seg_map_path']
            reading.fault = _reason(reading.path, fault)
            return reading
        if results is None:
            reading.fault = 'are no pictures, or damaged'
            return reading
    picture, labels = results.get('img'), results.get('gt_seg_map')
    if isinstance(picture, np.ndarray):
        reading.size = picture.shape
        reading.odd = _odd(reading.path, picture)
    if isinstance(labels, np.ndarray):
        reading.map_size, reading.values = labels.shape, np.unique(labels)
    return reading


def _reason(path: str, fault: Exception) -> str:
    if osp.isdir(path):
        return 'are folders'
    if isinstance(fault, PermissionError):
        return 'may not be read by this user'
    try:
        with Image.open(path) as image:
            image.load()
    except Exception as why:
        return 'end too early (a copy that was cut off?)' if 'trunc' in str(
            why).lower() else 'are no pictures, or damaged'
    return f'cannot be read ({type(fault).__name__}: {fault})'


def _odd(path: str, picture: np.ndarray) -> tuple | None:
    """What a file holds and its loading transform leaves out."""
    with open(path, 'rb') as file:
        start = file.read(2)
        file.seek(max(0, os.fstat(file.fileno()).st_size - 64))
        end = ENDS.get(start)
        if end and end not in file.read() and 'early' in _reason(
                path, ValueError()):
            return warning, 'end too early (a copy that was cut off?), and ' \
                'are read as far as they go'
    if not path.lower().endswith(SUFFIXES):
        return None
    raw = cv2.imread(path, cv2.IMREAD_UNCHANGED)
    if raw is not None and picture.dtype == np.uint8 != raw.dtype:
        if raw.dtype.kind == 'f':
            return error, (
                f'hold {raw.dtype} values, as from {raw.min():g} to '
                f'{raw.max():g}, and are read as 8 bits, which makes nonsense '
                'of them. Save them as 8 or 16 bits, or load them with '
                "LoadImageFromFile(color_type='unchanged', "
                "imdecode_backend='tifffile')")
        bits = int(raw.max()).bit_length()
        if raw.dtype == np.uint16 and bits <= 12:
            return warning, (
                f'hold 16 bits of which {bits} are used, and are read as 8 '
                f'bits: their brightest value becomes {picture.max()} of 255. '
                'Stretch them, or load them with LoadImageFromFile('
                "color_type='unchanged')")
    if path.lower().endswith('.png'):
        return None
    pages = cv2.imcount(path)
    if pages > 1 and picture.ndim == 3 and picture.shape[2] <= 4:
        return warning, (f'have further pages, as {pages} in the first of '
                         'these: only the first page is read')
    return None


def check_files(data: Data, readings: list[Reading],
                said: bool) -> Iterator[Problem]:
    """What was read, against what the annotations say.

    Args:
        data (Data): Data set.
        readings (list[Reading]): Of :func:`read_files`.
        said (bool): Whether its annotations have errors already, which may be
            why some could not be read.
    """
    place = data.ann_file or data.key
    groups = defaultdict(list)
    for reading in readings:
        if reading.fault and not said:
            groups[error, reading.fault].append(reading.path)
        elif reading.odd:
            groups[reading.odd].append(reading.path)
    for (problem, words), paths in groups.items():
        yield problem(place, f'{len(paths)} of {len(readings)} image files '
                      f'that were read {words}: {first_few(paths)}')
    turned, other = [], []
    for reading in readings:
        wanted = (reading.record.get('height'), reading.record.get('width'))
        if not reading.size or None in wanted or \
                reading.size[:2] == wanted:
            continue
        words = f'{reading.path} has {reading.size[1]}x{reading.size[0]} ' \
                f'and should have {wanted[1]}x{wanted[0]}'
        (turned if reading.size[1::-1] == wanted else other).append(words)
    # Sizes in XML files are often wrong, and only compared with min_size.
    problem = error if data.kind == 'coco' else warning
    if turned:
        yield problem(
            place, f'{len(turned)} of {len(readings)} image files that were '
            'read are photos that their EXIF data turn by 90 degrees, and '
            'the annotations are for the picture as it is stored: '
            f'{first_few(turned)} (width x height). Save the pictures upright '
            '(`PIL.ImageOps.exif_transpose`) and annotate them so, or load '
            "them with LoadImageFromFile(color_type='color_ignore_orientation"
            "')")
    if other:
        yield problem(
            place, f'{len(other)} of {len(readings)} image files that were '
            'read have another size than the annotations say: '
            f'{first_few(other)} (width x height)')

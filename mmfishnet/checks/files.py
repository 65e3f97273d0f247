# Copyright (c) mmfishnet authors. All rights reserved.
"""Picture files and label maps, as the data set's own transforms read them."""
from __future__ import annotations

import os
import os.path as osp
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from PIL import Image

from ..picture_file import FLOATS, doubts
from ..words import counted, first_few
from .built import Data, is_local
from .problem import Problem, error, note, warning

# Files that are read, as many as these seconds are enough for.
READ, SECONDS, AT_ONCE = 1000, 10, 64
THREADS = 8  # disks of a network answer late, but many at a time
ENDS = {b'\xff\xd8': b'\xff\xd9', b'\x89P': b'IEND'}  # JPEG and PNG
EARLY = 'end too early (a copy that was cut off?)'
DAMAGED = 'are no pictures, or damaged'
TURNED = (
    'are photos that their EXIF data turn by 90 degrees, and the annotations '
    'are for the picture as it is stored. Save the pictures upright '
    '(`PIL.ImageOps.exif_transpose`) and annotate them so, or load them with '
    "LoadImageFromFile(color_type='color_ignore_orientation'); they are "
    '(width x height)')
OTHER = 'have another size than the annotations say (width x height)'


@dataclass
class Reading:
    """What the loading transforms made of one record; None if unknown.

    Attributes:
        record (dict): What the data set lists.
        path (str): Picture, or map if that is what could not be read.
        fault (str, optional): Why it could not be read.
        size, map_size (tuple, optional): Height and width, and further axes.
        values (np.ndarray, optional): Those of the map.
        odd (tuple, optional): What a file holds that is not read.
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
    records = [r for r in data.records if isinstance(r['img_path'], str)]
    if not records:
        return [], []
    if not data.loaders:
        return [], [note(data.key, 'its pictures were not looked at: they are '
                         'loaded by a transform that is not known here')]
    if not is_local(records[0]['img_path'], getattr(
            data.loaders[0], 'backend_args', None)):
        return [], [note(data.key, 'its pictures were not looked at: they '
                         'come through a storage backend')]
    lost, problems = _look_for(data, records, 'img_path', 'image files')
    if data.has('with_seg'):
        more, found = _look_for(data, records, 'seg_map_path', 'label maps')
        lost, problems = lost | more, problems + found
    there = [r for r in records
             if not lost & {r['img_path'], r['seg_map_path']}]
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
    return readings, [*problems, note(
        data.key, f'{counted(len(records), "image file")} looked for, '
        f'{len(readings)} read{few}, by '
        f'{", ".join(type(t).__name__ for t in data.loaders)}')]


def _look_for(data: Data, records: list, key: str,
              what: str) -> tuple[set, list[Problem]]:
    """The files that are not there or empty, and words for them."""
    paths = [r[key] for r in records if isinstance(r[key], str)]
    with ThreadPoolExecutor(THREADS) as pool:
        lengths = list(pool.map(_length, paths))
    gone = [p for p, length in zip(paths, lengths) if length is None]
    empty = [p for p, length in zip(paths, lengths) if length == 0]
    lost, problems, place = {*gone, *empty}, [], data.ann_file or data.key
    folders = {folder: count for folder, count in sorted(
        Counter(map(osp.dirname, gone)).items())
        if not osp.isdir(folder or '.')}
    problems += [error(
        data.key, f'the folder {folder!r} of {count} of its {what} is not '
        f'there (looked for {osp.abspath(folder)}). Set data_root or '
        'data_prefix of the data set, or --data-root')
        for folder, count in folders.items()]
    gone = [p for p in gone if osp.dirname(p) not in folders]
    if gone:
        folder, name = osp.split(gone[0])
        stem = osp.splitext(name)[0].casefold()
        names = os.listdir(folder or '.') if os.access(
            folder or '.', os.R_OK) else ()
        others = sorted(
            n for n in names if osp.splitext(n)[0].casefold() == stem)
        hint = f' (did you mean {others[0]!r}?)' if others else ''
        if '\\' in name:
            hint = ' (a file_name is written with / between folders)'
        problems.append(error(
            place, f'{len(gone)} of {len(paths)} {what} are not there: '
            f'{first_few(gone)}{hint}'))
    if empty:
        problems.append(error(
            place, f'{len(empty)} of {len(paths)} {what} are empty (0 bytes): '
            f'{first_few(empty)}'))
    return lost, problems


def _length(path: str) -> int | None:
    """Bytes of a file, None if there is none, -1 if nobody tells."""
    try:
        return osp.getsize(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None  # ValueError of a null character
    except OSError:
        return -1


def _read(data: Data, record: dict) -> Reading:
    """Run the loading transforms on a record."""
    reading = Reading(record, record['img_path'])
    results = data.dataset.get_data_info(record['index'])
    for transform in data.loaders:
        if 'img' in results:
            if not isinstance(record['seg_map_path'], str):
                # Of objects nothing is wanted, and pycocotools crash on some.
                break
            reading.path = record['seg_map_path']
        try:
            results = transform(results)
        except Exception as fault:
            reading.fault = _reason(reading.path, fault)
            return reading
        if results is None:
            reading.fault = DAMAGED
            return reading
    reading.path = record['img_path']
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
        return EARLY if 'trunc' in str(why).lower() else DAMAGED
    try:
        doubts(path, None)
    except ValueError as why:
        if why.args[0] == FLOATS:
            return f'have {FLOATS}'
    return 'cannot be read ({}: {})'.format(
        type(fault).__name__, str(fault).replace(path, 'it'))


def _odd(path: str, picture: np.ndarray) -> tuple | None:
    """What a file holds and its loading transform leaves out."""
    with open(path, 'rb') as file:
        end = ENDS.get(file.read(2))
        file.seek(max(0, os.fstat(file.fileno()).st_size - 64))
        if end and end not in file.read() and _reason(
                path, ValueError()) == EARLY:
            return warning, f'{EARLY}, and are read as far as they go'
    try:
        words = doubts(path, picture)
    except ValueError as why:
        return error, f'have {why}'
    return words and (warning, f'have {words}')


def check_files(data: Data, readings: list[Reading],
                said: bool) -> Iterator[Problem]:
    """What was read, against what the annotations say.

    Args:
        data (Data): Data set.
        readings (list[Reading]): Of :func:`read_files`.
        said (bool): Whether its annotations have errors already, which may be
            why some could not be read.
    """
    groups = defaultdict(list)
    # Sizes in XML files are often wrong, and only compared with min_size.
    problem = error if data.kind == 'coco' else warning
    for reading in readings:
        wanted = reading.record['height'], reading.record['width']
        if reading.fault and not said:
            groups[error, reading.fault].append(reading.path)
        elif reading.odd:
            groups[reading.odd].append(reading.path)
        if None not in wanted and reading.size and \
                reading.size[:2] != wanted:
            turned = reading.size[1::-1] == wanted
            groups[problem, TURNED if turned else OTHER].append(
                f'{reading.path} has {reading.size[1]}x{reading.size[0]} and '
                f'should have {wanted[1]}x{wanted[0]}')
    for (problem, words), paths in groups.items():
        yield problem(
            data.ann_file or data.key, f'{len(paths)} of {len(readings)} image'
            f' files that were read {words}: {first_few(paths)}')

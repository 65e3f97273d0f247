# Copyright (c) mmfishnet authors. All rights reserved.
"""Image files: there, not empty, whole, and of the size that is said."""
from __future__ import annotations

import os
import os.path as osp
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

import cv2
import numpy as np
from PIL import Image

from .problem import Problem, error, note, some

# Files whose size on disk is asked for, and those whose header is read.
MEASURED, OPENED = 200_000, 1000
THREADS = 8  # disks of a network answer late, but many at a time
ROTATED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
ENDS = {'JPEG': b'\xff\xd9', 'PNG': b'IEND'}


def check_images(paths: Sequence[str],
                 sizes: Sequence[tuple] | None = None,
                 rotates: bool = True,
                 place: str = '') -> Iterator[Problem]:
    """Look at image files.

    All are looked for, in listings of their folders. Of the first
    ``MEASURED`` or evenly spread as many, it is asked whether they are empty;
    of ``OPENED``, evenly spread, the header and the end are read.

    Args:
        paths (Sequence[str]): Files.
        sizes (Sequence[tuple], optional): (width, height) of each as the
            annotations say, for comparison. Defaults to None.
        rotates (bool): Whether pictures are turned upright when they are
            loaded, as OpenCV does by their EXIF data. Defaults to True.
        place (str): File that lists them, for messages.
    """
    listings = _list_folders(paths)
    folders = {folder for folder, names in listings.items() if names is None}
    for folder in sorted(folders):
        yield error(
            place, f'the folder {folder!r} of its images is not there (looked '
            f'for {osp.abspath(folder)}). Set data_root or data_prefix of '
            'the data set, or --data-root')
    found, missing = [], []
    for i, path in enumerate(paths):
        folder, name = osp.split(path)
        if folder not in folders:
            (found if name in listings[folder] else missing).append(i)
    if missing:
        folder, name = osp.split(paths[missing[0]])
        stem = osp.splitext(name)[0].casefold()
        others = sorted(n for n in listings[folder]
                        if osp.splitext(n)[0].casefold() == stem)
        hint = f' (did you mean {others[0]!r}?)' if others else ''
        if '\\' in name:
            hint = ' (a file_name is written with / between folders)'
        yield error(
            place, f'{len(missing)} of {len(paths)} image files are not '
            f'there: {some([paths[i] for i in missing])}{hint}')

    measured = found[::_step(found, MEASURED)]
    opened = found[::_step(found, OPENED)]
    with ThreadPoolExecutor(THREADS) as pool, warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of Pillow, about odd EXIF data
        lengths = list(
            pool.map(_length, [paths[i] for i in measured], chunksize=1000))
        faults = dict(
            zip(opened,
                pool.map(_look, [paths[i] for i in opened], repeat(rotates))))
    empty = {i for i, length in zip(measured, lengths) if length == 0}
    if empty:
        yield error(
            place, f'{len(empty)} of {len(measured)} image files are empty '
            f'(0 bytes): {some([paths[i] for i in sorted(empty)])}')
    reasons = defaultdict(list)
    other, turned = [], []
    for i, (fault, size, raw) in faults.items():
        if i in empty:
            continue
        if fault:
            reasons[fault].append(paths[i])
        elif sizes is not None and size and size != tuple(sizes[i]):
            words = f'{paths[i]} has {size[0]}x{size[1]} and should have ' \
                    f'{sizes[i][0]:g}x{sizes[i][1]:g}'
            (turned if raw == tuple(sizes[i]) else other).append(words)
    for fault, names in reasons.items():
        yield error(
            place, f'{len(names)} of {len(opened)} image files that were '
            f'opened {fault}: {some(names)}')
    if turned:
        yield error(
            place, f'{len(turned)} of {len(opened)} image files that were '
            'opened are photos that their EXIF data turn by 90 degrees, and '
            'the annotations are for the picture as it is stored: '
            f'{some(turned)} (width x height). Save the pictures upright '
            '(`PIL.ImageOps.exif_transpose`) and annotate them so, or load '
            "them with LoadImageFromFile(color_type='color_ignore_orientation"
            "')")
    if other:
        yield error(
            place, f'{len(other)} of {len(opened)} image files that were '
            'opened have another size than the annotations say: '
            f'{some(other)} (width x height)')
    spread = ', evenly spread' if len(opened) < len(found) else ''
    yield note(
        place, f'{len(paths)} image files were looked for, {len(measured)} '
        f'asked for their length, and of {len(opened)}{spread}, the header '
        'and the end were read; no picture was decoded')


def _step(items: Sequence, limit: int) -> int:
    return max(1, -(-len(items) // limit))


def _list_folders(paths: Sequence[str]) -> dict[str, set | None]:
    """Names in each folder; None for one that is not there."""
    listings = {}
    for folder in {osp.dirname(path) for path in paths}:
        try:
            with os.scandir(folder or '.') as entries:
                listings[folder] = {entry.name for entry in entries}
        except (OSError, ValueError):  # a null character
            listings[folder] = None
    return listings


def _length(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):
        return None


def _look(path: str, rotates: bool) -> tuple:
    """What is wrong with a file, its size when loaded, and as stored."""
    if osp.isdir(path):
        return 'are folders', None, None
    try:
        with Image.open(path) as image:
            raw = size = image.size
            if rotates and image.getexif().get(0x0112) in ROTATED:
                size = raw[::-1]
            end = ENDS.get(image.format)
            if end and end not in _tail(path):
                image.load()  # raises where the end is missing
            return None, size, raw
    except Image.DecompressionBombError:  # large, not broken
        return None, None, None
    except PermissionError:
        return 'may not be read by this user', None, None
    # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error ...
    except Exception as fault:
        if 'trunc' in str(fault).lower():
            return 'end too early (a copy that was cut off?)', None, None
        return _decode(path), None, None


def _tail(path: str) -> bytes:
    with open(path, 'rb') as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 64))
        return file.read()


def _decode(path: str) -> str | None:
    """OpenCV's word on what Pillow could not read."""
    try:
        data = np.fromfile(path, np.uint8)
        readable = len(data) and cv2.imdecode(data, cv2.IMREAD_COLOR)
    except (OSError, cv2.error):
        readable = None
    if readable is None:
        return 'are no images, or damaged'
    return None

# Copyright (c) mmfishnet authors. All rights reserved.
"""Labels that are pictures: masks of objects, and maps of classes.

A label picture belongs to the picture whose path is the same but for words
such as ``images`` and ``masks``; of several, each shows one object.
"""
from __future__ import annotations

import os
import re
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from box_labels import listed_names
from mmfishnet.datasets.shapes import encode_mask
from mmfishnet.words import counted, first_few
from picture_folder import PictureFolder, split_of

MASKS = ('mask masks label labels labelids annotation annotations annot ann '
         'ann_dir gt groundtruth ground_truth seg segmentation segmentations '
         'semantic lab labs maps map gtfine segmentationclass '
         'segmentationobject segmentationclasspng instances objects '
         'trainannot valannot testannot').split()
IMAGES = ('image images img imgs img_dir jpegimages pictures leftimg8bit '
          'raw').split()
LOOKED_AT = 60  # maps by which instances and classes are told apart
IGNORED = 255


def _key(path: str) -> tuple[str, bool]:
    """A path without such words, and whether one said that it is a mask."""
    *folders, name = os.path.splitext(path)[0].split('/')
    is_mask, kept = False, []
    for part in folders:
        word = part.lower()
        is_mask |= word in MASKS
        if word.endswith('annot') and word != 'annot':
            kept.append(part[:-5])
        elif word not in MASKS and word not in IMAGES:
            kept.append(part)
    *stem, last = re.split(r'[_\-.]', name)
    while stem and last.lower() in MASKS + IMAGES:
        is_mask |= last.lower() in MASKS
        *stem, last = stem
    return '/'.join([*kept, name[:len('_'.join([*stem, last]))]]), is_mask


def find_masks(folder: PictureFolder) -> dict[str, list[str]] | None:
    """Label pictures of each picture; None if less than half have any."""
    pictures, masks = {}, []
    for path in folder.pictures:
        key, is_mask = _key(path)
        if is_mask:
            masks.append((path, key))
        else:
            pictures[key] = path
    alone = defaultdict(list)
    for key in pictures:
        alone[os.path.dirname(key)].append(key)
    found, strays = defaultdict(list), []
    for path, key in masks:
        parent = os.path.dirname(key)
        begins = re.sub(r'[_\-][^_\-/]*$', '', key)
        if key not in pictures:
            if parent in pictures:  # masks/PICTURE/1.png
                key = parent
            elif begins in pictures:  # masks/PICTURE_1.png
                key = begins
            elif len(alone[parent]) == 1:  # PICTURE/masks/abc.png
                key, = alone[parent]
        if key in pictures:
            found[pictures[key]].append(path)
        else:
            strays.append(path)
    if 2 * len(found) < max(len(pictures), 1):
        return None
    for path in set(pictures.values()) - set(found):
        folder.leave_out('picture without labels', path)
    for path in strays:
        folder.leave_out('label picture without its picture', path)
    return dict(found)


def read_map(folder: PictureFolder, path: str,
             size: tuple[int, int]) -> np.ndarray | None:
    """Numbers, or colours as numbers, of a label picture, int32 (H, W)."""
    array = folder.array(path)
    if array is None:
        return None
    if array.ndim == 3:
        array = array[..., :3].astype(np.int32)
        if array.shape[2] < 3 or (array == array[..., :1]).all():
            array = array[..., 0]
        else:
            array = array @ np.array([1 << 16, 1 << 8, 1])
    array = array.astype(np.int32)
    if path.lower().endswith(('.jpg', '.jpeg')):  # whose numbers are blurred
        array = np.where(array & 255 > 127, 255, 0)
    if array.shape != (size[1], size[0]):
        folder.leave_out('label picture of another size than its picture',
                         path)
        return None
    return array


def shows_instances(folder: PictureFolder, masks: dict) -> bool:
    """Whether each number is an object, rather than a class.

    Then there are 1 to N without a gap, N differs, and hardly a number is in
    more than one piece.
    """
    if _numbered_names(folder) or listed_names(folder):
        return False
    counts, whole, numbers, gaps = [], 0, 0, 0
    step = max(1, len(masks) // LOOKED_AT)
    for picture in list(masks)[::step]:
        size = folder.size(picture)
        array = size and read_map(folder, masks[picture][0], size)
        if array is None:
            continue
        values = np.unique(array)
        values = values[values > 0]
        gaps += len(values) > 0 and values[-1] > 1.2 * len(values)
        counts.append(len(values))
        for value in values[:20]:
            pieces = cv2.connectedComponents(
                (array == value).astype(np.uint8))[0] - 1
            whole += pieces == 1
        numbers += len(values[:20])
    return (len(set(counts)) > 1 and max(counts) > 2
            and gaps < 0.1 * len(counts) and whole > 0.9 * numbers)


def read_masks(folder: PictureFolder, masks: dict, name: str):
    """Objects of one class: by number in one picture, or one a picture."""
    samples = defaultdict(list)
    for picture, paths in masks.items():
        size = folder.size(picture)
        if size is None:
            continue
        items = []
        for path in paths:
            array = read_map(folder, path, size)
            if array is None:
                continue
            values = np.unique(array)
            for value in values[values > 0] if len(paths) == 1 else [None]:
                mask = array > 0 if value is None else array == value
                if mask.any():
                    items.append(dict(category=name, **encode_mask(mask)))
                else:
                    folder.leave_out('mask that shows nothing', path)
        samples[split_of(picture)].append((picture, size, items))
    return samples, [name]


def read_maps(folder: PictureFolder, masks: dict,
              names: list[str] | None = None):
    """Maps of classes: their paths, and what their numbers come to.

    Returns:
        tuple: By split, (picture, map, numbers in it); the numbers of all in
        order, without the one that is ignored; names of the classes.

    Raises:
        ValueError: If they hold more numbers than there can be classes.
    """
    samples, values = defaultdict(list), set()
    for picture, (path, *more) in masks.items():
        size = folder.size(picture)
        array = None if size is None else read_map(folder, path, size)
        for other in more:
            folder.leave_out('further label picture of a picture', other)
        if array is None:
            continue
        here = set(np.unique(array).tolist())
        values |= here
        samples[split_of(picture)].append((picture, path, here))
        if len(values) > 256:
            raise ValueError(
                f'the label pictures hold more than 256 numbers (the last '
                f'read: {path}): they are no maps of classes. If each number '
                'is an object of its own, use --kind instances.')
    # Beside other numbers than 0 it stands for what nobody knows.
    if values - {0, IGNORED}:
        values.discard(IGNORED)
    values = sorted(values)
    listed = names or listed_names(folder)
    known = _numbered_names(folder)
    if listed and values[-1] < len(listed):
        values = list(range(len(listed)))
        known = dict(enumerate(listed))
    elif names and len(names) == len(values):
        known = dict(zip(values, names))
    elif names:
        raise ValueError(
            f'--classes has {len(names)} names, and the label pictures hold '
            f'{counted(len(values), "number")} ({first_few(values, 20)}).')
    elif len(values) == 2 and values[0] == 0 and not known:
        known = dict(zip(values, ('background', 'object')))
    names = [known.get(value) or _name(value) for value in values]
    return samples, values, names


def _name(value: int) -> str:
    if value > 0xffff:
        return 'colour_{}_{}_{}'.format(*value.to_bytes(3, 'big'))
    return f'class_{value}' if value else 'background'


def _numbered_names(folder: PictureFolder) -> dict[int, str]:
    """Names by number or colour: CVAT's labelmap.txt, Roboflow's CSV."""
    names = {}
    for file in folder.with_suffix('labelmap.txt', '_classes.csv'):
        for line in folder.read(file).splitlines():
            if match := re.match(r'([^#:]+):(\d+),(\d+),(\d+):', line):
                name, *colour = match.groups()
                r, g, b = map(int, colour)
                names[r if r == g == b else r << 16 | g << 8 | b] = name
            elif match := re.match(r'\s*(\d+)\s*,\s*(.+?)\s*$', line):
                names[int(match[1])] = match[2]
    return names


def find_pattern(samples) -> tuple:
    """How the paths of pictures and of their maps hang together.

    Args:
        samples (Sequence[tuple]): Those of a split, of :func:`read_maps`.

    Returns:
        tuple: Prefix and suffix of the pictures and those of the maps, with
        the same between them; four None if there is more than one way.
    """
    pictures = [sample[0] for sample in samples]
    prefix = os.path.commonpath([os.path.dirname(p) for p in pictures])
    prefix = os.path.join(prefix, '') if prefix else ''
    suffix = os.path.splitext(pictures[0])[1]
    stem = pictures[0][len(prefix):-len(suffix)]
    before, found, after = samples[0][1].rpartition(stem)
    fits = found and all(picture.endswith(suffix) and path ==
                         before + picture[len(prefix):-len(suffix)] + after
                         for picture, path, _ in samples)
    return (prefix, suffix, before, after) if fits else (None, ) * 4


def write_maps(folder: PictureFolder, samples, numbers: list[int],
               out: Path) -> None:
    """Write maps whose numbers are those of classes, 255 where none is.

    Args:
        folder (PictureFolder): Where they are read.
        samples (Sequence[tuple]): Of :func:`read_maps`.
        numbers (list[int]): What becomes 0, 1, 2 ...
        out (Path): Folder for ``PICTURE.png``, where ``PICTURE`` is the
            picture's path with its suffix.
    """
    for picture, path, _ in samples:
        array = read_map(folder, path, folder.size(picture))
        label = np.full(array.shape, IGNORED, np.uint8)
        for i, number in enumerate(numbers):
            label[array == number] = i
        target = out / f'{picture}.png'
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(label).save(target)


# ----------------------------------------------------------------------------
# Folders of classes


def read_folders(folder: PictureFolder):
    """Pictures by the folder that they lie in, below those of splits.

    Returns:
        tuple | None: By split, (picture, class), and the classes; None if
        there are no two folders of pictures.
    """
    samples = defaultdict(list)
    for picture in folder.pictures:
        first, *rest = picture.split('/')
        split = split_of(first) if len(rest) > 1 else ''
        where = rest if split else [first, *rest]
        if len(where) > 1:
            if folder.size(picture):
                samples[split].append((picture, where[0]))
        else:
            folder.leave_out('picture in no folder of a class', picture)
    classes = sorted({name for found in samples.values() for _, name in found})
    if len(classes) < 2 or all(map(split_of, classes)):
        return None  # train and val, and no labels
    return samples, classes

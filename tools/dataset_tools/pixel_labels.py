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
         'segmentationobject segmentationclasspng instances objects').split()
IMAGES = ('image images img imgs img_dir jpegimages pictures leftimg8bit '
          'raw').split()
LOOKED_AT = 60  # maps by which instances and classes are told apart
IGNORED = 255


def _key(path: str) -> tuple[str, bool]:
    """A path without such words, and whether one said that it is a mask."""
    *folders, name = os.path.splitext(path)[0].split('/')
    *stem, last = re.split(r'[_\-.]', name)
    kept, said = [], []
    while stem and last.lower() in MASKS + IMAGES:
        said.append(last.lower())
        *stem, last = stem
    for folder in folders:
        word = folder.lower()
        if word in MASKS + IMAGES:
            said.append(word)
        elif word.endswith('annot'):  # SegNet's trainannot
            said.append('annot')
            kept.append(folder[:-5])
        else:
            kept.append(folder)
    name = name[:len('_'.join([*stem, last]))]
    return '/'.join([*kept, name]), any(word in MASKS for word in said)


def find_masks(folder: PictureFolder) -> dict[str, list[str]] | None:
    """Label pictures of each picture; None if less than half have any."""
    pictures, masks, alone = {}, [], defaultdict(list)
    for path in folder.pictures:
        key, is_mask = _key(path)
        if is_mask:
            masks.append((path, key))
        else:
            pictures[key] = path
            alone[os.path.dirname(key)].append(key)
    found, strays = defaultdict(list), []
    for path, key in masks:
        parent = os.path.dirname(key)
        # masks/PICTURE.png, masks/PICTURE/1.png, masks/PICTURE_1.png and
        # PICTURE/masks/abc.png
        meant = [key, parent, re.sub(r'[_\-][^_\-/]*$', '', key)]
        meant += alone[parent] if len(set(alone[parent])) == 1 else []
        key = next((k for k in meant if k in pictures), None)
        if key is None:
            strays.append(path)
        else:
            found[pictures[key]].append(path)
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
        grey = array.shape[2] < 3 or (array == array[..., :1]).all()
        array = array[..., 0] if grey else array @ [1 << 16, 1 << 8, 1]
    array = array.astype(np.int32)
    if path.lower().endswith(('.jpg', '.jpeg')):  # whose numbers are blurred
        array = np.where(array & 255 > 127, 255, 0)
    if array.shape != (size[1], size[0]):
        folder.leave_out('label picture of another size than its picture',
                         path)
        return None
    return array


def _maps(folder: PictureFolder, masks: dict, pictures=None):
    """Picture, its size, the path of a label picture, and what it holds."""
    for picture in masks if pictures is None else pictures:
        size = folder.size(picture)
        for path in masks[picture] if size else ():
            array = read_map(folder, path, size)
            if array is not None:
                yield picture, size, path, array


def shows_instances(folder: PictureFolder, masks: dict) -> bool:
    """Whether each number is an object, rather than a class.

    Then there are 1 to N without a gap, N differs, and hardly a number is in
    more than one piece.
    """
    if _numbered_names(folder) or listed_names(folder):
        return False
    counts, whole, numbers, gaps = [], 0, 0, 0
    some = list(masks)[::max(1, len(masks) // LOOKED_AT)]
    for *_, array in _maps(folder, masks, some):
        values = np.unique(array[array > 0])
        gaps += len(values) > 0 and values[-1] > 1.2 * len(values)
        counts.append(len(values))
        numbers += len(values[:20])
        whole += sum(
            cv2.connectedComponents((array == value).astype(np.uint8))[0] == 2
            for value in values[:20])
    return (len(set(counts)) > 1 and max(counts) > 2
            and gaps < 0.1 * len(counts) and whole > 0.9 * numbers)


def read_masks(folder: PictureFolder, masks: dict, name: str):
    """Objects of one class: by number in one picture, or one a picture."""
    found = {}
    for picture, size, path, array in _maps(folder, masks):
        items = found.setdefault(picture, (picture, size, []))[2]
        values = np.unique(array[array > 0])
        if len(masks[picture]) > 1 and not len(values):
            folder.leave_out('mask that shows nothing', path)
        elif len(masks[picture]) > 1:
            array, values = array > 0, [True]
        items += [dict(category=name, **encode_mask(array == value))
                  for value in values]
    samples = defaultdict(list)
    for picture in masks:
        if sample := found.get(picture):
            samples[split_of(picture)].append(sample)
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
    for _, *more in masks.values():
        for other in more:
            folder.leave_out('further label picture of a picture', other)
    for picture, _, path, array in _maps(
            folder, {p: paths[:1] for p, paths in masks.items()}):
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
    told = colours(values) or [f'class_{value}' for value in values]
    names = [known.get(value) or (name if value else 'background')
             for value, name in zip(values, told)]
    return samples, values, names


def colours(values: list[int]) -> list[str]:
    """The colours that sorted numbers stand for; none if they are numbers."""
    return ['colour_{}_{}_{}'.format(*value.to_bytes(3, 'big'))
            for value in values] if max(values, default=0) > 0xffff else []


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


def write_maps(folder: PictureFolder, samples, numbers: list[int],
               out: Path) -> None:
    """Write the maps of :func:`read_maps`, as ``out/PICTURE.png``, with
    ``numbers`` become 0, 1, 2 ... and 255 where there is none of them."""
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

# Copyright (c) mmfishnet authors. All rights reserved.
"""Boxes and outlines in the formats of label tools, one reader for each.

Each finds its files in a :class:`PictureFolder` and gives None if there are
none, else samples by split (see :mod:`coco_records`) and the names of the
classes, in order. The formats are a page each, and what goes wrong with
them is in what people's folders hold beside them, so they are read here.
"""
from __future__ import annotations

import base64
import json
import math
import os
import re
import xml.etree.ElementTree as ET
from collections import defaultdict

import cv2
import numpy as np
import yaml

from coco_records import KEYS
from mmfishnet.words import first_few
from picture_folder import PictureFolder, split_of

KINDS_OF_JSON = ('instances', '_annotations', 'result')
LISTS = ('classes.txt', 'labels.txt', 'class_names.txt', '_darknet.labels')


def find_coco(folder: PictureFolder) -> dict[str, str]:
    """Files in COCO's format, by split.

    Raises:
        ValueError: If there are several for one split.
    """
    found = defaultdict(list)
    for name in folder.with_suffix('.json'):
        try:
            text = folder.read(name)
            data = json.loads(text) if all(
                f'"{key}"' in text for key in KEYS) else None
        except (OSError, ValueError):
            folder.leave_out('file unreadable as JSON', name)
            continue
        if isinstance(data, dict) and isinstance(data.get('categories'), list):
            found[split_of(name)].append(name)
    for split, names in found.items():
        # Beside instances_train2017.json lie those of persons and panoptic_.
        names = [n for n in names if os.path.basename(n).startswith(
            KINDS_OF_JSON)] or names
        if len(names) > 1:
            raise ValueError(
                f"{folder.root} holds {len(names)} files in COCO's format "
                f'for {split or "no split"}: {first_few(names)}. Name those '
                'to read by --train and --val.')
        found[split] = names[0]
    return dict(found)


def _polygon(category, *outlines: list[float]) -> dict:
    xs, ys = ([v for outline in outlines for v in outline[axis::2]]
              for axis in (0, 1))
    return dict(category=category,
                bbox=[min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)],
                segmentation=[list(outline) for outline in outlines])


# ----------------------------------------------------------------------------
# YOLO: a text file for each picture, a line for each object.


def read_yolo(folder: PictureFolder, names: list[str] | None = None):
    """Boxes and polygons in fractions of the picture."""
    texts, files = set(folder.with_suffix('.txt')), {}
    for picture in folder.pictures:
        stem = os.path.splitext(picture)[0]
        # The last folder named images has one named labels beside it.
        other = re.sub(r'(^|/)images(?=/(?!.*(?:^|/)images/))', r'\1labels',
                       stem)
        files[picture] = next(
            (f for f in (f'{other}.txt', f'{stem}.txt') if f in texts), None)
    lines = {picture: folder.read(name).splitlines() if name else []
             for picture, name in files.items()}
    some = [line for found in lines.values() for line in found
            if line.strip()][:100]
    fits = [bool(re.fullmatch(r'\d+(\s+-?[\d.e-]+){4,}\s*', line))
            for line in some]
    described = _yolo_yaml(folder)
    if not any(files.values()) or (not described
                                   and sum(fits) <= len(fits) // 2):
        return None
    names = names or described.get('names') or listed_names(folder)
    samples, every = defaultdict(list), []
    split = _yolo_splits(folder, described)
    for picture, found in lines.items():
        size = folder.size(picture)
        if size is None:
            continue
        items = []
        for number, line in enumerate(found, 1):
            where = f'{files[picture]}, line {number}'
            item = _yolo_object(line.split(), *size, 'kpt_shape' in described)
            if item is None and line.strip():
                folder.leave_out(
                    "line other than YOLO's (a class and fractions of the "
                    'picture)', f'{where}: {line}')
            elif item and names and item['category'] >= len(names):
                raise ValueError(
                    f'{where}: class {item["category"]}, and there are '
                    f'{len(names)} names, counted from 0: {first_few(names)}.')
            elif item:
                items.append(item)
        samples[split(picture)].append(
            (picture, size, items))
        every += items
    named = dict(enumerate(names)) or {
        i: f'class_{i}' for i in sorted({item['category'] for item in every})}
    for item in every:
        item['category'] = named[item['category']]
    return samples, list(named.values())


def _yolo_object(words: list[str], width: int, height: int,
                 keypoints: bool) -> dict | None:
    try:
        kind, *numbers = map(float, words)
    except ValueError:
        return None
    # A polygon, a box, or a box with its score.
    if len(numbers) < 4 or not kind.is_integer() or kind < 0 or not all(
            -0.5 <= v <= 1.5 for v in numbers[:4]):
        return None
    if keypoints or len(numbers) in (4, 5):
        x, y, w, h = (max(v, 0) for v in numbers[:4])
        # A hair beyond the border is rounding.
        left, top = max(x - w / 2, 0), max(y - h / 2, 0)
        w, h = min(x + w / 2, 1) - left, min(y + h / 2, 1) - top
        box = [left * width, top * height, w * width, h * height]
        return dict(category=int(kind), bbox=box)
    return None if len(numbers) % 2 else _polygon(
        int(kind), [min(max(v, 0), 1) * (height if i % 2 else width)
                    for i, v in enumerate(numbers)])


def _yolo_yaml(folder: PictureFolder) -> dict:
    """What data.yaml says, with ``names`` as a list; empty without one."""
    for name in folder.with_suffix('.yaml', '.yml'):
        try:
            data = yaml.safe_load(folder.read(name))
        except yaml.YAMLError as fault:
            raise ValueError(f'{name} is no YAML: {fault}') from None
        names = data.get('names') if isinstance(data, dict) else None
        if isinstance(names, dict):
            try:
                last = max(map(int, names), default=-1)
            except (TypeError, ValueError):
                raise ValueError(f'{name}: the keys of names should be '
                                 f'numbers: {first_few(names)}.') from None
            names = [names.get(i, f'class_{i}') for i in range(last + 1)]
        if isinstance(names, list) and names:
            names = [str(n) for n in names]
            if len(set(names)) < len(names):
                raise ValueError(f'{name}: a name is given twice in names: '
                                 f'{first_few(names, 20)}.')
            return dict(data, names=names, file=name)
    return {}


def listed_names(folder: PictureFolder) -> list[str]:
    """Names in classes.txt (Label Studio, LabelImg) or obj.names (Darknet)."""
    for name in folder.files:
        if os.path.basename(name) in LISTS or name.endswith('.names'):
            return [line.strip() for line in folder.read(name).splitlines()
                    if line.strip()]
    return []


def _yolo_splits(folder: PictureFolder, described: dict):
    """A function that tells a picture's split, by data.yaml or its path."""
    entries = {}
    for split in ('train', 'val', 'test'):
        value = described.get(split) or (split == 'val'
                                         and described.get('valid')) or []
        for entry in [value] if isinstance(value, str) else value:
            found = _entry(folder, str(entry), described)
            if found is not None:
                entries.setdefault(split, []).append(found)
    if entries.get('train') == entries.get('val'):
        entries = {}

    def split(picture: str) -> str:
        return next((name for name, found in entries.items() if any(
            picture in entry if isinstance(entry, set) else
            picture.startswith(entry) for entry in found)), split_of(picture))

    return split


def _entry(folder: PictureFolder, entry: str, described: dict):
    """Pictures of a split: a set from a list, or what their paths start with.

    Roboflow writes ``../train/images`` for a folder beside data.yaml.
    """
    base, entry = os.path.dirname(described['file']), entry.replace('\\', '/')
    for start in (os.path.join(base, str(described.get('path') or '')), base,
                  ''):
        for name in (entry, re.sub(r'^(\.\./)+', '', entry)):
            full = folder.root / start / name
            if full.is_dir():
                inner = os.path.relpath(full.absolute(),
                                        folder.root.absolute())
                return '' if inner == '.' else inner + '/'
            if full.is_file():
                return {folder.find(line.strip(), os.path.join(start, name))
                        for line in folder.read(full).splitlines()}
    return None


# ----------------------------------------------------------------------------
# A label file for each picture


def _label_files(folder: PictureFolder, kind: str, load, named):
    """The label files of a kind, and whose they are.

    Args:
        folder (PictureFolder): Where they are.
        kind (str): 'XML' or 'JSON'.
        load (Callable): Makes of a text what it holds; None where the file is
            of another kind.
        named (Callable): Gives the picture's name that it holds, or nothing.

    Yields:
        tuple: File, content, picture, and its (width, height).
    """
    for name in folder.with_suffix(f'.{kind.lower()}'):
        try:
            content = load(folder.read(name))
        except (ValueError, ET.ParseError):
            folder.leave_out(f'file unreadable as {kind}', name)
            continue
        if content is None:
            continue
        stem = os.path.splitext(os.path.basename(name))[0]
        picture = folder.find(str(named(content) or stem),
                              name) or folder.find(stem, name)
        if picture is None:
            folder.leave_out('label file without its picture', name)
        elif size := folder.size(picture):
            yield name, content, picture, size


def _result(samples: dict):
    """What a reader gives, the classes by name."""
    names = {item['category'] for found in samples.values()
             for _, _, items in found for item in items}
    return (samples, sorted(names)) if samples else None


def read_voc(folder: PictureFolder):
    """Pascal VOC: boxes; what is difficult counts neither for nor against."""
    splits, samples = {}, defaultdict(list)
    for name in folder.with_suffix('.txt'):
        stem = os.path.splitext(os.path.basename(name))[0]
        if 'ImageSets/' in name and stem in ('train', 'val', 'test'):
            for line in folder.read(name).splitlines():
                splits.setdefault(os.path.basename(line.strip()), stem)

    def load(text):
        tree = ET.fromstring(text)
        return tree if tree.tag == 'annotation' else None

    for name, tree, picture, size in _label_files(
            folder, 'XML', load, lambda tree: tree.findtext('filename')):
        found = [_voc_object(item, *size) for item in tree.iter('object')]
        if None in found:
            folder.leave_out('object without a name or a box', name)
        stem = os.path.splitext(os.path.basename(name))[0]
        split = splits.get(stem, '') if splits else (
            split_of(name) or split_of(picture))
        samples[split].append((picture, size, [*filter(None, found)]))
    return _result(samples)


def _voc_object(item: ET.Element, width: int, height: int) -> dict | None:
    name = (item.findtext('name') or '').strip()
    try:
        x1, y1, x2, y2 = (float(item.findtext(f'bndbox/{side}')) - 1
                          for side in ('xmin', 'ymin', 'xmax', 'ymax'))
    except (TypeError, ValueError):
        return None
    if not name or not all(map(math.isfinite, (x1, y1, x2, y2))):
        return None
    # Pixels are counted from 1; tools that count from 0 write 0.
    x1, y1 = max(x1, 0), max(y1, 0)
    x2, y2 = min(x2, width), min(y2, height)
    difficult = (item.findtext('difficult') or '0').strip() == '1'
    return dict(category=name, bbox=[x1, y1, x2 - x1, y2 - y1],
                iscrowd=int(difficult))


def read_labelme(folder: PictureFolder):
    """labelme: polygons, rectangles, circles; a group is one object."""

    def load(text):
        data = json.loads(text)
        return data if isinstance(data, dict) and isinstance(
            data.get('shapes'), list) else None

    samples = defaultdict(list)
    for name, data, picture, size in _label_files(
            folder, 'JSON', load, lambda data: data.get('imagePath')):
        groups = defaultdict(list)
        for i, shape in enumerate(data['shapes']):
            outlines = _shape(shape)
            if outlines:
                group = shape.get('group_id')
                groups[str(shape['label']),
                       i if group is None else f'g{group}'].append(
                           (outlines, shape.get('shape_type')))
            else:
                kind = shape.get('shape_type') if isinstance(
                    shape, dict) else shape
                folder.leave_out('shape without an area or a label',
                                 f'{name}: {kind}')
        items = []
        for (label, _), found in groups.items():
            items.append(_polygon(label, *(o for outlines, _ in found
                                           for o in outlines)))
            if all(kind == 'rectangle' for _, kind in found):
                del items[-1]['segmentation']
        samples[split_of(name) or split_of(picture)].append(
            (picture, size, items))
    return _result(samples)


def _shape(shape) -> list[list[float]]:
    """Outlines of a shape; none if it has no area."""
    try:
        kind = shape.get('shape_type') or 'polygon'
        points = [(float(x), float(y)) for x, y in shape['points']]
        shape['label']
        if kind == 'mask':  # of its box, as a picture
            data = np.frombuffer(base64.b64decode(shape['mask']), np.uint8)
            mask = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
            return [(contour[:, 0] + points[0]).ravel().tolist()
                    for contour in cv2.findContours(
                        (mask > 0).astype(np.uint8), cv2.RETR_EXTERNAL,
                        cv2.CHAIN_APPROX_SIMPLE)[0] if len(contour) > 2]
    # cv2.error, binascii.Error, and whatever is not as labelme writes it
    except (AttributeError, KeyError, TypeError, ValueError, cv2.error):
        return []
    if kind == 'rectangle' and len(points) == 2:
        (x1, y1), (x2, y2) = points
        points = [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]
    elif kind == 'circle' and len(points) == 2:
        (x, y), radius = points[0], math.dist(*points)
        points = [(x + radius * math.cos(a * math.pi / 16),
                   y + radius * math.sin(a * math.pi / 16))
                  for a in range(32)]
    elif kind not in ('polygon', 'rectangle', 'rotation'):
        return []
    return [[v for xy in points for v in xy]] if len(points) > 2 else []

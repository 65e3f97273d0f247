# Copyright (c) mmfishnet authors. All rights reserved.
"""Data sets of drawn shapes, for detection and for classification."""
from __future__ import annotations

import json
import math
import operator
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask
from rich.progress import track

from mmfishnet.words import first_few

from .scenes import CLASSES, Scene, draw_scene

# Part of what is compared when a folder holds a set already: to be raised
# whenever the same parameters would no longer give the same bytes.
VERSION = 2
META = 'shapes.json'
SPLITS = ('train', 'val')
# The files of a set, which may go when it is replaced.
DRAWN = re.compile(r'shapes\.json|annotations/instances_\w+2017\.json|'
                   r'(semantic/)?\w+2017/\d{12}\.\w+|\w+/\w+/\d{6}\.png')
# Those that Mask R-CNN learns within minutes on two CPU cores.
DETECTION_CLASSES = ('ring', 'square', 'triangle', 'star', 'cross', 'heart')


def draw_coco(out_dir: str | os.PathLike, train: int = 2400, val: int = 200,
              size: int = 192, seed: int = 0, max_objects: int = 3,
              classes: Sequence[str] = DETECTION_CLASSES, clutter: float = 0.3,
              overwrite: bool = False,
              progress: bool = False) -> bool:
    """Draw an instance segmentation set in the layout of COCO 2017.

    It writes ``annotations/instances_{train,val}2017.json``,
    ``{train,val}2017/*.jpg``, ``semantic/{train,val}2017/*.png`` and
    ``shapes.json``, which holds the parameters. ``CocoDataset`` reads it with
    ``metainfo=dict(classes=classes)``.

    The PNG files are semantic maps, see :func:`semantic_map`. MMSegmentation's
    ``BaseSegDataset`` reads them with
    ``metainfo=dict(classes=('background', *classes))``.

    Every object in an image is annotated by its visible part: masks do not
    overlap. They are as :func:`encode_mask` writes them, with ``iscrowd=0``;
    ``LoadAnnotations(poly2mask=False)`` would ignore those with holes.

    The same arguments give the same bytes (with the same versions of NumPy,
    OpenCV and pycocotools), and each image depends on its index and on all
    arguments but ``train`` and ``val``: a larger set begins with the images
    of a smaller one.

    Args:
        out_dir (str | os.PathLike): Folder to draw to, which appears when
            the set is whole; until then it is drawn in ``out_dir.part``. If
            it holds the same set already, nothing is done.
        train (int): Number of training images, 1 or more. Defaults to 2400.
        val (int): Number of validation images, 1 or more. Defaults to 200.
        size (int): Height and width of the images in pixels, 64 or more.
            Defaults to 192. The objects' circumscribed circles are 25 % to
            95 % of it across.
        seed (int): 0 or more. Defaults to 0.
        max_objects (int): Images hold 1 to this many objects, 1 to 50.
            Defaults to 3.
        classes (Sequence[str]): The classes to draw, of ``CLASSES``.
            Defaults to ``DETECTION_CLASSES``, six of them.
        clutter (float): From 0 for plain objects on a plain background to 1
            for strong textures, patches and strokes. Defaults to 0.3.
        overwrite (bool): Whether to replace a set that was drawn with other
            parameters. Files that were not drawn by this module are never
            deleted. Defaults to False.
        progress (bool): Whether to show a progress bar. Defaults to False.

    Returns:
        bool: Whether the set was drawn; False if it was there already.

    Raises:
        ValueError: If an argument is out of its range.
        FileExistsError: If the folder holds anything else; with ``overwrite``,
            if anything that was not drawn by this module.
    """
    params = dict(task='coco', version=VERSION,
                  train=_integer('train', train, 1),
                  val=_integer('val', val, 1), size=_integer('size', size, 64),
                  seed=_integer('seed', seed, 0),
                  max_objects=_integer('max_objects', max_objects, 1, 50),
                  classes=_classes(classes),
                  clutter=_fraction('clutter', clutter))
    wanted = params['classes']
    labels = [CLASSES.index(name) for name in wanted]
    info = dict(description='Shapes drawn by mmfishnet', **params)
    with _whole_set(out_dir, params, overwrite) as folder:
        for split in SPLITS if folder else ():
            images, annotations = [], []
            for rng, picture, label_map in _draws(
                    folder, params, split, progress):
                scene = draw_scene(
                    rng,
                    rng.choice(labels, rng.integers(1, max_objects + 1)),
                    params['size'], (0.25, 0.95), params['clutter'])
                _write(picture, _image('.jpg', scene.image,
                                       [cv2.IMWRITE_JPEG_QUALITY, 95]))
                _write(label_map, _image('.png', semantic_map(scene, wanted)))
                images.append(dict(
                    id=len(images) + 1, file_name=picture.name,
                    width=params['size'], height=params['size']))
                for label, mask in zip(scene.labels, scene.masks):
                    annotations.append(dict(
                        id=len(annotations) + 1, image_id=len(images),
                        category_id=wanted.index(CLASSES[label]) + 1,
                        iscrowd=0, **encode_mask(mask)))
            categories = [dict(id=i + 1, name=name, supercategory='shape')
                          for i, name in enumerate(wanted)]
            _write(folder / f'annotations/instances_{split}2017.json', _json(
                dict(info=info, licenses=[], images=images,
                     annotations=annotations, categories=categories)))
    return folder is not None


def draw_classification(out_dir: str | os.PathLike, train: int = 7200,
                        val: int = 480, size: int = 64, seed: int = 0,
                        clutter: float = 0.3, overwrite: bool = False,
                        progress: bool = False) -> bool:
    """Draw a classification set: one object per image, all classes equally.

    It writes ``{train,val}/<class>/*.png``, the layout of MMPretrain's
    ``CustomDataset`` (which numbers the classes as ``CLASSES`` does), and
    ``shapes.json``, which holds the parameters. Objects are 50 % to
    95 % of the image across; everything else is as in :func:`draw_coco`.

    Args:
        out_dir, seed, clutter, overwrite, progress: See :func:`draw_coco`.
        train (int): Number of training images of all classes together, 12 or
            more. Defaults to 7200.
        val (int): Number of validation images, likewise. Defaults to 480.
        size (int): Height and width of the images in pixels, 32 or more.
            Defaults to 64.

    Returns:
        bool: As :func:`draw_coco`, which raises the same.
    """
    params = dict(task='cls', version=VERSION,
                  train=_integer('train', train, len(CLASSES)),
                  val=_integer('val', val, len(CLASSES)),
                  size=_integer('size', size, 32),
                  seed=_integer('seed', seed, 0),
                  clutter=_fraction('clutter', clutter))
    with _whole_set(out_dir, params, overwrite) as folder:
        for split in SPLITS if folder else ():
            for i, (rng, path) in enumerate(
                    _draws(folder, params, split, progress)):
                scene = draw_scene(rng, [i % len(CLASSES)], params['size'],
                                   (0.5, 0.95), params['clutter'])
                _write(path, _image('.png', scene.image))
    return folder is not None


def encode_mask(mask: np.ndarray) -> dict:
    """A mask as COCO's ``segmentation``, ``area`` and ``bbox``.

    Args:
        mask (np.ndarray): bool or uint8 (H, W), not empty.

    Returns:
        dict: ``segmentation`` is a list of polygons that run along the edges
        of the pixels, so that pycocotools gives back the same mask; or
        pycocotools' RLE if the mask has a hole. ``area`` is in pixels,
        ``bbox`` is (x, y, w, h).
    """
    rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    # cv2's contours join the centres of the outermost pixels. With each pixel
    # split in 2 x 2, these centres round to the corners of the pixels.
    doubled = np.kron(mask, np.ones((2, 2))).astype(np.uint8)
    contours, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP,
                                           cv2.CHAIN_APPROX_SIMPLE)
    if (hierarchy[0, :, 3] >= 0).any():  # a contour within another is a hole
        segmentation = dict(rle, counts=rle['counts'].decode())
    else:
        segmentation = []
        for contour in contours:
            corners = (contour[:, 0] + 1) // 2
            same = (corners == np.roll(corners, 1, axis=0)).all(axis=1)
            segmentation.append(corners[~same].ravel().tolist())
    return dict(segmentation=segmentation, area=int(coco_mask.area(rle)),
                bbox=coco_mask.toBbox(rle).tolist())


def semantic_map(scene: Scene, classes: Sequence[str]) -> np.ndarray:
    """The class that each pixel of a scene shows.

    Returns:
        np.ndarray: uint8 (H, W): 0 is the background, i the i-th of
        ``classes``, counted from 1.
    """
    numbers = [0, *(classes.index(CLASSES[i]) + 1 for i in scene.labels)]
    return np.array(numbers, np.uint8)[scene.owner]


def _integer(name: str, value: int, low: int, high: float = math.inf) -> int:
    allowed = f'{low} or more' if high == math.inf else f'{low} to {high}'
    if not hasattr(value, '__index__') or not low <= value <= high:
        raise ValueError(
            f'{name} must be an integer, {allowed}, but got {value!r}.')
    return operator.index(value)


def _fraction(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f'{name} must be from 0 to 1, but got {value!r}.')
    return float(value)


def _classes(classes: Sequence[str]) -> list[str]:
    classes = list(classes)
    unknown = [name for name in classes if name not in CLASSES]
    if unknown or not classes or len(set(classes)) < len(classes):
        raise ValueError(f'classes must be one or more of {CLASSES}, each '
                         f'once, but got {classes}.')
    return classes


# ----------------------------------------------------------------------------
# The folder


def _draws(folder: Path, params: dict, split: str,
           progress: bool) -> Iterator[tuple]:
    """For each image of a split its source of randomness and its files."""
    start = params['seed'], int(params['task'] == 'cls'), SPLITS.index(split)
    for index in track(range(params[split]), f'Drawing {split}',
                       disable=not progress):
        yield (np.random.default_rng([*start, index]),
               *(folder / name for name in _image_files(params, split, index)))


def _image_files(params: dict, split: str, index: int) -> list[str]:
    """A picture and, for detection, its map."""
    if params['task'] == 'cls':
        return [f'{split}/{CLASSES[index % len(CLASSES)]}/{index:06d}.png']
    name = f'{split}2017/{index + 1:012d}'
    return [f'{name}.jpg', f'semantic/{name}.png']


@contextmanager
def _whole_set(out_dir: str | os.PathLike, params: dict,
               overwrite: bool) -> Iterator[Path | None]:
    """A folder to draw in, which takes its name when the block has ended.

    Yields:
        Path | None: None if the set is there already.
    """
    out_dir = Path(os.path.realpath(out_dir))
    if _is_drawn(out_dir, params, overwrite):
        yield None
        return
    part = out_dir.with_name(out_dir.name + '.part')
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
    _write(part / META, _json(params))
    yield part
    shutil.rmtree(out_dir, ignore_errors=True)
    part.rename(out_dir)


def _is_drawn(out_dir: Path, params: dict, overwrite: bool) -> bool:
    """Whether a set is there; raises if what is there may not go."""
    if not out_dir.exists():
        return False
    if not out_dir.is_dir():
        raise FileExistsError(f'{out_dir} is a file; give a folder.')
    try:
        old = dict(json.loads((out_dir / META).read_text()))
    except (OSError, ValueError, TypeError):
        old = {}
    if old == params:
        return True
    if 'task' in old and not overwrite:
        changes = ', '.join(f'{key} is {old.get(key)!r} and not '
                            f'{params.get(key)!r}' for key in {**old, **params}
                            if old.get(key) != params.get(key))
        raise FileExistsError(
            f'{out_dir} holds shapes drawn with other parameters: {changes}. '
            'Choose another folder, or pass overwrite=True (--overwrite) to '
            'replace them.')
    found = sorted(path.relative_to(out_dir).as_posix()
                   for path in out_dir.rglob('*') if not path.is_dir())
    foreign = [name for name in found
               if 'task' not in old or not DRAWN.fullmatch(name)]
    if foreign:
        raise FileExistsError(
            f'{out_dir} is not empty: {first_few(foreign)} was not '
            'drawn by mmfishnet and is not deleted. Choose another folder, or '
            'move it away.')
    return False


def _json(content: dict) -> bytes:
    return f'{json.dumps(content, separators=(",", ":"))}\n'.encode()


def _image(suffix: str, image: np.ndarray, options: tuple = ()) -> bytes:
    return cv2.imencode(suffix, image, options)[1].tobytes()


def _write(path: Path, content: bytes) -> None:
    # Not cv2.imwrite, which reports a full disk by its return value alone.
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)

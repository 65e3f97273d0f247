# Copyright (c) mmfishnet authors. All rights reserved.
"""Data sets of drawn shapes, for detection and for classification."""
from __future__ import annotations

import json
import operator
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask
from rich.progress import track

from .scenes import CLASSES, Scene, draw_scene

# Part of what is compared when a folder holds a set already: to be raised
# whenever the same parameters would no longer give the same bytes.
VERSION = 2
META = 'shapes.json'
UNFINISHED = META + '.partial'
SPLITS = ('train', 'val')
# Those that Mask R-CNN learns within minutes on two CPU cores.
DETECTION_CLASSES = ('ring', 'square', 'triangle', 'star', 'cross', 'heart')


def draw_coco(out_dir: str | os.PathLike,
              train: int = 2400,
              val: int = 200,
              size: int = 192,
              seed: int = 0,
              max_objects: int = 3,
              classes: Sequence[str] = DETECTION_CLASSES,
              clutter: float = 0.3,
              overwrite: bool = False,
              progress: bool = False) -> bool:
    """Draw an instance segmentation set in the layout of COCO 2017.

    It writes ``annotations/instances_{train,val}2017.json``,
    ``{train,val}2017/*.jpg``, ``semantic/{train,val}2017/*.png`` and, last,
    ``shapes.json``, which holds the parameters. ``CocoDataset`` reads it with
    ``metainfo=dict(classes=classes)``.

    The PNG files are semantic maps, uint8 (size, size): 0 is the background,
    i the i-th of ``classes``, counted from 1. MMSegmentation's
    ``BaseSegDataset`` reads them with
    ``metainfo=dict(classes=('background', *classes))``.

    Every object in an image is annotated. Its mask is its visible part: masks
    do not overlap. Masks without holes are polygons, which run along the
    edges of pixels and are exact; those with holes are RLE (with
    ``iscrowd=0``). ``LoadAnnotations`` takes both with its default
    ``poly2mask=True``, and ignores RLE with ``poly2mask=False``.

    The same arguments give the same bytes (with the same versions of NumPy,
    OpenCV and pycocotools), and each image depends on ``size``, ``seed``,
    ``max_objects``, ``classes``, ``clutter`` and its own index only: a larger
    set begins with the images of a smaller one.

    Args:
        out_dir (str | os.PathLike): Folder to draw to, made if missing. If it
            holds the same set already, nothing is done. A set that was left
            unfinished is drawn anew.
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
            parameters, and to draw into a folder that holds other things.
            Files that were not drawn by this module are never replaced or
            deleted. Defaults to False.
        progress (bool): Whether to show a progress bar. Defaults to False.

    Returns:
        bool: Whether the set was drawn; False if it was there already.

    Raises:
        ValueError: If an argument is out of its range.
        FileExistsError: If the folder holds anything else; with ``overwrite``,
            if a file in the way was not drawn by this module.
    """
    params = dict(
        task='coco',
        version=VERSION,
        train=_integer('train', train, 1),
        val=_integer('val', val, 1),
        size=_integer('size', size, 64),
        seed=_integer('seed', seed, 0),
        max_objects=_integer('max_objects', max_objects, 1, 50),
        classes=_classes(classes),
        clutter=_fraction('clutter', clutter))
    out_dir = Path(out_dir)
    if not _begin(out_dir, params, overwrite):
        return False
    wanted = params['classes']
    for split in SPLITS:
        images, annotations = [], []
        for index in track(
                range(params[split]),
                f'Drawing {split}',
                disable=not progress):
            scene = _coco_scene(params, split, index)
            path = out_dir / _image_file(params, split, index)
            _write_image(path, scene.image, [cv2.IMWRITE_JPEG_QUALITY, 95])
            image_id = index + 1
            images.append(
                dict(
                    id=image_id,
                    file_name=path.name,
                    width=params['size'],
                    height=params['size']))
            for label, mask in zip(scene.labels, scene.masks):
                annotations.append(
                    dict(
                        id=len(annotations) + 1,
                        image_id=image_id,
                        category_id=wanted.index(CLASSES[label]) + 1,
                        iscrowd=0,
                        **encode_mask(mask)))
            _write_image(out_dir / _map_file(split, index),
                         semantic_map(scene, wanted))
        _write_json(
            out_dir / _annotation_file(split),
            dict(
                info=dict(description='Shapes drawn by mmfishnet', **params),
                licenses=[],
                images=images,
                annotations=annotations,
                categories=[
                    dict(id=i + 1, name=name, supercategory='shape')
                    for i, name in enumerate(wanted)
                ]))
    _finish(out_dir)
    return True


def draw_classification(out_dir: str | os.PathLike,
                        train: int = 7200,
                        val: int = 480,
                        size: int = 64,
                        seed: int = 0,
                        clutter: float = 0.3,
                        overwrite: bool = False,
                        progress: bool = False) -> bool:
    """Draw a classification set: one object per image, all classes equally.

    It writes ``{train,val}/<class>/*.png``, the layout of MMPretrain's
    ``CustomDataset`` (which numbers the classes as ``CLASSES`` does), and,
    last, ``shapes.json``, which holds the parameters. Objects are 50 % to
    95 % of the image across; everything else is as in :func:`draw_coco`.

    Args:
        out_dir (str | os.PathLike): See :func:`draw_coco`.
        train (int): Number of training images of all classes together, 12 or
            more. Defaults to 7200.
        val (int): Number of validation images, likewise. Defaults to 480.
        size (int): Height and width of the images in pixels, 32 or more.
            Defaults to 64.
        seed (int): 0 or more. Defaults to 0.
        clutter (float): See :func:`draw_coco`. Defaults to 0.3.
        overwrite (bool): See :func:`draw_coco`. Defaults to False.
        progress (bool): Whether to show a progress bar. Defaults to False.

    Returns:
        bool: Whether the set was drawn; False if it was there already.

    Raises:
        ValueError: If an argument is out of its range.
        FileExistsError: See :func:`draw_coco`.
    """
    params = dict(
        task='cls',
        version=VERSION,
        train=_integer('train', train, len(CLASSES)),
        val=_integer('val', val, len(CLASSES)),
        size=_integer('size', size, 32),
        seed=_integer('seed', seed, 0),
        clutter=_fraction('clutter', clutter))
    out_dir = Path(out_dir)
    if not _begin(out_dir, params, overwrite):
        return False
    for split in SPLITS:
        for index in track(
                range(params[split]),
                f'Drawing {split}',
                disable=not progress):
            scene = draw_scene(
                _rng(params, split, index), [index % len(CLASSES)],
                params['size'],
                diameters=(0.5, 0.95),
                clutter=params['clutter'])
            _write_image(out_dir / _image_file(params, split, index),
                         scene.image)
    _finish(out_dir)
    return True


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
    return dict(
        segmentation=segmentation,
        area=int(coco_mask.area(rle)),
        bbox=coco_mask.toBbox(rle).tolist())


def semantic_map(scene: Scene, classes: Sequence[str]) -> np.ndarray:
    """The class that each pixel shows.

    Args:
        scene (Scene): A picture and what is in it.
        classes (Sequence[str]): The classes in the order of their numbers.

    Returns:
        np.ndarray: uint8 (H, W): 0 is the background, i the i-th of
        ``classes``, counted from 1.
    """
    numbers = [0, *(classes.index(CLASSES[i]) + 1 for i in scene.labels)]
    return np.array(numbers, np.uint8)[scene.owner]


def _integer(name: str,
             value: int,
             low: int,
             high: int | None = None) -> int:
    allowed = f'{low} or more' if high is None else f'{low} to {high}'
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or number < low or (high is not None and number > high):
        raise ValueError(
            f'{name} must be an integer, {allowed}, but got {value!r}.')
    return number


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


def _rng(params: dict, split: str, index: int) -> np.random.Generator:
    task = ('coco', 'cls').index(params['task'])
    return np.random.default_rng(
        [params['seed'], task, SPLITS.index(split), index])


def _coco_scene(params: dict, split: str, index: int) -> Scene:
    rng = _rng(params, split, index)
    labels = [CLASSES.index(name) for name in params['classes']]
    labels = rng.choice(labels, rng.integers(1, params['max_objects'] + 1))
    return draw_scene(rng, labels, params['size'],
                      diameters=(0.25, 0.95), clutter=params['clutter'])


# ----------------------------------------------------------------------------
# The folder. While a set is drawn, its parameters lie in shapes.json.partial;
# at the end this file is renamed, so that shapes.json means a whole set.


def _annotation_file(split: str) -> str:
    return f'annotations/instances_{split}2017.json'


def _image_file(params: dict, split: str, index: int) -> str:
    if params['task'] == 'coco':
        return f'{split}2017/{index + 1:012d}.jpg'
    return f'{split}/{CLASSES[index % len(CLASSES)]}/{index:06d}.png'


def _map_file(split: str, index: int) -> str:
    return f'semantic/{split}2017/{index + 1:012d}.png'


def _files(params: dict) -> Iterator[str]:
    """All files of a set, relative to its folder."""
    for split in SPLITS:
        if params['task'] == 'coco':
            yield _annotation_file(split)
        for index in range(params[split]):
            yield _image_file(params, split, index)
            if params['task'] == 'coco':
                yield _map_file(split, index)


def _read_params(path: Path) -> dict | None:
    """The parameters in a file, or None if it is missing or not ours."""
    try:
        params = json.loads(path.read_text())
        list(_files(params))
    except (OSError, ValueError, TypeError, LookupError):
        return None
    return params


def _begin(out_dir: Path, params: dict, overwrite: bool) -> bool:
    """Make the folder ready to be drawn to.

    Returns:
        bool: Whether there is anything to draw.
    """
    if out_dir.exists() and not out_dir.is_dir():
        raise FileExistsError(f'{out_dir} is a file; give a folder.')
    out_dir.mkdir(parents=True, exist_ok=True)
    meta, unfinished = out_dir / META, out_dir / UNFINISHED
    advice = 'Choose another folder, or pass overwrite=True (--overwrite)'

    old = _read_params(meta)
    finished = old is not None
    if finished:
        if old != params and not overwrite:
            changes = ', '.join(
                f'{key} is {old.get(key)!r} and not {params.get(key)!r}'
                for key in {**old, **params}
                if old.get(key) != params.get(key))
            raise FileExistsError(
                f'{out_dir} holds shapes drawn with other parameters: '
                f'{changes}. {advice} to replace them.')
        if old == params and all(
            (out_dir / name).exists() for name in _files(params)):
            return False
    elif unfinished.exists():
        # Nothing is drawn before this file is whole.
        old = _read_params(unfinished)
    elif any(out_dir.iterdir()) and not overwrite:
        raise FileExistsError(
            f'{out_dir} is not empty, and what it holds was not drawn by '
            f'mmfishnet. {advice} to draw beside it.')

    ours = set() if old is None else set(_files(old))
    for name in (META, *_files(params)):
        if name in ours or (name == META and finished):
            continue
        if (out_dir / name).exists():
            raise FileExistsError(
                f'{out_dir / name} was not drawn by mmfishnet and is not '
                'replaced. Choose another folder, or move it away.')
    if finished:
        meta.replace(unfinished)
    for name in ours:
        (out_dir / name).unlink(missing_ok=True)
    for folder in {(out_dir / name).parent for name in ours}:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    _write_json(unfinished, params)
    for name in _files(params):
        (out_dir / name).parent.mkdir(parents=True, exist_ok=True)
    return True


def _finish(out_dir: Path) -> None:
    (out_dir / UNFINISHED).replace(out_dir / META)


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, separators=(',', ':')) + '\n')


def _write_image(path: Path, image: np.ndarray, options: tuple = ()) -> None:
    # Not cv2.imwrite, which reports a full disk by its return value alone.
    path.write_bytes(cv2.imencode(path.suffix, image, options)[1].tobytes())

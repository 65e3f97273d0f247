# Copyright (c) mmfishnet authors. All rights reserved.
"""Settings of a detector that a data set in COCO's format can tell itself."""
from __future__ import annotations

import math
import os
from collections import Counter
from dataclasses import dataclass

import mmengine
import numpy as np

# RPN's anchors at stride 4 have sides of `scale` * 4, and each further level
# of the neck twice as much.
FINEST_STRIDE = 4
# Images that a training from scratch sees in all: as many for few images as
# for many, so that an epoch of few is short and there are more of them.
SEEN = 3600
BATCH_SIZE = 4
LR_OF_BATCH = 2.4e-3
MAX_SIDE = 512


@dataclass(frozen=True)
class Measured:
    """What a data set says of itself.

    Attributes:
        classes (tuple[str]): In the order of the category ids.
        num_images (int): Images with objects.
        side (int): Longer side of large images in pixels (the 95th
            percentile), at most 512, a multiple of 32.
        anchor_scale (float): Side of the finest anchors in strides.
        objects (int): Objects of a crowded image (the 90th percentile).
        epochs (int): So that 3600 images are seen, from 8 to 100.
        lr (float): For four images a step, less for fewer steps in all.
        warmup (int): Iterations of the warm-up.
    """
    classes: tuple[str, ...]
    num_images: int
    side: int
    anchor_scale: float
    objects: int
    epochs: int
    lr: float
    warmup: int


def measure(ann_file: str | os.PathLike) -> Measured:
    """Read settings off an annotation file.

    Args:
        ann_file (str | os.PathLike): Instances in COCO's format, those that
            are trained on.

    Returns:
        Measured: The settings.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no images, categories or objects with boxes,
            or no outlines.
    """
    if not os.path.isfile(ann_file):
        raise FileNotFoundError(
            f'there is no annotation file {ann_file} (looked for '
            f'{os.path.abspath(ann_file)}). Its name in the folder is an '
            'argument: --train, --val.')
    data = mmengine.load(ann_file, file_format='json')
    for key in ('images', 'annotations', 'categories'):
        if not isinstance(data, dict) or not data.get(key):
            raise ValueError(f'{ann_file} has no {key}; it should hold '
                             "instances in COCO's format.")
    boxes = [(ann['image_id'], ann['bbox']) for ann in data['annotations']
             if not ann.get('iscrowd') and min(ann['bbox'][2:]) > 0]
    if not boxes:
        raise ValueError(f'{ann_file} has no object with a box of some size.')
    if not any(ann.get('segmentation') for ann in data['annotations']):
        raise ValueError(
            f'{ann_file} has boxes and no outlines (segmentation), from which '
            'Mask R-CNN learns; docs/projects.md has the config of a Faster '
            'R-CNN, which does without.')

    sides = [max(image['width'], image['height']) for image in data['images']]
    # No picture loses pixels but for a few odd ones, and those that are huge.
    side = min(MAX_SIDE, 32 * math.ceil(np.percentile(sides, 95) / 32))
    # As the network sees them: images are resized to that side.
    shrink = {
        image['id']: side / max(image['width'], image['height'])
        for image in data['images']
    }
    extents = [
        math.sqrt(w * h) * shrink[image_id] for image_id, (_, _, w, h) in boxes
    ]
    # The second of five anchor sizes at the median: one for smaller objects,
    # three for larger ones. Below 2 strides an anchor is hardly there.
    scale = np.median(extents) / 2 / FINEST_STRIDE
    scale = float(np.clip(round(2 * scale) / 2, 2, 8))
    counts = Counter(image_id for image_id, _ in boxes)
    epochs = int(np.clip(round(SEEN / len(counts)), 8, 100))
    steps = epochs * math.ceil(len(counts) / BATCH_SIZE)
    return Measured(
        classes=tuple(
            cat['name']
            for cat in sorted(data['categories'], key=lambda cat: cat['id'])),
        num_images=len(counts),
        side=side,
        anchor_scale=scale,
        objects=int(np.ceil(np.percentile(list(counts.values()), 90))),
        epochs=epochs,
        # Few steps allow no high rate: the warm-up alone would eat them.
        lr=LR_OF_BATCH * min(1., math.sqrt(steps * BATCH_SIZE / SEEN)),
        warmup=min(200, max(20, steps // 20)))

# Copyright (c) mmfishnet authors. All rights reserved.
"""Settings of a training from scratch that a data set can tell itself."""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from mmengine.dataset import BaseDataset

# RPN's anchors at stride 4 have sides of `scale` * 4, and each further level
# of the neck twice as much.
FINEST_STRIDE = 4
# Images that a training from scratch sees in all: as many for few images as
# for many, so that an epoch of few is short and there are more of them.
SEEN = 3600
LR = 2.4e-3


@dataclass(frozen=True)
class Recipe:
    """How long, how large and how fast to train.

    Attributes:
        side (int): Longer side of the images in pixels, a multiple of 32.
        epochs (int): So that 3600 images are seen, from 8 to 100.
        val_interval (int): Epochs from one validation to the next.
        patience (int): Validations without gain after which to stop; 0 where
            there are too few of them to judge by.
        lr (float): Less for fewer steps in all.
        warmup (int): Iterations of the warm-up.
    """
    side: int
    epochs: int
    val_interval: int
    patience: int
    lr: float
    warmup: int


def choose_recipe(sides: Sequence[float], batch_size: int,
                  images: int | None = None, seen: int = SEEN,
                  max_side: int = 512) -> Recipe:
    """Choose by the number of images and by their size.

    Args:
        sides (Sequence[float]): The longer side of each image in pixels, or
            of some of them.
        batch_size (int): Images in a step.
        images (int, optional): How many there are. Defaults to those of
            ``sides``.
        seen (int): Images that are seen in all. Defaults to 3600.
        max_side (int): Bound of ``side``. Defaults to 512.

    Returns:
        Recipe: The settings.
    """
    images = images or len(sides)
    epochs = int(np.clip(round(seen / images), 8, 100))
    steps = epochs * math.ceil(images / batch_size)
    # No picture loses pixels but for a few odd ones, and those that are huge.
    side = 32 * math.ceil(np.percentile(sides, 95) / 32)
    few = epochs >= 20
    return Recipe(
        side=min(max_side, side), epochs=epochs,
        val_interval=max(1, epochs // (10 if few else 3)),
        patience=4 if few else 0,
        # Few steps allow no high rate: the warm-up alone would eat them.
        lr=LR * min(1., math.sqrt(steps * batch_size / seen)),
        warmup=min(200, max(20, steps // 20)))


@dataclass(frozen=True)
class Objects:
    """What the objects of a data set say of a detector.

    Attributes:
        anchor_scale (float): Side of the finest anchors in strides.
        crowd (int): Objects of a crowded image (the 90th percentile of those
            with objects).
    """
    anchor_scale: float
    crowd: int


def measure_objects(dataset: BaseDataset, side: int) -> Objects:
    """Measure the boxes that a built data set trains on.

    Args:
        dataset (BaseDataset): Of MMDetection, as ``CocoDataset``.
        side (int): Longer side that images are resized to.

    Returns:
        Objects: The measures.

    Raises:
        ValueError: If there is no object.
    """
    extents, counts = [], []
    for info in map(dataset.get_data_info, range(len(dataset))):
        shrink = side / max(info['width'], info['height'])
        boxes = np.array([item['bbox'] for item in info['instances']
                          if not item['ignore_flag']]).reshape(-1, 4)
        sizes = boxes[:, 2:] - boxes[:, :2]
        extents += (np.sqrt(sizes.prod(axis=1)) * shrink).tolist()
        counts += [len(boxes)] if len(boxes) else []
    if not counts:
        raise ValueError('the training images hold no object.')
    # The second of five anchor sizes at the median: one for smaller objects,
    # three for larger ones. Below 2 strides an anchor is hardly there.
    scale = np.median(extents) / 2 / FINEST_STRIDE
    return Objects(anchor_scale=float(np.clip(round(2 * scale) / 2, 2, 8)),
                   crowd=int(np.ceil(np.percentile(counts, 90))))

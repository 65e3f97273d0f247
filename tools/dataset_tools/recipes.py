# Copyright (c) mmfishnet authors. All rights reserved.
"""Settings of a small FishNet's training that a data set can tell itself."""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# RPN's anchors at stride 4 have sides of `scale` * 4, and each further level
# of the neck twice as much.
FINEST_STRIDE = 4
# Images that a training from scratch sees in all: as many for few images as
# for many, so that an epoch of few is short and there are more of them.
SEEN = 3600
LR = 2.4e-3


class Recipe(NamedTuple):
    """How long, how large and how fast to train."""

    side: int  # longer side of the images in pixels, a multiple of 32
    seen: int  # images in all
    epochs: int  # so that they are seen, from 8 to 100
    val_interval: int  # epochs from one validation to the next
    patience: int  # validations without gain that end it; 0: too few to judge
    lr: float  # less for fewer steps in all
    warmup: int  # iterations


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
    """
    images = images or len(sides)
    epochs = int(np.clip(round(seen / images), 8, 100))
    steps = epochs * math.ceil(images / batch_size)
    few = epochs >= 20
    return Recipe(
        # No picture loses pixels but for a few odd ones, and huge ones.
        side=min(max_side, 32 * math.ceil(np.percentile(sides, 95) / 32)),
        seen=seen, epochs=epochs,
        val_interval=max(1, epochs // (10 if few else 3)),
        patience=4 if few else 0,
        # Few steps allow no high rate: the warm-up alone would eat them.
        lr=LR * min(1., math.sqrt(steps * batch_size / seen)),
        warmup=min(200, max(20, steps // 20)))


class Objects(NamedTuple):
    """What the objects of a data set say of a detector."""

    anchor_scale: float  # side of the finest anchors in strides
    crowd: int  # objects of a crowded image, of ten with objects one has more


def measure_objects(samples: Sequence[tuple], side: int) -> Objects:
    """Measure the objects of samples (see :mod:`coco_records`), the pictures
    resized so that ``side`` is the longer side.

    Raises:
        ValueError: If there is no object.
    """
    extents, counts = [], []
    for _, size, items in samples:
        boxes = np.array([item['bbox'] for item in items
                          if not item['iscrowd']]).reshape(-1, 4)
        areas = boxes[:, 2:].prod(axis=1)
        extents += (np.sqrt(areas) * side / max(size)).tolist()
        counts += [len(boxes)] if len(boxes) else []
    if not counts:
        raise ValueError('the training images hold no object.')
    # The second of five anchor sizes at the median: one for smaller objects,
    # three for larger ones. Below 2 strides an anchor is hardly there.
    scale = np.median(extents) / 2 / FINEST_STRIDE
    return Objects(float(np.clip(round(2 * scale) / 2, 2, 8)),
                   int(np.ceil(np.percentile(counts, 90))))

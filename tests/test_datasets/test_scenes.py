# Copyright (c) mmfishnet authors. All rights reserved.
"""What is drawn: objects, their masks and who owns which pixel."""
from collections import Counter

import cv2
import numpy as np
import pytest

from mmfishnet.datasets import CLASSES, scenes
from mmfishnet.datasets.scenes import draw_scene
from mmfishnet.datasets.shapes import encode_mask


def scene(index, num_objects=6, **kwargs):
    rng = np.random.default_rng([7, index])
    labels = np.random.default_rng(index).integers(
        len(CLASSES), size=num_objects)
    return draw_scene(rng, labels, 192, (0.15, 0.95), **kwargs)


def shrink(mask):
    return cv2.erode(mask.astype(np.uint8), np.ones((3, 3))) > 0


def test_masks_cover_what_is_drawn():
    """Nothing outside the masks differs from the bare background, and (nearly)
    everything inside them does."""
    inside = []
    for index in range(15):
        full, bare = scene(index), scene(index, num_objects=0)
        changed = (full.image != bare.image).any(axis=2)
        drawn = full.owner > 0
        # The very ends of tips cover less than half of any pixel.
        near = cv2.dilate(drawn.astype(np.uint8), np.ones((5, 5))) > 0
        assert not bare.owner.any() and drawn.any()
        assert not changed[~near].any()
        inside.append(changed[drawn].mean())
    assert min(inside) > 0.98


def colours_off_plane(image, mask):
    """Spread of a region's colours along their least principal axis."""
    pixels = image[mask].astype(float)
    return np.linalg.svd(
        pixels - pixels.mean(axis=0), compute_uv=False)[-1] / len(pixels)**0.5


def test_objects_in_front_own_their_pixels():
    """The two colours of a texture and the tone of a rim span a plane, so a
    mask with a piece of another object in it has colours off any plane."""
    pure, mixed = [], []
    for index in range(25):
        drawn = scene(index)
        masks = [shrink(mask) for mask in drawn.masks]
        for mask in masks:
            if mask.sum() > 100:
                pure.append(colours_off_plane(drawn.image, mask))
        if len(masks) > 2:
            mixed.append(
                colours_off_plane(drawn.image, np.any(masks[:3], axis=0)))
    assert len(pure) > 80
    assert np.quantile(pure, 0.98) < 12  # the grain alone gives up to 8
    assert np.median(mixed) > 2 * np.quantile(pure, 0.98)


@pytest.mark.parametrize('visible', [0.6, 1.0])
def test_least_visible_fraction(monkeypatch, visible):
    """What squares lose to others and to the border stays within the bound;
    squares that would break it are not drawn."""
    monkeypatch.setattr(scenes, 'MIN_VISIBLE', visible)
    square = CLASSES.index('square')
    fractions = []
    for index in range(10):
        drawn = draw_scene(
            np.random.default_rng(index), [square] * 8, 192, (0.3, 0.6))
        assert len(drawn.labels) <= 8
        for mask in drawn.masks:
            contours = cv2.findContours(
                mask.astype(np.uint8), cv2.RETR_EXTERNAL,
                cv2.CHAIN_APPROX_NONE)[0]
            _, (w, h), _ = cv2.minAreaRect(np.concatenate(contours))
            fractions.append(mask.sum() / ((w + 1) * (h + 1)))
    if visible == 1:
        assert min(fractions) > 0.8  # of a rectangle round a rhomboid
    else:
        assert min(fractions) < 0.7  # they do overlap


def test_every_class_has_its_own_outline():
    """Outlines of a class agree with each other, whatever the rotation, more
    than with those of any other class (by their Hu moments)."""

    def moments(label, seed):
        drawn = draw_scene(
            np.random.default_rng(seed), [label], 192, (0.9, 0.901))
        ys, xs = np.nonzero(drawn.owner)
        hu = cv2.HuMoments(cv2.moments(drawn.owner, True)).ravel()[:4]
        return np.append(
            np.sign(hu) * np.log(np.abs(hu) + 1e-9), len(xs) / 192**2)

    features = np.array([[moments(label, seed) for seed in range(6)]
                         for label in range(len(CLASSES))])
    means = features.mean(axis=1)
    spread = features.std(axis=1).mean(axis=0)
    gaps = (np.abs(means[:, None] - means) / spread).max(axis=2)
    assert (gaps + 9 * np.eye(len(CLASSES))).min() > 1.5


def test_encode_mask():
    """Any mask at all comes back from pycocotools as it was."""
    from pycocotools import mask as coco_mask
    rng = np.random.default_rng(0)
    kinds = Counter()
    for _ in range(300):
        noise = rng.random((30, 50))
        mask = cv2.GaussianBlur(noise, (0, 0), rng.uniform(0.4, 5)) > 0.5
        encoded = encode_mask(mask)
        segmentation = encoded['segmentation']
        kinds[type(segmentation)] += 1
        rle = segmentation
        if isinstance(segmentation, list):
            rle = coco_mask.merge(
                coco_mask.frPyObjects(segmentation, 30, 50))
        assert (coco_mask.decode(rle) == mask).all()
        assert encoded['area'] == mask.sum()
    assert kinds[list] > 30 and kinds[dict] > 30

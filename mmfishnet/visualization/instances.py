# Copyright (c) mmfishnet authors. All rights reserved.
"""Pictures of objects: outlines beside the pixels, labels beside each other.

An object is outlined just outside its own pixels, and the smaller it is the
less it is tinted, so that what was found stays visible. Labels keep clear of
each other and of small objects; where there are too many objects to name each,
a legend below the picture counts them by class.
"""
from __future__ import annotations

import colorsys
import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
import torch
from matplotlib import font_manager
from mmengine.structures import InstanceData
from PIL import Image, ImageDraw, ImageFont

# Pictures are drawn at least this wide or high: lines of a pixel are too
# coarse for objects of ten.
MIN_SIDE = 768
# More objects than this are not named one by one.
MAX_LABELS = 20
# Objects whose side is below this many pixels of the drawing get no tint, and
# no label on them.
SMALL_SIDE = 24
TINT = 0.4
INK, PAPER = (32, 32, 36), (255, 255, 255)


def instance_colors(labels: Sequence[int],
                    by_class: bool = False) -> np.ndarray:
    """Choose a colour for each object.

    Hues follow the golden ratio, which keeps any few successive ones apart.

    Args:
        labels (Sequence[int]): Class of each object.
        by_class (bool): Whether the objects of a class share a hue and
            differ in lightness only. Defaults to False.

    Returns:
        np.ndarray: RGB of each object, (n, 3), uint8.
    """
    order = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    seen = Counter()
    colors = []
    for i, label in enumerate(labels):
        if by_class:
            turn, shade = order[label], seen[label] % 3
            seen[label] += 1
        else:
            turn, shade = i, i % 3
        rgb = colorsys.hls_to_rgb((0.08 + turn * 0.61803) % 1,
                                  0.52 + 0.08 * shade, 0.88)
        colors.append([round(255 * value) for value in rgb])
    return np.array(colors, np.uint8).reshape(-1, 3)


def draw_instances(image: np.ndarray,
                   instances: InstanceData,
                   classes: Sequence[str],
                   title: str = '',
                   legend: bool | None = None,
                   by_class: bool | None = None,
                   min_side: int = MIN_SIDE) -> np.ndarray:
    """Draw objects into a picture.

    Args:
        image (np.ndarray): RGB, (H, W, 3), uint8.
        instances (InstanceData): ``labels`` and ``bboxes`` (n, 4) as x1, y1,
            x2, y2, or ``masks`` (n, H, W), or both; ``scores`` if there are
            any. With masks, boxes are not drawn.
        classes (Sequence[str]): Names of the classes.
        title (str): What is written above the picture. Defaults to ''.
        legend (bool, optional): Whether a legend takes the place of labels.
            Defaults to None: where there are more than 20 objects, or the
            labels find no place.
        by_class (bool, optional): Whether a colour stands for a class and
            not for an object. Defaults to None: with a legend of several
            classes.
        min_side (int): The longer side of the drawing in pixels, at least;
            a smaller picture is enlarged by a whole number.
            Defaults to 768.

    Returns:
        np.ndarray: RGB of the drawing, uint8.
    """
    labels = _numpy(instances.labels).astype(int)
    masks = _masks(instances)
    boxes = _boxes(instances, masks)
    scores = (
        _numpy(instances.scores) if 'scores' in instances else
        [None] * len(labels))
    canvas, scale = _enlarge(image, min_side)
    many = len(labels) > MAX_LABELS if legend is None else legend
    if by_class is None:
        by_class = many and len(set(labels.tolist())) > 1
    colors = instance_colors(labels.tolist(), by_class)

    # Large ones first: what lies on them is drawn over them.
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    order = np.argsort(-areas, kind='stable')
    width = max(1, round(max(canvas.shape[:2]) / 700))
    for i in order:
        color = tuple(map(int, colors[i]))
        if masks is None:
            _draw_box(canvas, boxes[i] * scale, color, width)
        else:
            _draw_mask(canvas, masks[i], boxes[i], scale, color, width)

    if not many:
        names = [_label(classes[label], score)
                 for label, score in zip(labels, scores)]
        placed = _place_labels(names, boxes * scale, order, canvas.shape,
                               _font_size(canvas))
        if legend is None and None in placed:
            return draw_instances(
                image, instances, classes, title, True, min_side=min_side)
        canvas = _write_labels(canvas, names, placed, colors)
    else:
        canvas = _add_legend(canvas, labels, colors, classes)
    return _add_title(canvas, title) if title else canvas


def draw_scores(image: np.ndarray,
                scores: np.ndarray,
                classes: Sequence[str],
                top: int = 5,
                min_side: int = MIN_SIDE // 2) -> np.ndarray:
    """Draw the likeliest classes of a picture below it.

    Args:
        image (np.ndarray): RGB, (H, W, 3), uint8.
        scores (np.ndarray): Score of each class.
        classes (Sequence[str]): Names of the classes.
        top (int): How many are shown. Defaults to 5.
        min_side (int): The longer side of the drawing in pixels, at least.
            Defaults to 384.

    Returns:
        np.ndarray: RGB of the drawing, uint8.
    """
    canvas, _ = _enlarge(image, min_side)
    size = _font_size(canvas)
    best = np.argsort(-scores)[:top]
    line = round(1.6 * size)
    width = canvas.shape[1]
    strip = Image.new('RGB', (width, line * len(best) + size), PAPER)
    pen = ImageDraw.Draw(strip)
    for row, label in enumerate(best):
        y = size // 2 + row * line
        pen.rectangle(
            (0, y, max(1, int(width * scores[label])), y + line - 3),
            fill=(255, 214, 165) if row == 0 else (233, 233, 238))
        pen.text((size // 2, y + line // 2 - 1),
                 _label(classes[label], scores[label]),
                 INK,
                 _font(size),
                 anchor='lm')
    return np.concatenate([canvas, np.asarray(strip)])


def beside(*pictures: np.ndarray, gap: int = 8) -> np.ndarray:
    """Put pictures side by side, on white where they differ in height.

    Args:
        *pictures (np.ndarray): RGB, uint8.
        gap (int): Pixels between two of them. Defaults to 8.

    Returns:
        np.ndarray: RGB, uint8.
    """
    height = max(picture.shape[0] for picture in pictures)
    columns = []
    for i, picture in enumerate(pictures):
        columns.append(
            cv2.copyMakeBorder(
                picture,
                0,
                height - picture.shape[0],
                gap if i else 0,
                0,
                cv2.BORDER_CONSTANT,
                value=PAPER))
    return np.concatenate(columns, axis=1)


# What is given ---------------------------------------------------------------


def _numpy(values) -> np.ndarray:
    values = getattr(values, 'tensor', values)  # MMDetection's boxes
    if isinstance(values, torch.Tensor):
        return values.detach().cpu().numpy()
    return np.asarray(values)


def _masks(instances: InstanceData) -> np.ndarray | None:
    masks = instances.get('masks')
    if masks is None:
        return None
    if hasattr(masks, 'to_ndarray'):  # MMDetection's bitmaps and polygons
        masks = masks.to_ndarray()
    return _numpy(masks).astype(np.uint8)


def _boxes(instances: InstanceData, masks: np.ndarray | None) -> np.ndarray:
    boxes = instances.get('bboxes')
    boxes = np.zeros((0, 4)) if boxes is None else _numpy(boxes)
    if masks is not None and (len(boxes) != len(masks) or not boxes.any()):
        # Networks such as SOLO give masks alone.
        boxes = [cv2.boundingRect(mask) for mask in masks]
        boxes = np.array([[x, y, x + w, y + h] for x, y, w, h in boxes])
    return boxes.astype(float).reshape(-1, 4)


def _enlarge(image, min_side) -> tuple[np.ndarray, int]:
    scale = max(1, math.ceil(min_side / max(image.shape[:2])))
    canvas = cv2.resize(
        image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    return canvas, scale


def _label(name: str, score: float | None) -> str:
    return name if score is None else f'{name} {score:.0%}'


# Drawing ---------------------------------------------------------------------


def _draw_box(canvas, box, color, width) -> None:
    # Outside the object's pixels, as far as the picture goes.
    corner, opposite = np.round(box[:2]) - width, np.round(box[2:]) + width - 1
    limit = np.array(canvas.shape[1::-1]) - 1
    corner = np.clip(corner, 0, limit).astype(int)
    opposite = np.clip(opposite, 0, limit).astype(int)
    cv2.rectangle(canvas, corner.tolist(), opposite.tolist(), INK, width + 1)
    cv2.rectangle(canvas, corner.tolist(), opposite.tolist(), color, width)


def _draw_mask(canvas, mask, box, scale, color, width) -> None:
    """Tint a mask, and outline it just outside its pixels."""
    height, length = mask.shape
    x1, y1 = np.maximum(np.floor(box[:2]).astype(int) - 2, 0)
    x2 = min(int(np.ceil(box[2])) + 2, length)
    y2 = min(int(np.ceil(box[3])) + 2, height)
    if x2 <= x1 or y2 <= y1 or not mask[y1:y2, x1:x2].any():
        return
    window = canvas[y1 * scale:y2 * scale, x1 * scale:x2 * scale]
    # Enlarged smoothly: the outline shall not show the pixels' corners.
    inside = cv2.resize(
        mask[y1:y2, x1:x2].astype(np.float32),
        window.shape[1::-1],
        interpolation=cv2.INTER_LINEAR) >= 0.5
    side = np.sqrt(inside.sum())
    # None on what is small, little on what fills the picture.
    tint = TINT * np.clip(side / SMALL_SIDE - 1, 0, 1) * np.clip(
        1.2 - side / min(canvas.shape[:2]), 0.4, 1)
    if tint > 0:
        window[inside] = (
            window[inside] * (1 - tint) + np.array(color) * tint).round()
    size = 2 * width + 1
    brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    ring = cv2.dilate(inside.astype(np.uint8), brush).astype(bool) & ~inside
    window[ring] = color


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # Matplotlib brings this one along.
    return ImageFont.truetype(font_manager.findfont('DejaVu Sans'), size)


def _font_size(canvas) -> int:
    return int(np.clip(max(canvas.shape[:2]) / 56, 11, 30))


def _place_labels(names, boxes, order, shape, size) -> list[tuple | None]:
    """Find each label a place: x1, y1, x2, y2, or None where there is none.

    It touches its box, lies in the picture, covers no other label and no
    small object; the small ones choose first, they have the least choice.
    """
    height, width = shape[:2]
    small = boxes[[
        i for i in range(len(boxes))
        if min(boxes[i, 2:] - boxes[i, :2]) < 3 * SMALL_SIDE
    ]]
    placed = [None] * len(names)
    taken = np.zeros((0, 4))
    pad = max(2, size // 5)
    for i in reversed(order):
        x1, y1, x2, y2 = boxes[i]
        left, top, right, bottom = _font(size).getbbox(names[i])
        w, h = right - left + 2 * pad, size + 2 * pad
        for x, y in ((x1, y1 - h - 3), (x1, y2 + 3), (x2 - w, y1 - h - 3),
                     (x2 - w, y2 + 3), (x2 + 3, y1), (x1 - w - 3, y1),
                     (x2 + 3, y2 - h), (x1 - w - 3, y2 - h), (x1, y1),
                     (x2 - w, y2 - h), ((x1 + x2 - w) / 2, (y1 + y2 - h) / 2)):
            place = np.array([x, y, x + w, y + h])
            if min(x, y) < 0 or x + w > width or y + h > height:
                continue
            if _overlap(place, taken) or _overlap(place, small):
                continue
            placed[i] = tuple(place)
            taken = np.concatenate([taken, place[None]])
            break
    return placed


def _overlap(box, boxes) -> bool:
    return bool(
        np.all(
            (np.minimum(box[2:], boxes[:, 2:]) > np.maximum(
                box[:2], boxes[:, :2])),
            axis=1).any())


def _write_labels(canvas, names, placed, colors) -> np.ndarray:
    picture = Image.fromarray(canvas)
    pen = ImageDraw.Draw(picture, 'RGBA')
    size = _font_size(canvas)
    for name, place, color in zip(names, placed, colors):
        if place is None:
            continue
        x1, y1, x2, y2 = place
        pen.rounded_rectangle(
            place, radius=size // 4, fill=(*map(int, color), 235))
        # Black or white, whichever is read on this colour.
        bright = np.dot(color, (0.299, 0.587, 0.114)) > 140
        pen.text(((x1 + x2) / 2, (y1 + y2) / 2),
                 name,
                 INK if bright else PAPER,
                 _font(size),
                 anchor='mm')
    return np.array(picture)


def _add_legend(canvas, labels, colors, classes) -> np.ndarray:
    """A strip below the picture that counts the objects of each class."""
    size = _font_size(canvas)
    font, line = _font(size), round(1.7 * size)
    counts = Counter(labels.tolist()).most_common()
    swatches = 4 if len(counts) == 1 else 1
    x, y, items = size, size // 2, []
    for label, count in counts:
        text = f'{classes[label]}  {count}'
        length = int(swatches * size + size // 2 + font.getlength(text))
        if x > size and x + length > canvas.shape[1]:
            x, y = size, y + line
        items.append((x, y, label, text))
        x += length + 2 * size
    strip = Image.new('RGB', (canvas.shape[1], y + line), PAPER)
    pen = ImageDraw.Draw(strip)
    for x, y, label, text in items:
        for i, color in enumerate(colors[labels == label][:swatches]):
            pen.rectangle((x + i * size, y, x + (i + 1) * size - 2, y + size),
                          fill=tuple(map(int, color)))
        pen.text((x + swatches * size + size // 2, y + size / 2),
                 text,
                 INK,
                 font,
                 anchor='lm')
    return np.concatenate([canvas, np.asarray(strip)])


def _add_title(canvas, title) -> np.ndarray:
    size = _font_size(canvas)
    strip = Image.new('RGB', (canvas.shape[1], 2 * size), PAPER)
    ImageDraw.Draw(strip).text((size // 2, size),
                               title,
                               INK,
                               _font(size),
                               anchor='lm')
    return np.concatenate([np.asarray(strip), canvas])

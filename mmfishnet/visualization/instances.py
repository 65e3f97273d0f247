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

import cv2
import numpy as np
import torch
from mmengine.structures import InstanceData
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from .fonts import font, written

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
BARS = (255, 214, 165), (233, 233, 238)  # of the best, and of the others


def instance_colors(labels: Sequence[int],
                    by_class: bool = False) -> np.ndarray:
    """RGB of each object, (n, 3), uint8: one an object, or hues by class.

    Hues follow the golden ratio, which keeps any few successive ones apart.
    """
    seen, colors = Counter(), []
    for i, label in enumerate(labels):
        turn, shade = (label, seen[label]) if by_class else (i, i)
        seen[label] += 1
        colors.append(colorsys.hls_to_rgb((0.08 + turn * 0.61803) % 1,
                                          0.52 + 0.08 * (shade % 3), 0.88))
    return np.rint(255 * np.reshape(colors, (-1, 3))).astype(np.uint8)


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
            x2, y2, or ``masks``, (n, H, W) or a list of COCO's RLE, or both;
            ``scores`` if there are any. With masks, boxes are not drawn.
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
    classes = written(tuple(classes))
    labels = to_numpy(instances.labels).astype(int)
    masks, boxes = _shapes(instances)
    canvas, scale = _enlarge(image, min_side)
    # Large ones first: what lies on them is drawn over them.
    order = np.argsort(-np.prod(boxes[:, 2:] - boxes[:, :2], axis=1),
                       kind='stable')
    names = [classes[label] for label in labels]
    if 'scores' in instances:
        names = [f'{name} {score:.0%}' for name, score in zip(
            names, to_numpy(instances.scores))]
    many = len(labels) > MAX_LABELS if legend is None else legend
    if not many:
        placed = _place_labels(names, boxes * scale, order, canvas.shape,
                               _font_size(canvas))
        many = legend is None and None in placed
    if by_class is None:
        by_class = many and len(set(labels.tolist())) > 1
    colors = instance_colors(labels.tolist(), by_class)
    for i in order:
        if masks is None:
            _draw_box(canvas, boxes[i] * scale, colors[i].tolist())
        else:
            _draw_mask(canvas, masks[i], boxes[i], scale, colors[i])
    if many:
        canvas = _add_legend(canvas, [
            (f'{classes[label]}  {count}', colors[labels == label])
            for label, count in Counter(labels.tolist()).most_common()])
    else:
        canvas = _write_labels(canvas, names, placed, colors)
    return _add_title(canvas, title) if title else canvas


def draw_pixels(image: np.ndarray,
                pixels: np.ndarray,
                classes: Sequence[str],
                title: str = '',
                min_side: int = MIN_SIDE) -> np.ndarray:
    """Draw the class of each pixel into a picture, tinted, with a legend of
    the classes and their shares below.

    Args:
        pixels (np.ndarray): Class of each pixel, (H, W). That named
            'background' is not tinted, nor is what is none of the classes.
        image, classes, title, min_side: As in :func:`draw_instances`.

    Returns:
        np.ndarray: RGB of the drawing, uint8.
    """
    canvas, scale = _enlarge(image, min_side)
    names = written(tuple(classes))
    labels, counts = np.unique(pixels, return_counts=True)
    rows, whole = [], np.array([0, 0, *pixels.shape[::-1]], float)
    for i in np.argsort(-counts, kind='stable'):
        label = int(labels[i])
        if not 0 <= label < len(names) or (
                classes[label].lower() == 'background'):
            continue
        color = instance_colors([label], True)
        _draw_mask(canvas, pixels == label, whole, scale, color[0], TINT)
        rows.append((f'{names[label]}  {counts[i] / pixels.size:.1%}', color))
    canvas = _add_legend(canvas, rows)
    return _add_title(canvas, title) if title else canvas


def draw_scores(image: np.ndarray,
                scores: np.ndarray,
                classes: Sequence[str],
                top: int = 5,
                min_side: int = MIN_SIDE // 2) -> np.ndarray:
    """Draw the likeliest classes of a picture below it.

    Args:
        scores (np.ndarray): Score of each class.
        top (int): How many are shown. Defaults to 5.
        image, classes, min_side: As in :func:`draw_instances`.

    Returns:
        np.ndarray: RGB of the drawing, uint8.
    """
    canvas, _ = _enlarge(image, min_side)
    names = written(tuple(classes))
    size = _font_size(canvas)
    best = np.argsort(-scores)[:top]
    line = round(1.6 * size)
    strip, pen = _strip(canvas, line * len(best) + size)
    for row, label in enumerate(best):
        y, text = size // 2 + row * line, f'{names[label]} {scores[label]:.0%}'
        # A score of 100 % reaches the other side.
        x = max(1, round(strip.width * scores[label])) - 1
        pen.rectangle((0, y, x, y + line - 3), fill=BARS[row > 0])
        pen.text((size // 2, y + line // 2 - 1), text, INK, font(size, text),
                 anchor='lm')
    return np.concatenate([canvas, np.asarray(strip)])


def beside(*pictures: np.ndarray) -> np.ndarray:
    """Put RGB pictures side by side, on white where they differ in height."""
    height = max(map(len, pictures))
    return np.concatenate([
        cv2.copyMakeBorder(picture, 0, height - len(picture), 8 * (i > 0), 0,
                           cv2.BORDER_CONSTANT, value=PAPER)
        for i, picture in enumerate(pictures)], axis=1)


def to_numpy(values) -> np.ndarray:
    """An array of tensors, of MMDetection's boxes and masks, and of what is
    one."""
    if hasattr(values, 'to_ndarray'):  # bitmaps and polygons
        return values.to_ndarray()
    values = getattr(values, 'tensor', values)
    return values.detach().cpu().numpy() if isinstance(
        values, torch.Tensor) else np.asarray(values)


def _shapes(instances: InstanceData) -> tuple:
    """Masks, None if there are none, and boxes."""
    masks, boxes = instances.get('masks'), instances.get('bboxes', ())
    if masks is not None and not isinstance(masks, list):
        masks = to_numpy(masks).astype(np.uint8)
    boxes = to_numpy(boxes).astype(float).reshape(-1, 4)
    if masks is not None and (len(boxes) != len(masks) or not boxes.any()):
        # Networks such as SOLO give masks alone.
        boxes = [cv2.boundingRect(_pixels(mask)) for mask in masks]
        boxes = np.array(boxes, float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
    return masks, boxes


def _pixels(mask) -> np.ndarray:
    """A mask that may be COCO's RLE; not all of them at once."""
    return coco_mask.decode(mask) if isinstance(mask, dict) else mask


def _enlarge(image, min_side) -> tuple[np.ndarray, int]:
    scale = max(1, math.ceil(min_side / max(image.shape[:2])))
    return cv2.resize(image, None, fx=scale, fy=scale,
                      interpolation=cv2.INTER_CUBIC), scale


def _line_width(canvas) -> int:
    return max(1, round(max(canvas.shape[:2]) / 700))


def _draw_box(canvas, box, color) -> None:
    """Draw a box outside the object's pixels, as far as the picture goes."""
    width = _line_width(canvas)
    corners = np.round(box.reshape(2, 2)) + [[-width], [width - 1]]
    corners = np.clip(corners, 0, np.array(canvas.shape[1::-1]) - 1)
    corners = corners.astype(int).tolist()
    cv2.rectangle(canvas, *corners, INK, width + 1)
    cv2.rectangle(canvas, *corners, color, width)


def _draw_mask(canvas, mask, box, scale, color, tint=None) -> None:
    """Tint a mask, and outline it just outside its pixels."""
    mask = _pixels(mask)
    x1, y1 = np.maximum(np.floor(box[:2]).astype(int) - 2, 0)
    x2, y2 = np.minimum(np.ceil(box[2:]).astype(int) + 2, mask.shape[::-1])
    if x2 <= x1 or y2 <= y1 or not mask[y1:y2, x1:x2].any():
        return
    window = canvas[y1 * scale:y2 * scale, x1 * scale:x2 * scale]
    # Enlarged smoothly: the outline shall not show the pixels' corners.
    inside = cv2.resize(mask[y1:y2, x1:x2].astype(np.float32),
                        window.shape[1::-1]) >= 0.5
    side = np.sqrt(inside.sum())
    if tint is None:  # none on what is small, little on what fills it
        tint = TINT * np.clip(side / SMALL_SIDE - 1, 0, 1) * np.clip(
            1.2 - side / min(canvas.shape[:2]), 0.4, 1)
    if tint > 0:
        window[inside] = (window[inside] * (1 - tint) + color * tint).round()
    size = 2 * _line_width(canvas) + 1
    brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    ring = cv2.dilate(inside.astype(np.uint8), brush).astype(bool) & ~inside
    window[ring] = color


def _font_size(canvas) -> int:
    return int(np.clip(max(canvas.shape[:2]) / 56, 11, 30))


def _place_labels(names, boxes, order, shape, size) -> list[tuple | None]:
    """Find each label a place: x1, y1, x2, y2, or None where there is none.

    It touches its box, lies in the picture, covers no other label and no
    small object; the small ones choose first, they have the least choice.
    """
    height, width = shape[:2]
    sides = (boxes[:, 2:] - boxes[:, :2]).min(1, initial=np.inf)
    taken = boxes[sides < 3 * SMALL_SIDE]
    placed = [None] * len(names)
    pad = max(2, size // 5)
    for i in reversed(order):
        x1, y1, x2, y2 = boxes[i]
        left, top, right, bottom = font(size, names[i]).getbbox(names[i])
        w, h = right - left + 2 * pad, size + 2 * pad
        for x, y in ((x1, y1 - h - 3), (x1, y2 + 3), (x2 - w, y1 - h - 3),
                     (x2 - w, y2 + 3), (x2 + 3, y1), (x1 - w - 3, y1),
                     (x2 + 3, y2 - h), (x1 - w - 3, y2 - h), (x1, y1),
                     (x2 - w, y2 - h), ((x1 + x2 - w) / 2, (y1 + y2 - h) / 2)):
            place = np.array([x, y, x + w, y + h])
            if min(x, y) < 0 or x + w > width or y + h > height or (
                    (place[2:] > taken[:, :2]) & (place[:2] < taken[:, 2:])
                    ).all(1).any():
                continue
            placed[i] = tuple(place)
            taken = np.concatenate([taken, place[None]])
            break
    return placed


def _write_labels(canvas, names, placed, colors) -> np.ndarray:
    picture, size = Image.fromarray(canvas), _font_size(canvas)
    pen = ImageDraw.Draw(picture, 'RGBA')
    for name, place, color in zip(names, placed, colors):
        if place is not None:
            pen.rounded_rectangle(place, size // 4, (*color.tolist(), 235))
            # Black or white, whichever is read on this colour.
            bright = np.dot(color, (0.299, 0.587, 0.114)) > 140
            pen.text(np.reshape(place, (2, 2)).mean(0).tolist(), name,
                     INK if bright else PAPER, font(size, name), anchor='mm')
    return np.array(picture)


def _add_legend(canvas, rows) -> np.ndarray:
    """A strip below the picture with (text, colours) of each class."""
    size = _font_size(canvas)
    line = round(1.7 * size)
    x, y, items = size, size // 2, []
    for text, colors in rows:
        colors = colors[:4 if len(rows) == 1 else 1]
        start = len(colors) * size + size // 2
        length = int(start + font(size, text).getlength(text))
        if x > size and x + length > canvas.shape[1]:
            x, y = size, y + line
        items.append((x, y, start, text, colors))
        x += length + 2 * size
    strip, pen = _strip(canvas, y + line)
    for x, y, start, text, colors in items:
        for i, color in enumerate(colors.tolist()):
            pen.rectangle((x + i * size, y, x + (i + 1) * size - 2, y + size),
                          fill=tuple(color))
        pen.text((x + start, y + size / 2), text, INK, font(size, text),
                 anchor='lm')
    return np.concatenate([canvas, np.asarray(strip)])


def _add_title(canvas, title) -> np.ndarray:
    size = _font_size(canvas)
    strip, pen = _strip(canvas, 2 * size)
    pen.text((size // 2, size), title, INK, font(size, title), anchor='lm')
    return np.concatenate([np.asarray(strip), canvas])


def _strip(canvas, height) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Paper as wide as the picture, and a pen."""
    strip = Image.new('RGB', (canvas.shape[1], height), PAPER)
    return strip, ImageDraw.Draw(strip)

# Copyright (c) mmfishnet authors. All rights reserved.
"""Draw pictures of textured shapes in front of cluttered backgrounds.

Only the outline tells the class: position, scale, rotation, colour, texture
and background are drawn from the same distributions for every class.
"""
from __future__ import annotations

import colorsys
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

SUPERSAMPLING = 4
# Parts of a shape behind others or outside the image leave this much of it.
MIN_VISIBLE = 0.6
MAX_TRIES = 20
# Least distance of an object's colours from what is behind it, in [0, 1] BGR.
MIN_CONTRAST = 0.35


# ----------------------------------------------------------------------------
# Outlines: closed curves (n, 2), at any place and scale. A second curve is a
# hole (even-odd rule).


def _arc(start: float, stop: float, radius: float = 1.0, x: float = 0.0,
         points: int = 64) -> np.ndarray:
    """Points of a circular arc round (x, 0), angles in radians."""
    angle = np.linspace(start, stop, points)
    return np.stack(
        [x + radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _polygon(corners: int, inner: float | None = None) -> np.ndarray:
    """A regular polygon, or the star with this ratio of its two radii."""
    radius = 1.0 if inner is None else np.tile([1.0, inner], corners)
    angle = np.arange(np.size(radius) if inner else corners)
    angle = 2 * np.pi * angle / len(angle)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _arrow(rng):
    shaft, neck = rng.uniform(0.18, 0.28), rng.uniform(-0.1, 0.15)
    return np.array([[-1, -shaft], [neck, -shaft], [neck, -0.7], [1, 0],
                     [neck, 0.7], [neck, shaft], [-1, shaft]])


def _bolt(rng):
    return np.array([[0.15, 1], [-0.5, -0.15], [-0.05, -0.15], [-0.2, -1],
                     [0.5, 0.25], [0.05, 0.25], [0.45, 1]])


def _crescent(rng):
    # The unit disc less a disc of radius r round (x, 0); both circles meet at
    # the angle `tip`, seen from (0, 0), and `inner`, seen from (x, 0).
    r, x = rng.uniform(0.8, 0.95), rng.uniform(0.5, 0.6)
    tip = np.arccos((1 + x**2 - r**2) / (2 * x))
    inner = np.arctan2(np.sin(tip), np.cos(tip) - x)
    return np.concatenate(
        [_arc(tip, 2 * np.pi - tip), _arc(2 * np.pi - inner, inner, r, x)])


def _cross(rng):
    a = rng.uniform(0.28, 0.38)
    quarter, turn = [[1, -a], [1, a], [a, a]], np.array([[0, 1], [-1, 0]])
    return np.concatenate(
        [quarter @ np.linalg.matrix_power(turn, i) for i in range(4)])


def _heart(rng):
    t = np.linspace(0, 2 * np.pi, 96)
    return np.stack([
        16 * np.sin(t)**3,
        13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    ], axis=1)  # yapf: disable


def _leaf(rng):
    # Two arcs round (-x, 0) and (x, 0) that meet in a point.
    x = rng.uniform(0.45, 0.6)
    half = np.arccos(x)
    return np.concatenate(
        [_arc(-half, half, x=-x), _arc(np.pi - half, np.pi + half, x=x)])


# One curve, or several in a tuple. In the order of their names, as folders
# are listed.
OUTLINES: dict[str, Callable] = dict(
    arrow=_arrow,
    bolt=_bolt,
    crescent=_crescent,
    cross=_cross,
    disc=lambda rng: _arc(0, 2 * np.pi),
    heart=_heart,
    hexagon=lambda rng: _polygon(6),
    leaf=_leaf,
    ring=lambda rng: (_arc(0, 2 * np.pi),
                      _arc(0, 2 * np.pi, rng.uniform(0.5, 0.65))),
    square=lambda rng: _polygon(4),
    star=lambda rng: _polygon(5, inner=rng.uniform(0.4, 0.5)),
    triangle=lambda rng: _polygon(3))
CLASSES = tuple(OUTLINES)


def _outline(rng: np.random.Generator, name: str) -> list[np.ndarray]:
    """The curves of one example of a class, in the unit circle."""
    curves = OUTLINES[name](rng)
    curves = curves if isinstance(curves, tuple) else (curves, )
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), np.sin(angle)],
                     [-np.sin(angle), np.cos(angle)]])
    mirror_and_squeeze = np.diag(
        [rng.choice([-1.0, 1.0]), rng.uniform(0.85, 1.0)])
    curves = [curve @ mirror_and_squeeze @ turn for curve in curves]
    centre, radius = cv2.minEnclosingCircle(curves[0].astype(np.float32))
    return [(curve - centre) / radius for curve in curves]


def _rasterize(curves: list[np.ndarray], centre: np.ndarray, radius: float,
               rim: float) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Coverage of pixels, in [0, 1], by a shape and by its rim, two float32
    arrays (h, w), and the x and y of their corner; all lengths in pixels."""
    x0, y0 = np.floor(centre - radius).astype(int) - 1
    side = int(2 * radius) + 4
    shift = 4  # cv2 takes fixed point coordinates
    # The centre of the first fine pixel is 0 to cv2, and 0.5 to us.
    points = [((curve * radius + centre - (x0, y0)) * SUPERSAMPLING - 0.5)
              for curve in curves]
    points = [np.round(p * 2**shift).astype(np.int32) for p in points]
    fine = np.zeros((2, side * SUPERSAMPLING, side * SUPERSAMPLING), np.uint8)
    cv2.fillPoly(fine[0], points, 255, shift=shift)
    thickness = max(1, round(2 * rim * SUPERSAMPLING))  # half of it is inside
    cv2.polylines(fine[1], points, True, 255, thickness, shift=shift)
    fine[1] &= fine[0]
    cover, edge = (
        cv2.resize(x, (side, side), interpolation=cv2.INTER_AREA).astype(
            np.float32) / 255 for x in fine)
    return cover, edge, x0, y0


# ----------------------------------------------------------------------------
# Colours and textures


def _colour(rng: np.random.Generator, saturation: tuple) -> np.ndarray:
    """A random colour (3, ) in BGR, in [0, 1]."""
    return np.array(
        colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(*saturation),
                            rng.uniform(0.2, 1.0))[::-1], np.float32)


def _bgr(grey: np.ndarray) -> np.ndarray:
    # NumPy is slow where it broadcasts over a last axis of three.
    return cv2.merge([grey] * 3)


def _noise(rng: np.random.Generator, side: int, cell: float) -> np.ndarray:
    """Smooth noise (side, side) in [0, 1], with features of `cell` pixels."""
    cells = max(2, round(side / cell) + 1)
    return cv2.resize(rng.random((cells, cells), np.float32), (side, side),
                      interpolation=cv2.INTER_CUBIC).clip(0, 1)


def _texture(rng: np.random.Generator, side: int, unit: float,
             colours: Sequence[np.ndarray]) -> np.ndarray:
    """A pattern of two colours (3, ), float32 (side, side, 3); it repeats
    several times within ``unit`` pixels, the size of what is painted."""
    angle = rng.uniform(0, 2 * np.pi)
    # Python's floats, unlike NumPy's, leave float32 arrays float32.
    cos, sin = math.cos(angle), math.sin(angle)
    x = np.arange(side, dtype=np.float32) - side / 2
    y = x[:, None]
    u, v = cos * x + sin * y, cos * y - sin * x
    period = max(4.0, unit / rng.uniform(2.5, 7))
    wave = 2 * math.pi / period
    kind = rng.choice(
        ['flat', 'gradient', 'stripes', 'checks', 'dots', 'noise'])
    t = dict(
        flat=lambda: np.zeros_like(u), gradient=lambda: u / unit + 0.5,
        stripes=lambda: np.sin(u * wave) * period / 3 + 0.5,
        checks=lambda: np.sin(u * wave) * np.sin(v * wave) * period / 2 + 0.5,
        dots=lambda: (np.cos(u * wave) + np.cos(v * wave) - 0.7) * period / 3
        + 0.5,
        noise=lambda: (_noise(rng, side, period) - 0.5) * 1.6 + 0.5)[kind]()
    t = t.clip(0, 1)
    return cv2.merge([a + t * (b - a) for a, b in zip(*colours)])


def _background(rng: np.random.Generator, size: int,
                clutter: float) -> np.ndarray:
    """Regions of muted textures with strokes over them, in [0, 1]."""

    def muted_texture():
        colours = [_colour(rng, (0.0, 0.5)) for _ in range(2)]
        # Half the contrast of an object's texture.
        colours[1] = colours[0] + clutter / 2 * (colours[1] - colours[0])
        return _texture(rng, size, size / rng.uniform(1, 3), colours)

    canvas = muted_texture()
    for _ in range(rng.integers(1, 3)):
        region = _noise(rng, size, size / rng.uniform(1.5, 4))
        region = _bgr(((region - 0.5) * size / 6 + 0.5).clip(0, 1))
        canvas += clutter * region * (muted_texture() - canvas)

    shift = 4
    for _ in range(round(clutter * rng.integers(3, 9))):
        # A quadratic Bezier curve through three points near to each other.
        knots = rng.uniform(0, size, 2) + rng.normal(0, size / 4, (3, 2))
        t = np.linspace(0, 1, 24)[:, None]
        curve = ((1 - t)**2 * knots[0] + 2 * t * (1 - t) * knots[1] +
                 t**2 * knots[2])
        cv2.polylines(canvas, [np.round(curve * 2**shift).astype(np.int32)],
                      False, _colour(rng, (0.0, 0.9)).tolist(),
                      int(rng.integers(1, max(2, size // 40) + 1)), cv2.LINE_8,
                      shift=shift)
    # Strokes have no smooth edges in float images.
    return cv2.GaussianBlur(canvas, (0, 0), 0.6)


# ----------------------------------------------------------------------------
# Scenes


@dataclass
class Scene:
    """A picture and what is in it.

    Attributes:
        image (np.ndarray): uint8 (H, W, 3), BGR.
        labels (list[int]): Class of each object, an index to ``CLASSES``, the
            rearmost object first.
        owner (np.ndarray): uint8 (H, W): 0 where the background is seen, i
            where the i-th object, counted from 1, covers half of the pixel or
            more and is not itself covered so by another.
    """
    image: np.ndarray
    labels: list[int]
    owner: np.ndarray

    @property
    def masks(self) -> list[np.ndarray]:
        """Visible part of each object, bool (H, W)."""
        return [self.owner == i + 1 for i in range(len(self.labels))]


def draw_scene(rng: np.random.Generator, labels: Sequence[int], size: int,
               diameters: tuple[float, float],
               clutter: float = 1.0) -> Scene:
    """Draw objects in front of a background, the largest at the back.

    An object that finds no place where it would leave enough of the others
    (and of itself, at the border) visible is left out altogether, so that
    whatever is drawn is also in ``Scene.labels`` and at least 60 % visible.

    Args:
        rng (np.random.Generator): Source of all randomness. The background is
            drawn from it first: it does not depend on the objects.
        labels (Sequence[int]): Wanted objects, as indices to ``CLASSES``.
        size (int): Height and width of the image in pixels.
        diameters (tuple[float, float]): Bounds of the objects' circumscribed
            circles, as fractions of ``size``; log-uniform.
        clutter (float): From 0 for plain objects on a plain background to 1
            for strong textures, patches and strokes. Defaults to 1.

    Returns:
        Scene: The picture, its objects and their masks.
    """
    canvas = _background(rng, size, clutter)
    grain = rng.uniform(0, 0.03) * rng.standard_normal(
        (size, size), np.float32)
    owner = np.zeros((size, size), np.uint8)
    drawn, full_areas = [], []
    radii = np.exp(rng.uniform(*np.log(diameters), len(labels))) * size / 2
    radii = sorted(radii.tolist(), reverse=True)
    for label, radius in zip(labels, radii):
        curves = _outline(rng, CLASSES[label])
        rim = radius * rng.uniform(0.04, 0.1) if rng.uniform() < 0.7 else 0
        for _ in range(MAX_TRIES):
            centre = rng.uniform(0.75 * radius, size - 0.75 * radius, 2)
            cover, edge, x, y = _rasterize(curves, centre, radius, rim)
            rows = slice(max(y, 0), min(y + len(cover), size))
            cols = slice(max(x, 0), min(x + len(cover), size))
            part = np.s_[rows.start - y:rows.stop - y,
                         cols.start - x:cols.stop - x]
            seen = owner.copy()
            seen[rows, cols][cover[part] >= 0.5] = len(drawn) + 1
            areas = full_areas + [(cover >= 0.5).sum()]
            visible = np.bincount(seen.ravel(), minlength=len(areas) + 1)[1:]
            if (visible >= MIN_VISIBLE * np.array(areas)).all():
                break
        else:
            continue
        owner, full_areas = seen, areas
        drawn.append(int(label))

        behind = canvas[rows, cols][cover[part] >= 0.5].mean(axis=0)
        colours = [_contrasting_colour(rng, behind) for _ in range(2)]
        colours[1] = colours[0] + clutter * (colours[1] - colours[0])
        paint = _texture(rng, len(cover), 2 * radius, colours)
        if rim:
            tone = float(rng.integers(2))  # black or white
            edge = _bgr(0.6 * edge)
            paint += edge * (tone - paint)
        paint, alpha = paint[part], _bgr(cover[part])
        canvas[rows, cols] += alpha * (paint - canvas[rows, cols])
    image = ((canvas + _bgr(grain)).clip(0, 1) * 255).round().astype(np.uint8)
    return Scene(image, drawn, owner)


def _contrasting_colour(rng: np.random.Generator,
                        behind: np.ndarray) -> np.ndarray:
    """A strong colour that stands out from another one."""
    for _ in range(MAX_TRIES):
        colour = _colour(rng, (0.35, 1.0))
        if np.linalg.norm(colour - behind) >= MIN_CONTRAST:
            break
    return colour

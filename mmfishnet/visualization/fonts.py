# Copyright (c) mmfishnet authors. All rights reserved.
"""Fonts that have the letters of class names, in any script."""
from __future__ import annotations

import warnings
from functools import cache

from matplotlib.font_manager import findfont, fontManager
from matplotlib.ft2font import FT2Font
from PIL import ImageFont


@cache
def _letters(path: str) -> frozenset[int]:
    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):  # a format that FreeType does not know
        return frozenset()


@cache
def font_file(text: str) -> str | None:
    """Find a font of the system that has all letters of a text: its path, of
    the one that matplotlib brings along if it will do; None if there is none.
    """
    needed = {ord(letter) for letter in text if not letter.isspace()}
    plain = [entry.fname for entry in fontManager.ttflist
             if entry.style == 'normal' and str(entry.weight) in (
                 '400', 'normal', 'regular', 'book', 'medium')
             and entry.size == 'scalable'
             and 'LastResort' not in entry.fname]  # boxes for all letters
    return next((path for path in (findfont('DejaVu Sans'), *plain)
                 if needed <= _letters(path)), None)


@cache
def font(size: int, text: str = '') -> ImageFont.FreeTypeFont:
    """A font of ``size`` pixels for a text, see :func:`font_file`."""
    return ImageFont.truetype(font_file(text) or font_file(''), size)


@cache
def written(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of all classes as they can be drawn: 'class 3' for one whose
    letters no font has; a warning tells of them, once."""
    lost = [i for i, name in enumerate(names) if font_file(name) is None]
    if lost:
        warnings.warn(
            f'no font of this system has the letters of {names[lost[0]]!r}; '
            f'drawings have the numbers of such classes ({len(lost)} of '
            f'{len(names)}) instead. Install a font of that script.',
            stacklevel=3)
    return tuple(f'class {i}' if i in lost else name
                 for i, name in enumerate(names))

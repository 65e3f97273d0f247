# Copyright (c) mmfishnet authors. All rights reserved.
"""Words of messages: the first few of many, and names that were meant."""
from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

SHOWN = 5


def short(value, length: int = 60) -> str:
    """``repr`` of a value, cut where it is long."""
    text = repr(value)
    return text if len(text) <= length else text[:length - 4] + ' ...'


def first_few(values: Collection, count: int = SHOWN) -> str:
    """Name the first few of many.

    Args:
        values (Collection): What was found.
        count (int): How many are named. Defaults to 5.

    Returns:
        str: For example "3, 7, 9, 12, 20 and 31 more".
    """
    values = list(values)
    shown = ', '.join(short(value, 300) for value in values[:count])
    more = len(values) - count
    return f'{shown} and {more} more' if more > 0 else shown


def counted(number: int, thing: str, things: str | None = None) -> str:
    """A number with its noun: '1 image', '2 images', '2 boxes'.

    Args:
        number (int): How many.
        thing (str): One of them.
        things (str, optional): Several. Defaults to ``thing`` with an s.
    """
    return f'{number} {thing if number == 1 else things or thing + "s"}'


def near(name: str, names: Collection[str]) -> str:
    """The words "did you mean ...?" where a similar name is known.

    Args:
        name (str): What is not known.
        names (Collection[str]): What is.

    Returns:
        str: With a space before it, or nothing.
    """
    folded = {str(n).strip().casefold(): n for n in names}
    found = get_close_matches(str(name).strip().casefold(), folded, 1, 0.75)
    return f' (did you mean {folded[found[0]]!r}?)' if found else ''

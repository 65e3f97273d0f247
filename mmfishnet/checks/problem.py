# Copyright (c) mmfishnet authors. All rights reserved.
"""What a check found."""
from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from typing import NamedTuple

SHOWN = 5


class Problem(NamedTuple):
    """A mistake in a config or its data.

    Attributes:
        level (str): 'error' where a run would stop later or come to wrong
            results, 'warning' where it may be meant so, 'note' for what was
            looked at and what not.
        place (str): File, or key of the config.
        text (str): What is wrong, what is allowed and what to do.
    """

    level: str
    place: str
    text: str

    def __str__(self) -> str:
        return f'{self.level}: {self.place}: {self.text}'


def error(place: str, text: str) -> Problem:
    """A :class:`Problem` that stops the run."""
    return Problem('error', place, text)


def warning(place: str, text: str) -> Problem:
    """A :class:`Problem` that goes to the log."""
    return Problem('warning', place, text)


def note(place: str, text: str) -> Problem:
    """What was looked at, or not."""
    return Problem('note', place, text)


def some(values: Collection) -> str:
    """Name the first few of many.

    Args:
        values (Collection): What was found.

    Returns:
        str: For example "3, 7, 9, 12, 20 and 31 more".
    """
    values = list(values)
    shown = ', '.join(short(value, 300) for value in values[:SHOWN])
    more = len(values) - SHOWN
    return f'{shown} and {more} more' if more > 0 else shown


def short(value, length: int = 60) -> str:
    """``repr`` of a value, cut where it is long."""
    text = repr(value)
    return text if len(text) <= length else text[:length - 4] + ' ...'


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

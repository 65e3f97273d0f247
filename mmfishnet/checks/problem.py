# Copyright (c) mmfishnet authors. All rights reserved.
"""What a check found."""
from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

from ..words import counted

LEVELS = ('error', 'warning', 'note')


class Problem(NamedTuple):
    """A mistake in a config or its data.

    Attributes:
        level (str): 'error' where the run is certain to stop or to come to a
            wrong number, 'warning' where it may be meant so, 'note' for what
            was looked at and what not.
        place (str): File, or key of the config.
        text (str): What is wrong, what is allowed and what to do.
    """

    level: str
    place: str
    text: str

    def __str__(self) -> str:
        return f'{self.level}: {self.place}: {self.text}'


error, warning, note = (partial(Problem, level) for level in LEVELS)


def arranged(problems: Iterable[Problem]) -> list[Problem]:
    """Each once; errors first, then warnings, then notes."""
    return sorted(dict.fromkeys(problems), key=lambda p: LEVELS.index(p.level))


def report(problems: Iterable[Problem]) -> str:
    """Problems, one a line, under a line that counts them."""
    problems = list(problems)
    levels = [p.level for p in problems]
    counts = [counted(levels.count(level), level) for level in LEVELS
              if level in levels]
    if not {'error', 'warning'} & set(levels):
        counts.insert(0, 'nothing wrong')
    title = f'the check of the config and its data found {", ".join(counts)}'
    return '\n  '.join([title, *map(str, problems)])

# Copyright (c) mmfishnet authors. All rights reserved.
"""Tables of the studies, for the terminal and in Markdown."""
from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table

MIB = 2**20


@dataclass
class Cells:
    """A table of texts."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ''
    caption: str = ''
    names: int = 1  # how many of the columns are not numbers

    def show(self) -> None:
        """Print it, as wide as it is where nobody watches."""
        table = Table(title=self.title, caption=self.caption,
                      box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for i, column in enumerate(self.columns):
            table.add_column(
                column, justify='left' if i < self.names else 'right')
        for row in self.rows:
            table.add_row(*row)
        Console(width=None if sys.stdout.isatty() else 200,
                highlight=False).print(table)

    def markdown(self) -> str:
        """In Markdown, without title and caption; ends with a line break."""
        numbers = len(self.columns) - self.names
        lines = [[column.replace('\n', '<br>') for column in self.columns],
                 ['---'] * self.names + ['---:'] * numbers, *self.rows]
        return ''.join(f'| {" | ".join(line)} |\n' for line in lines)

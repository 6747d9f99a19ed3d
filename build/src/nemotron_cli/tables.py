"""Tables on stdout: colour on a terminal, plain elsewhere, and never cut to fit."""

from __future__ import annotations

from collections.abc import Collection

from rich.console import Console
from rich.table import Column, Table

# Wider than any of our tables: a narrow terminal wraps whole lines, which reads better than wrapped cells.
_WIDTH = 200


def console() -> Console:
    """A console on stdout that takes text as it is."""
    return Console(highlight=False, markup=False, soft_wrap=True, width=_WIDTH)


def table(*headers: str, right: Collection[str]) -> Table:
    """An empty table without lines; the columns named in *right* are aligned there."""
    columns = [Column(header, justify="right" if header in right else "left") for header in headers]
    return Table(*columns, box=None, pad_edge=False)


def escaped(text: str) -> str:
    """*text* from outside, such as a file's name, with escapes for what would move the cursor or end the line."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)

"""Tables on stdout, as wide as the terminal and never cut; where it is no terminal, a row is a line."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Sequence
from typing import Any

import click

from nemotron_cli.terminal import styled, width

_GAP = "  "


class Table:
    """A table without lines; the columns named in *right* are aligned there, and the first column says what a row is.

    On a terminal that is too narrow each row becomes a paragraph.
    """

    def __init__(self, *headers: str, right: Collection[str] = ()) -> None:
        self._headers = headers
        self._right = right
        self._rows: list[tuple[Sequence[str], dict[str, Any]]] = []

    def add_row(self, *cells: str, **style: Any) -> None:
        """Add a row, in a style of click."""
        self._rows.append((cells, style))

    def show(self) -> None:
        """Print the table."""
        columns = list(zip(self._headers, *(cells for cells, _ in self._rows), strict=True))
        sizes = [max(map(len, column)) for column in columns]
        room = width()
        if room is not None and sum(sizes) + len(_GAP) * (len(sizes) - 1) > room:
            for cells, style in self._rows:
                click.echo(styled(self._paragraph(cells, room), **style))
            return
        click.echo(styled(self._line(self._headers, sizes), bold=True))
        for cells, style in self._rows:
            click.echo(styled(self._line(cells, sizes), **style))

    def _line(self, cells: Sequence[str], sizes: Sequence[int]) -> str:
        columns = zip(self._headers, cells, sizes, strict=True)
        return _GAP.join(
            cell.rjust(size) if header in self._right else cell.ljust(size) for header, cell, size in columns
        ).rstrip()

    def _paragraph(self, cells: Sequence[str], room: int) -> str:
        first, *others = zip(self._headers, cells, strict=True)
        values = ", ".join(f"{header} {cell}".strip() for header, cell in others if cell)
        text = ": ".join(filter(None, (first[1], values)))
        begin = "" if first[1] else _GAP
        return textwrap.fill(text, max(room, 20), initial_indent=begin, subsequent_indent=_GAP, break_on_hyphens=False)

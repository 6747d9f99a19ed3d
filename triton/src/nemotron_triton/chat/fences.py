"""Code fences of Markdown in a text that arrives in pieces: is its end inside one? Knows no other markup.

A fence is three or more backticks or tildes at the beginning of a line; within a line they open nothing.
"""

from __future__ import annotations

import re

from nemotron_triton.chat.source import Tags

_FENCE = re.compile(r"^([ \t]*)(`{3,}|~{3,})([^\n]*)$", re.MULTILINE)
# The pieces that are looked at together, and the longest line that may be a fence: bounds on what is kept of the text.
_MAX_PIECES = 64
_MAX_LINE = 200


class Fences:
    """The fences in one text. Pieces are kept until somebody asks, which is seldom."""

    def __init__(self) -> None:
        self._indent = self._fence = ""
        self._pieces: list[str] = []

    def write(self, text: str) -> None:
        """Append *text*."""
        self._pieces.append(text)
        if len(self._pieces) > _MAX_PIECES:
            self._settle()

    def closers(self) -> Tags | None:
        """What closes the fence in which the text ends; None when it is in none."""
        indent, fence = _after(self._settle(), self._indent, self._fence)
        return Tags("\n" + fence, "\n" + indent + fence) if fence else None

    def _settle(self) -> str:
        """Look at the lines that are whole; the last one, which may go on, is returned."""
        lines, end, last = "".join(self._pieces).rpartition("\n")
        if end:
            self._indent, self._fence = _after(lines, self._indent, self._fence)
        last = last if len(last) <= _MAX_LINE else "no fence"
        self._pieces = [last]
        return last


def _after(lines: str, indent: str, fence: str) -> tuple[str, str]:
    """The fence that is open behind *lines*, with its indentation, where *fence* was open before; "" when none is."""
    for match in _FENCE.finditer(lines):
        marks, rest = match[2], match[3]
        if not fence:
            if marks[0] not in rest:
                indent, fence = match[1], marks
        elif marks.startswith(fence) and not rest.strip():
            indent, fence = "", ""
    return indent, fence

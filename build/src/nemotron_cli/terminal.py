"""What the terminal can show: its width, and whether text may be coloured or dimmed there."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any

import click


def width() -> int | None:
    """The columns of stdout; None where it is no terminal, and a line may be as long as it likes."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def takes_escapes() -> bool:
    """Whether the user takes escape sequences at all: not with NO_COLOR (no-color.org), nor on a dumb terminal."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def styled(text: str, **style: Any) -> str:
    """*text* in a *style* of click, which `click.echo` takes away again where the output is no terminal."""
    return click.style(text, **style) if style and takes_escapes() else text


def printable(text: str) -> str:
    """*text* from outside, such as a file's name, with escapes for what would move the cursor or end the line."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)

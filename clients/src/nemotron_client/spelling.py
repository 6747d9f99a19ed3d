"""What a name that is not known was probably meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str], *, who: str = "you") -> str:
    """A question with the one of *known* that is nearest to *name*; empty where none is near."""
    match = difflib.get_close_matches(name, known, n=1)
    return f"did {who} mean {match[0]}?" if match else ""

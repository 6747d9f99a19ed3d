"""Names of functions and parameters as models write them."""

from __future__ import annotations

from collections.abc import Iterable

# Characters of a name, as OpenAI has it; declared names may be longer.
_MAX_NAME = 64
# The blanks and quotes around one.
_MAX_AROUND = 8


def longest_name(declared: Iterable[str]) -> int:
    """How many characters a name may have where these are *declared*, with the blanks and quotes around it."""
    return max((_MAX_NAME, *map(len, declared))) + _MAX_AROUND


def tidy(name: str) -> str:
    """*name* without whitespace and quotes around it; "" when it cannot be written as UTF-8."""
    name = name.strip().strip("\"'").strip()
    return "" if any("\ud800" <= char <= "\udfff" for char in name) else name

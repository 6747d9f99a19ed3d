"""The regular expressions of schemas, as Python's `re` has them, matched in bounded time.

Some expressions take years on thirty characters of a model's choosing; `regex` stops when its time is over.
"""

from __future__ import annotations

import functools
import time
from typing import Any

import regex


class BadPattern(ValueError):
    """An expression that cannot be read."""


class TooMuchWork(ValueError):
    """All the time was used up."""


@functools.lru_cache(maxsize=256)
def pattern(expression: str) -> Any:
    """*expression* made ready; `BadPattern` where it is none."""
    try:
        return regex.compile(expression)
    except (regex.error, RecursionError, OverflowError) as error:
        raise BadPattern(f"it is no regular expression that can be read: {error}") from error


class MatchingTime:
    """The *seconds* that may be spent on matching, all expressions together."""

    def __init__(self, seconds: float) -> None:
        self._left_s = seconds

    def found(self, expression: str, text: str) -> bool:
        """Whether *expression* is found anywhere in *text*; `TooMuchWork` when the time is used up."""
        begin_s = time.monotonic()
        try:
            return pattern(expression).search(text, timeout=max(self._left_s, 0)) is not None
        except TimeoutError as error:
            raise TooMuchWork(f"the pattern {expression!r:.80} takes too long to match") from error
        finally:
            self._left_s -= time.monotonic() - begin_s

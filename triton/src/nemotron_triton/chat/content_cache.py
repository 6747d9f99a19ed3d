"""What was made of a text, kept for when the same text comes again, within a bound on memory; for any thread.

Requests of one caller mostly repeat: the same tools, the same system prompt, the same turns before the last one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

_Value = TypeVar("_Value")
# Whatever takes more than this part of a cache would push too much else out of it.
_LARGEST_PART = 8


class ContentCache(Generic[_Value]):
    """Keeps what `get` made last of texts that have up to *max_characters* together, the least recently used go first.

    Its values are shared by requests, so they must never be changed.
    """

    def __init__(self, max_characters: int) -> None:
        self._room = max_characters
        self._largest = max_characters // _LARGEST_PART
        self._lock = threading.Lock()
        # In the order in which they were used.
        self._values: dict[tuple[str, ...], _Value] = {}

    def get(self, key: tuple[str, ...], make: Callable[[], _Value]) -> _Value:
        """What *make* returns for the texts in *key*, which determine it; its errors are raised and not kept."""
        with self._lock:
            if key in self._values:
                value = self._values[key] = self._values.pop(key)
                return value
        value = make()
        size = _size(key)
        with self._lock:
            if size <= self._largest and key not in self._values:
                self._values[key] = value
                self._room -= size
                while self._room < 0:
                    oldest = next(iter(self._values))
                    del self._values[oldest]
                    self._room += _size(oldest)
        return value


def _size(key: tuple[str, ...]) -> int:
    return sum(map(len, key))

"""JSON that keeps what was written: the digits of its numbers, and keys that an object repeats.

Python's own reader makes 100.1 of 100.10 and Infinity of 1e400, and drops all but the last of equal keys. What it reads
exactly stays a plain value here.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import ItemsView, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Python reads no longer integers from text, unless it is told to.
_MAX_DIGITS = 4300
# What stands for an exact value while Python's writer works; no text can hold it by chance, or guess it.
_STAND_IN = secrets.token_hex(16)
_STAND_INS = re.compile(rf'"{_STAND_IN}=(\d+)"|{_STAND_IN}:\d+:')


@dataclass(frozen=True)
class Verbatim:
    """JSON, or what should have been JSON, as it was written: a number that Python cannot hold, or a broken text."""

    text: str

    def __str__(self) -> str:
        return self.text


class RepeatedKeys(Mapping[str, Any]):
    """An object that repeats a key: `items` has every pair, in order, and a key means its last value."""

    def __init__(self, pairs: Sequence[tuple[str, Any]]) -> None:
        self._pairs = pairs
        self._values = dict(pairs)

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def items(self) -> ItemsView[str, Any]:
        """Every pair, as often as it was written."""
        return _Pairs(self._pairs)


class _Pairs(ItemsView[str, Any]):
    def __init__(self, pairs: Sequence[tuple[str, Any]]) -> None:
        super().__init__(dict(pairs))
        self._pairs = pairs

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)


def mapping(pairs: Sequence[tuple[str, Any]]) -> Mapping[str, Any]:
    """The object of *pairs*."""
    values = dict(pairs)
    return values if len(values) == len(pairs) else RepeatedKeys(pairs)


def read(text: str) -> Any:
    """The value that *text* says; `ValueError` or `RecursionError` when it says none."""
    return _decode(text)


def write(value: object, *, ensure_ascii: bool = False, **options: Any) -> str:
    """*value* as `json.dumps` writes it with these *options*."""
    exact: list[str] = []

    def stand_in(value: object) -> object:
        if isinstance(value, RepeatedKeys):
            return {f"{_STAND_IN}:{number}:{key}": item for number, (key, item) in enumerate(value.items())}
        if isinstance(value, Verbatim):
            exact.append(value.text)
            return f"{_STAND_IN}={len(exact) - 1}"
        raise TypeError(f"{type(value).__name__} is no JSON")

    text = json.dumps(value, default=stand_in, ensure_ascii=ensure_ascii, **options)
    return _STAND_INS.sub(lambda match: exact[int(match[1])] if match[1] else "", text) if _STAND_IN in text else text


def _real(text: str) -> float | Verbatim:
    value = float(text)
    return value if repr(value) == text else Verbatim(text)


def _integer(text: str) -> int | Verbatim:
    return Verbatim(text) if len(text) > _MAX_DIGITS or text == "-0" else int(text)


_decode = json.JSONDecoder(
    parse_float=_real, parse_int=_integer, parse_constant=Verbatim, object_pairs_hook=mapping
).decode

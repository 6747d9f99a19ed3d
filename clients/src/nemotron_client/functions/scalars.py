"""The shapes of what is one value in JSON: numbers, texts, texts with a meaning such as dates, and choices."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path, PurePath
from types import NoneType
from typing import Any
from uuid import UUID

from nemotron_client.functions.json_values import json_text, shown
from nemotron_client.functions.shapes import Known, Misfit, NoSchema, Shape, scalar

_NAMES: dict[type, str] = {bool: "boolean", int: "integer", float: "number", str: "string", NoneType: "null"}


def choice(values: Sequence[Any]) -> Shape:
    """One of a few *values*, as JSON has them; `NoSchema` where it does not."""
    try:
        pairs = [(json.loads(json_text(value)), value) for value in values]
    except (TypeError, ValueError) as error:
        raise NoSchema(f"one of its values cannot be JSON: {error}") from error
    if not pairs:
        raise NoSchema("it has no values to choose from")
    texts = [text for text, _ in pairs]

    def read(value: Any, _: Known) -> Any:
        for text, meaning in pairs:
            # JSON's true is not its 1, as Python's is.
            if text == value and isinstance(text, bool) == isinstance(value, bool):
                return meaning
        raise Misfit(f"is {shown(value)}; it must be one of {shown(texts)}")

    kinds = list(dict.fromkeys(_NAMES[type(text)] for text in texts))
    return Shape({"type": kinds[0] if len(kinds) == 1 else kinds, "enum": texts}, read)


def _same(kind: type) -> Callable[[Any], Any]:
    def same(value: Any) -> Any:
        if not isinstance(value, kind):
            raise ValueError(f"it must be of type {_NAMES[kind]}")
        return value

    return same


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
        raise ValueError("it must be of type integer")
    return int(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("it must be of type number")
    return float(value)


def _text_of(make: Callable[[str], Any], **schema: Any) -> Shape:
    text = _same(str)
    return scalar(lambda value: make(text(value)), type="string", **schema)


def _with_offset(text: str) -> str:
    return re.sub("[zZ]$", "+00:00", text)  # CPython 3.10 does not read the letter


def _decimal(text: str) -> Decimal:
    try:
        value = Decimal(text)
    except ArithmeticError as error:
        raise ValueError("it must be a decimal number") from error
    if not value.is_finite():
        raise ValueError("it must be finite")
    return value


SCALARS: dict[Any, Shape] = {
    NoneType: scalar(_same(NoneType), type="null"),
    bool: scalar(_same(bool), type="boolean"),
    int: scalar(_integer, type="integer"),
    float: scalar(_number, type="number"),
    str: scalar(_same(str), type="string"),
    datetime: _text_of(lambda text: datetime.fromisoformat(_with_offset(text)), format="date-time"),
    date: _text_of(date.fromisoformat, format="date"),
    time: _text_of(lambda text: time.fromisoformat(_with_offset(text)), format="time"),
    UUID: _text_of(UUID, format="uuid"),
    Decimal: _text_of(_decimal),
    Path: _text_of(Path),
    PurePath: _text_of(PurePath),
}

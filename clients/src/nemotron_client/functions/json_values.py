"""Python values as JSON: what a function returned, what a parameter's default is, and what an error shows of them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence, Set
from datetime import date, time
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID


def json_text(value: object) -> str:
    """*value* as JSON; `TypeError` or `ValueError` where JSON, or UTF-8, has nothing for it."""
    text = json.dumps(plain(value), ensure_ascii=False, allow_nan=False)
    text.encode()
    return text


def plain(value: object) -> Any:
    """*value* made of JSON's types: dict, list, str, int, float, bool and None; else `TypeError`.

    An Enum's member is its value, or its name where JSON has no such value.
    """
    if isinstance(value, Enum):
        return value.value if isinstance(value.value, (str, int, float, type(None))) else value.name
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, (UUID, Decimal, PurePath)):
        return str(value)
    if isinstance(value, type):
        raise TypeError(f"{value!r} is a class")
    if callable(dump := getattr(value, "model_dump", None)):  # pydantic's
        return dump(mode="json", by_alias=True)
    if callable(dump := getattr(value, "tolist", None)):  # numpy's
        return plain(dump())
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if callable(dump := getattr(value, "_asdict", None)):  # a named tuple's
        return plain(dump())
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, Set):
        # In the same order in every process, so that the engine's prefix cache finds the prompt.
        return sorted((plain(item) for item in value), key=json.dumps)
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
        return [plain(item) for item in value]
    raise TypeError(f"JSON has nothing for {type(value).__name__}")


def shown(value: object) -> str:
    """*value* as an error shows it: JSON where possible, cut to 80 characters."""
    if isinstance(value, str):
        return shortened(json.dumps(value[:80], ensure_ascii=False) + "..." * (len(value) > 80))
    try:
        return shortened(json.dumps(value, ensure_ascii=False, default=repr))
    except (TypeError, ValueError, RecursionError):
        return shortened(repr(value))


def shortened(text: str, length: int = 80) -> str:
    """*text* in one line of at most *length* characters that can be written everywhere."""
    line = " ".join(text[: 4 * length].split()).encode("utf-8", "backslashreplace").decode()
    return line if len(line) <= length else f"{line[: length - 3]}..."

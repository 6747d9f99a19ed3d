"""The arguments of a call as strict JSON, small enough to be looked at: what they must be is not known here."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

from nemotron_client.functions.json_values import shortened, shown
from nemotron_client.functions.shapes import Misfit

MAX_CHARACTERS = 1 << 20
MAX_VALUES = 20_000
MAX_DEPTH = 64


def read_arguments(text: str) -> dict[str, Any]:
    """The object that *text* holds; `Misfit` where it is none, or ambiguous, or too much."""
    if len(text) > MAX_CHARACTERS:
        raise Misfit(f"has {len(text)} characters; at most {MAX_CHARACTERS} are accepted")
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_float=_number, parse_constant=_number)
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:
        raise Misfit(f"cannot be read as JSON: {shortened(str(error))}") from error
    _check_size(value)
    if not isinstance(value, dict):
        raise Misfit(f"is {shown(value)}; it must be an object of arguments by name")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            raise ValueError(f"{shown(name)} is there twice")
        members[name] = value
    return members


def _number(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{shortened(text)} is no number that JSON has")
    return value


def _check_size(value: object) -> None:
    level, count = [value], 1
    for _ in range(MAX_DEPTH):
        level = [item for value in level for item in _items(value)]
        count += len(level)
        if count > MAX_VALUES:
            raise Misfit(f"holds more than {MAX_VALUES} values")
        if not level:
            return
    raise _too_deep()


def _items(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _too_deep() -> Misfit:
    return Misfit(f"is nested more than {MAX_DEPTH} levels deep")

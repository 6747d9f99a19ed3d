"""The values of a request's tensors, and how one of them is read: within its bounds, or refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from nemotron_client import wire
from nemotron_triton.chat.conversation import check_depth
from nemotron_triton.errors import RequestError
from nemotron_triton.serving.settings import Settings

Values: TypeAlias = Mapping[wire.Tensor, Any]

MAX_INT32 = 2**31 - 1
MAX_WORDS = 64
MAX_WORD_BYTES = 1024
# More than any model answers at once, and parsed in seconds.
MAX_RAW_OUTPUT_BYTES = 1 << 20


def check_sizes(values: Values, settings: Settings) -> None:
    """Refuse what is too long before anything reads it."""
    limits = {wire.RAW_OUTPUT: min(settings.max_prompt_bytes, MAX_RAW_OUTPUT_BYTES)}
    for tensor, value in values.items():
        limit = limits.get(tensor, settings.max_prompt_bytes)
        if isinstance(value, str) and (size := byte_count(value)) > limit:
            raise RequestError(f"{tensor} has {size} bytes; at most {limit} are accepted")


def byte_count(text: str) -> int:
    """The length of *text* in UTF-8; ASCII is not copied to be counted."""
    return len(text) if text.isascii() else len(text.encode())


def integer(values: Values, tensor: wire.Tensor, default: int, low: int, high: int = MAX_INT32) -> int:
    """The whole number in a tensor, or the default; `RequestError` when it is out of bounds."""
    return int(within(tensor, values[tensor], low, high)) if tensor in values else default


def number(values: Values, tensor: wire.Tensor, default: float, low: float, high: float) -> float:
    """The number in a tensor, or the default; `RequestError` when it is out of bounds."""
    return within(tensor, values.get(tensor, default), low, high)


def within(tensor: wire.Tensor | str, value: float, low: float, high: float) -> float:
    """*value*; `RequestError` when it is out of bounds."""
    # Written so that NaN fails too.
    if not low <= value <= high:
        limits = f"between {low} and {high}" if high < MAX_INT32 else f"at least {low}"
        raise RequestError(f"{tensor} is {value}; it must be {limits}")
    return value


def sequence(values: Values, tensor: wire.Tensor) -> Sequence[Any]:
    """The entries of a tensor, none without it; `RequestError` when there are too many."""
    entries: Sequence[Any] = values.get(tensor, ())
    if len(entries) > MAX_WORDS:
        raise RequestError(f"{tensor} has {len(entries)} entries; it may have at most {MAX_WORDS}")
    return entries


def words(values: Values, tensor: wire.Tensor) -> tuple[str, ...]:
    """The words in a tensor. Empty ones are left out: clients of tensorrt_llm_bls send them for none."""
    entries = tuple(word for word in sequence(values, tensor) if word)
    for word in entries:
        if (size := len(word.encode())) > MAX_WORD_BYTES:
            raise RequestError(f"{tensor} has a word of {size} bytes; it may have at most {MAX_WORD_BYTES}")
    return entries


def json_value(
    values: Values, tensor: wire.Tensor, limit: int | None = None, read: Callable[[str], Any] = json.loads
) -> Any:
    """The JSON in a tensor, None without it; `RequestError` when it is invalid, or a list longer than *limit*."""
    text = values.get(tensor)
    if text is None:
        return None
    try:
        value = read(text)
    except RecursionError as error:
        raise RequestError(f"{tensor} is nested too deeply") from error
    except ValueError as error:
        raise RequestError(f"{tensor} is not JSON: {error}") from error
    check_depth(tensor.name, value)
    if limit is not None and isinstance(value, list) and len(value) > limit:
        raise RequestError(f"{tensor} has {len(value)} entries; at most {limit} are accepted")
    return value

"""A recorded answer of the demo model, stretched to any length, for engines and models that replay it.

`NEMOTRON_RECORDING` names a JSON file: the ids of the thinking, of the text after it, and of a tool call. It is read
once, and an answer of some length is made once: what replays it pays for neither.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
from pathlib import Path


@functools.cache
def recorded_ids(tokens: int, *, text_alone: bool = False) -> tuple[int, ...]:
    """*tokens* ids: half of them thinking, then text, a tool call at the end; or nothing but text."""
    parts = _parts()
    if text_alone:
        return _stretched(parts["text"], tokens)
    opened, closed, call = parts["opened"], parts["closed"], parts["call"]
    thinking = tokens // 2 - len(opened) - len(closed)
    text = tokens - tokens // 2 - len(call)
    return (*opened, *_stretched(parts["thinking"], thinking), *closed, *_stretched(parts["text"], text), *call)


@functools.cache
def _parts() -> dict[str, list[int]]:
    parts: dict[str, list[int]] = json.loads(Path(os.environ["NEMOTRON_RECORDING"]).read_text())
    return parts


def _stretched(ids: list[int], count: int) -> tuple[int, ...]:
    return tuple(itertools.islice(itertools.cycle(ids), max(0, count)))

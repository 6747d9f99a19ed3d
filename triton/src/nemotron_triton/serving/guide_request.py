"""What an answer must look like, read from the tensors of a request, and small enough for any engine to compile.

The limits keep a schema or an expression from costing more than seconds and megabytes where it is compiled. Whether it
makes sense is for the engine to say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from nemotron_client import wire
from nemotron_triton.chat.conversation import check_depth
from nemotron_triton.chat.grammar import Thinking, after_thinking
from nemotron_triton.engine.interface import Guide
from nemotron_triton.errors import RequestError

MAX_GUIDE_BYTES = 64 * 1024
MAX_EXPRESSION_CHARACTERS = 4096
# How often things may be repeated, all counts in a schema, an expression or a grammar taken together.
MAX_REPETITIONS = 10_000
_MAX_NESTING = 64
_COUNTS = {"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"}
_REPETITION = re.compile(r"\{([0-9]*)(?:,([0-9]*))?\}")
_KINDS = ("json", "json_schema", "regex", "ebnf_grammar")
_TYPE, _GUIDE = wire.GUIDED_DECODING_GUIDE_TYPE, wire.GUIDED_DECODING_GUIDE


def read_guide(values: Mapping[str, Any], thinking: Thinking) -> Guide | None:
    """The guide among *values*, for the text behind the *thinking*; None when there is none."""
    kind, text = values.get(_TYPE.name), values.get(_GUIDE.name, "")
    if kind is None:
        if text:
            raise RequestError(f"{_GUIDE.name} needs {_TYPE.name}: one of {', '.join(_KINDS)}")
        return None
    if kind not in _KINDS:
        raise RequestError(f"{_TYPE.name} is {kind[:80]!r}; it must be one of {', '.join(_KINDS)}")
    if kind == "json":
        if text:
            raise RequestError(f"{_TYPE.name} json means any object and takes no {_GUIDE.name}; use json_schema")
        return Guide(kind="json_schema", text='{"type": "object"}', thinking=thinking)
    if not text:
        raise RequestError(f"{_TYPE.name} {kind} needs {_GUIDE.name}")
    if (size := len(text.encode())) > MAX_GUIDE_BYTES:
        raise RequestError(f"{_GUIDE.name} has {size} bytes; at most {MAX_GUIDE_BYTES} are accepted")
    if kind == "json_schema":
        return Guide(kind="json_schema", text=_schema(text), thinking=thinking)
    if kind == "regex":
        _check_expression(text)
        return Guide(kind="regex", text=text, thinking=thinking)
    _check_grammar(text)
    return Guide(kind="grammar", text=after_thinking(text, thinking), foreign=True)


def _schema(text: str) -> str:
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{_GUIDE.name} is not JSON: {error}") from error
    if not isinstance(schema, Mapping):
        raise RequestError(f"{_GUIDE.name} must be a JSON object that holds a schema")
    check_depth(_GUIDE.name, schema)
    repetitions = 0
    for key, value in _entries(schema):
        if key in _COUNTS and isinstance(value, (int, float)):
            # Written so that what is no number at all counts too.
            repetitions += max(0, int(value)) if value <= MAX_REPETITIONS else MAX_REPETITIONS + 1
        elif key == "pattern" and isinstance(value, str):
            _check_expression(value)
    _check_repetitions(repetitions)
    return json.dumps(schema)


def _entries(value: object) -> Iterator[tuple[str, object]]:
    """All keys at any depth, with their values."""
    if isinstance(value, Mapping):
        yield from value.items()
        for each in value.values():
            yield from _entries(each)
    elif isinstance(value, list):
        for each in value:
            yield from _entries(each)


def _check_expression(text: str) -> None:
    if len(text) > MAX_EXPRESSION_CHARACTERS:
        raise RequestError(
            f"{_GUIDE.name} has an expression of {len(text)} characters; at most {MAX_EXPRESSION_CHARACTERS} "
            "are accepted"
        )
    _check_counts(text)


def _check_grammar(text: str) -> None:
    depth = 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if depth > _MAX_NESTING:
            raise RequestError(f"{_GUIDE.name} is nested more than {_MAX_NESTING} levels deep")
    _check_counts(text)


def _check_counts(text: str) -> None:
    counts = (found.groups(default="") for found in _REPETITION.finditer(text))
    # Nine digits are enough to be too many.
    _check_repetitions(sum(max(int(each[:9] or 0) for each in pair) for pair in counts))


def _check_repetitions(repetitions: int) -> None:
    if repetitions > MAX_REPETITIONS:
        raise RequestError(f"{_GUIDE.name} asks for more than {MAX_REPETITIONS} repetitions; ask for fewer")

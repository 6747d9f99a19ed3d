"""What an answer must look like, read from the tensors of a request, and small enough for any engine to compile.

The limits keep a schema or an expression from costing more than seconds and megabytes where it is compiled. Whether it
makes sense is for the engine to say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from nemotron_client import wire
from nemotron_triton.chat.conversation import check_depth
from nemotron_triton.engine.interface import Guide
from nemotron_triton.errors import RequestError
from nemotron_triton.serving.values import Values

MAX_GUIDE_BYTES = 64 * 1024
MAX_EXPRESSION_CHARACTERS = 4096
# How often things may be repeated, all counts in a schema or an expression taken together. Those of groups in each
# other multiply; those of a schema's levels do not, because engines compile each part of a schema once.
MAX_REPETITIONS = 10_000
_TOO_MANY = 10**9
_COUNTS = {"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"}
# What an expression consists of, as ECMAScript reads it: groups, how often, and parts to be matched.
_PART = re.compile(
    r"""(?P<opens>\((?:\?(?:[:=!]|<[=!]|P?<\w+>))?)
    |(?P<closes>\))
    |\{\s*(?P<least>[0-9]*)\s*(?:,\s*(?P<most>[0-9]*)\s*)?\}
    |(?P<atom>\\.|\[(?:\\.|[^\]\\])*\]?|[^|*+?])""",
    re.DOTALL | re.VERBOSE,
)
# No grammars, because no engine limits what one may cost.
_KINDS = ("json", "json_schema", "regex")
_TYPE, _GUIDE = wire.GUIDED_DECODING_GUIDE_TYPE, wire.GUIDED_DECODING_GUIDE


def read_guide(values: Values) -> Guide | None:
    """The guide among *values*, None when there is none. What thinking comes before it, the prompt will tell."""
    kind, text = values.get(_TYPE), values.get(_GUIDE, "")
    if kind is None:
        if text:
            raise RequestError(f"{_GUIDE} needs {_TYPE}: one of {', '.join(_KINDS)}")
        return None
    if kind not in _KINDS:
        raise RequestError(f"{_TYPE} is {kind[:80]!r}; it must be one of {', '.join(_KINDS)}")
    if kind == "json":
        if text:
            raise RequestError(f"{_TYPE} json means any object and takes no {_GUIDE}; use json_schema")
        return Guide(kind="json_schema", text='{"type": "object"}')
    if not text:
        raise RequestError(f"{_TYPE} {kind} needs {_GUIDE}")
    if (size := len(text.encode())) > MAX_GUIDE_BYTES:
        raise RequestError(f"{_GUIDE} has {size} bytes; at most {MAX_GUIDE_BYTES} are accepted")
    if kind == "json_schema":
        return Guide(kind="json_schema", text=_schema(text))
    _check_repetitions(_expression(text))
    return Guide(kind="regex", text=text)


def _schema(text: str) -> str:
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{_GUIDE} is not JSON: {error}") from error
    if not isinstance(schema, Mapping):
        raise RequestError(f"{_GUIDE} must be a JSON object that holds a schema")
    check_depth(_GUIDE.name, schema)
    repetitions = 0
    for key, value in _entries(schema):
        if key in _COUNTS and isinstance(value, (int, float)):
            # Written so that what is no number at all counts too, and no infinity is made an integer.
            repetitions += 0 if value < 0 else int(value) if value <= MAX_REPETITIONS else MAX_REPETITIONS + 1
        elif key == "pattern" and isinstance(value, str):
            repetitions += _expression(value)
        elif key == "patternProperties" and isinstance(value, Mapping):
            repetitions += sum(map(_expression, value))
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


def _expression(text: str) -> int:
    """How many repetitions the expression *text* asks for."""
    if len(text) > MAX_EXPRESSION_CHARACTERS:
        raise RequestError(
            f"{_GUIDE} has an expression of {len(text)} characters; at most {MAX_EXPRESSION_CHARACTERS} are accepted"
        )
    return _repetitions(text)


def _repetitions(text: str) -> int:
    """How many parts *text* has more when all its repetitions, which multiply each other, are written out."""
    # Of every group that is open: the size of its parts, and of its last one.
    groups: list[tuple[int, int]] = [(0, 0)]
    written = 0
    for part in _PART.finditer(text):
        size, last = groups.pop()
        if part["opens"]:
            groups += [(size, last), (0, 0)]
        elif part["closes"]:
            # One that was never opened ends nothing.
            before = groups.pop()[0] if groups else 0
            groups.append((before + size, size))
        elif part["atom"]:
            written += 1
            groups.append((size + 1, 1))
        else:
            # Nine digits are enough to be too many.
            counts = (int(each.lstrip("0")[:9] or 0) for each in (part["least"], part["most"] or ""))
            repeated = min(last * max(1, *counts), _TOO_MANY)
            groups.append((size - last + repeated, repeated))
    return sum(size for size, _ in groups) - written


def _check_repetitions(repetitions: int) -> None:
    if repetitions > MAX_REPETITIONS:
        raise RequestError(f"{_GUIDE} asks for more than {MAX_REPETITIONS} repetitions; ask for fewer")

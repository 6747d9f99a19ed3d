"""What an answer must look like, read from the tensors of a request, and small enough for any engine to compile.

The limits keep the compilation of a schema or an expression within seconds and megabytes. Whether it is valid, the
engine checks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from nemotron_client import wire
from nemotron_client.shapes import bare_schema
from nemotron_triton.engine.interface import Guide
from nemotron_triton.errors import RequestError
from nemotron_triton.serving.values import Values, json_value

MAX_GUIDE_BYTES = 64 * 1024
MAX_EXPRESSION_CHARACTERS = 4096
# All counts in a schema or an expression together. Those of nested groups multiply; those of a schema's levels do not,
# because engines compile each part of a schema once.
MAX_REPETITIONS = 10_000
_TOO_MANY = 10**9
_COUNTS = {"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"}
# The tokens of a regular expression of ECMAScript: groups, counts, and atoms.
_TOKEN = re.compile(
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
    """The guide among *values*, None without one. The thinking before it is set once there is a prompt."""
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
    if kind == "regex":
        repetitions = _repetitions(text)
    else:
        schema = json_value(values, _GUIDE)
        if not isinstance(schema, Mapping):
            raise RequestError(f"{_GUIDE} must be a JSON object that holds a schema")
        schema = bare_schema(schema)
        repetitions = _repetitions_of_schema(schema)
        text = json.dumps(schema)
    if repetitions > MAX_REPETITIONS:
        raise RequestError(f"{_GUIDE} asks for more than {MAX_REPETITIONS} repetitions; ask for fewer")
    return Guide(kind=kind, text=text)


def _repetitions_of_schema(schema: object) -> int:
    """How many repetitions *schema*, or a part of one, asks for at any depth."""
    if isinstance(schema, list):
        return sum(map(_repetitions_of_schema, schema))
    if not isinstance(schema, Mapping):
        return 0
    repetitions = sum(map(_repetitions_of_schema, schema.values()))
    for key, value in schema.items():
        if key in _COUNTS and isinstance(value, (int, float)):
            # Written so that NaN counts too, and infinity is not converted to an integer.
            repetitions += 0 if value < 0 else int(value) if value <= MAX_REPETITIONS else MAX_REPETITIONS + 1
        elif key == "pattern" and isinstance(value, str):
            repetitions += _repetitions(value)
        elif key == "patternProperties" and isinstance(value, Mapping):
            repetitions += sum(map(_repetitions, value))
    return repetitions


def _repetitions(text: str) -> int:
    """How many atoms the expression *text* gains when its repetitions, which multiply each other, are written out."""
    if len(text) > MAX_EXPRESSION_CHARACTERS:
        raise RequestError(
            f"{_GUIDE} has an expression of {len(text)} characters; at most {MAX_EXPRESSION_CHARACTERS} are accepted"
        )
    # Of every open group: its size in atoms, and that of its last part.
    groups: list[tuple[int, int]] = [(0, 0)]
    atoms = 0
    for token in _TOKEN.finditer(text):
        size, last = groups.pop()
        if token["opens"]:
            groups += [(size, last), (0, 0)]
        elif token["closes"]:
            # A group that was never opened ends nothing.
            before = groups.pop()[0] if groups else 0
            groups.append((before + size, size))
        elif token["atom"]:
            atoms += 1
            groups.append((size + 1, 1))
        else:
            # Nine digits are enough to be too many.
            counts = (int(digits.lstrip("0")[:9] or 0) for digits in (token["least"], token["most"] or ""))
            repeated = min(last * max(1, *counts), _TOO_MANY)
            groups.append((size - last + repeated, repeated))
    return sum(size for size, _ in groups) - atoms

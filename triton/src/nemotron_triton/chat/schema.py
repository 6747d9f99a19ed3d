"""Parameter text to JSON, by what the tool's JSON schema declares.

Only what is declared is tried, in a fixed order; text that fits nothing stays text, and declared strings are never
touched. Validation against the schema is not done here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nemotron_triton.chat.lenient_json import repaired

_ALIASES = {
    "int": "integer", "float": "number", "double": "number", "bool": "boolean", "str": "string", "dict": "object",
    "list": "array", "NoneType": "null",
}  # fmt: skip
_TYPES = {type(None): "null", bool: "boolean", int: "integer", float: "number", str: "string", dict: "object"}
_INTEGER = re.compile(r"([+-]?)0*(\d+)(?:\.0+)?", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
_MAX_DEPTH = 8


def properties(parameters: object) -> Mapping[str, Any]:
    """The declared properties of a function's `parameters`, by name; none when there is no such schema."""
    found = parameters.get("properties") if isinstance(parameters, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def as_json(text: str, declared: object, root: object) -> str:
    """*text* as JSON of a type that the schema *declared* allows, or as a JSON string. *root* resolves references."""
    types = type_names(declared, root)
    for kind, read in _READERS.items():
        if kind in types and (made := read(text.strip())) is not None:
            return made
    return json.dumps(text, ensure_ascii=False)


def type_names(declared: object, root: object) -> list[str]:
    """The names of the types that the schema *declared* allows, each once; none when it does not say."""
    return list(dict.fromkeys(_types(declared, root, _MAX_DEPTH)))


def _null(text: str) -> str | None:
    return "null" if text in ("null", "None") else None


def _integer(text: str) -> str | None:
    found = _INTEGER.fullmatch(text)
    return found[1].replace("+", "") + found[2] if found else None


def _number(text: str) -> str | None:
    if _JSON_NUMBER.fullmatch(text):
        return text
    return repr(float(text)) if _NUMBER.fullmatch(text) and "inf" not in repr(float(text)) else None


def _boolean(text: str) -> str | None:
    return text.lower() if text in ("true", "false", "True", "False") else None


def _object(text: str) -> str | None:
    return repaired(text, "{")


def _array(text: str) -> str | None:
    return repaired(text, "[")


_READERS = {
    "null": _null, "integer": _integer, "number": _number, "boolean": _boolean, "object": _object, "array": _array,
}  # fmt: skip


def _types(schema: object, root: object, depth: int) -> Iterator[str]:
    """The names of the types that *schema* allows, as far as it says."""
    if not isinstance(schema, Mapping) or depth == 0:
        return
    declared = schema.get("type")
    names = [declared] if isinstance(declared, str) else declared if isinstance(declared, Sequence) else []
    yield from (_ALIASES.get(name, name) for name in names if isinstance(name, str))
    if schema.get("nullable") is True:
        yield "null"
    for key in ("anyOf", "oneOf", "allOf"):
        for option in schema[key] if isinstance(schema.get(key), Sequence) else ():
            yield from _types(option, root, depth - 1)
    if isinstance(reference := schema.get("$ref"), str):
        yield from _types(_resolved(reference, root), root, depth - 1)
    if not names:
        values = schema["enum"] if isinstance(schema.get("enum"), Sequence) else ()
        for value in (*values, *([schema["const"]] if "const" in schema else [])):
            yield _TYPES.get(type(value), "array")
        if "properties" in schema:
            yield "object"
        if "items" in schema:
            yield "array"


def _resolved(reference: str, root: object) -> object:
    """What a reference within the schema, such as `#/$defs/Point`, points at; None when it points nowhere."""
    found = root
    for key in reference.removeprefix("#/").split("/"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found

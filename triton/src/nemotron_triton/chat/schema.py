"""Parameter text to JSON, by what the tool's JSON schema declares.

Only what is declared is tried, in a fixed order; text that fits nothing stays text, and declared strings are never
touched. Validation against the schema is not done here.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from nemotron_triton.chat.conversation import MAX_DEPTH
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
# Schemas, names of types and listed values looked at for the types of one parameter: references can make few bytes mean
# a lot, for every parameter anew.
_MAX_LOOKED_AT = 256


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
    found = itertools.islice(_types(declared, root), _MAX_LOOKED_AT)
    return [name for name in dict.fromkeys(found) if name]


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


def _types(declared: object, root: object) -> Iterator[str]:
    """The names of the types that the schema *declared* allows, as far as it says, with "" for each schema looked at.

    Level by level, and no schema twice: what refers to itself would otherwise grow with every level.
    """
    seen: set[int] = set()
    level: Iterable[object] = (declared,)
    for _ in range(_MAX_DEPTH):
        inner: list[Iterator[object]] = []
        for schema in level:
            yield ""
            if isinstance(schema, Mapping) and id(schema) not in seen:
                seen.add(id(schema))
                yield from _own_types(schema)
                inner.append(_inner(schema, root))
        level = itertools.chain.from_iterable(inner)


def _own_types(schema: Mapping[str, Any]) -> Iterator[str]:
    """What *schema* itself says."""
    declared = schema.get("type")
    names = [declared] if isinstance(declared, str) else declared if isinstance(declared, Sequence) else []
    yield from (_ALIASES.get(name, name) if isinstance(name, str) else "" for name in names)
    if schema.get("nullable") is True:
        yield "null"
    if not names:
        values = schema["enum"] if isinstance(schema.get("enum"), Sequence) else ()
        for value in itertools.chain(values, [schema["const"]] if "const" in schema else []):
            yield _TYPES.get(type(value), "array")
        if "properties" in schema:
            yield "object"
        if "items" in schema:
            yield "array"


def _inner(schema: Mapping[str, Any], root: object) -> Iterator[object]:
    """The schemas that *schema* leaves the choice between, or refers to."""
    for key in ("anyOf", "oneOf", "allOf"):
        yield from schema[key] if isinstance(schema.get(key), Sequence) else ()
    if isinstance(reference := schema.get("$ref"), str):
        yield _resolved(reference, root)


def _resolved(reference: str, root: object) -> object:
    """What a reference within the schema, such as `#/$defs/Point`, points at; None when it points nowhere."""
    found = root
    for key in reference.removeprefix("#/").split("/", MAX_DEPTH):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found

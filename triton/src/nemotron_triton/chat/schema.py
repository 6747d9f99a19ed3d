"""The text of a parameter as JSON, by the type that the tool's JSON schema declares.

Only declared types are tried, in a fixed order; text that fits none becomes a JSON string, as does every text of a
parameter that may be no other type. Nothing is validated against the schema.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from nemotron_triton.chat.conversation import MAX_DEPTH
from nemotron_triton.chat.lenient_json import repaired

ALIASES = {
    "int": "integer", "float": "number", "double": "number", "bool": "boolean", "str": "string", "dict": "object",
    "list": "array", "NoneType": "null",
}  # fmt: skip
# What a schema that names no type is about.
IMPLIED = {
    "object": ("properties", "required", "additionalProperties", "minProperties", "maxProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "string": ("pattern", "minLength", "maxLength"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}
TYPES = {type(None): "null", bool: "boolean", int: "integer", float: "number", str: "string", dict: "object"}
_INTEGER = re.compile(r"([+-]?)0*(\d+)(?:\.0+)?", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
_MAX_DEPTH = 8
# Schemas, names of types and enum values visited for one parameter: references let a few bytes describe very many.
_MAX_VISITED = 256


def properties(parameters: object) -> Mapping[str, Any]:
    """The declared properties of a function's `parameters`, by name; none when there is no such schema.

    One that several parts of the schema declare may be what any of them says.
    """
    found: dict[str, list[Any]] = {}
    for schema in itertools.islice(_schemas(parameters, parameters), _MAX_VISITED):
        declared = schema.get("properties") if isinstance(schema, Mapping) else None
        for name, about in declared.items() if isinstance(declared, Mapping) else ():
            found.setdefault(name, []).append(about)
    return {name: abouts[0] if len(abouts) == 1 else {"anyOf": abouts} for name, abouts in found.items()}


def same(one: object, other: object) -> bool:
    """Whether two values are equal for JSON, where true is not 1."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def as_json(text: str, declared: object, root: object) -> str:
    """*text* as JSON of a type that the schema *declared* allows, or as a JSON string. *root* resolves references."""
    types = type_names(declared, root)
    for kind, read in _READERS.items():
        if kind in types and (value := read(text.strip())) is not None:
            return value
    return json.dumps(text, ensure_ascii=False)


def is_text(declared: object, root: object) -> bool:
    """Whether every text of a parameter with the schema *declared* becomes a JSON string."""
    return not any(kind in _READERS for kind in type_names(declared, root))


def type_names(declared: object, root: object) -> list[str]:
    """The names of the types that the schema *declared* allows, each once; none when it names none."""
    names = itertools.islice(_types(declared, root), _MAX_VISITED)
    return [name for name in dict.fromkeys(names) if name]


def implied_types(schema: Mapping[str, Any]) -> list[str]:
    """The types that the keywords of *schema*, which names none, are about."""
    return [name for name, keywords in IMPLIED.items() if any(keyword in schema for keyword in keywords)]


def _integer(text: str) -> str | None:
    match = _INTEGER.fullmatch(text)
    return match[1].replace("+", "") + match[2] if match else None


def _number(text: str) -> str | None:
    if not _NUMBER.fullmatch(text) or math.isinf(float(text)):
        return None
    return text if _JSON_NUMBER.fullmatch(text) else repr(float(text))


_READERS: dict[str, Callable[[str], str | None]] = {
    "null": lambda text: "null" if text in ("null", "None") else None,
    "integer": _integer,
    "number": _number,
    "boolean": lambda text: text.lower() if text.lower() in ("true", "false") else None,
    "object": lambda text: repaired(text, "{"),
    "array": lambda text: repaired(text, "["),
}


def _types(declared: object, root: object) -> Iterator[str]:
    """The names of the types that the schema *declared* allows, and "" for each schema that is visited."""
    for schema in _schemas(declared, root):
        yield ""
        if isinstance(schema, Mapping):
            yield from _own_types(schema)


def _schemas(declared: object, root: object) -> Iterator[object]:
    """The schema *declared* and those that it is made of, and None for one that was met before.

    Breadth first, and no schema twice: one that refers to itself would otherwise grow with every level.
    """
    seen: set[int] = set()
    level: Iterable[object] = (declared,)
    for _ in range(_MAX_DEPTH):
        inner: list[Iterator[object]] = []
        for schema in level:
            if not isinstance(schema, Mapping) or id(schema) in seen:
                yield None
                continue
            seen.add(id(schema))
            yield schema
            inner.append(_inner(schema, root))
        level = itertools.chain.from_iterable(inner)


def _own_types(schema: Mapping[str, Any]) -> Iterator[str]:
    declared = schema.get("type")
    names = [declared] if isinstance(declared, str) else declared if isinstance(declared, Sequence) else []
    yield from (ALIASES.get(name, name) if isinstance(name, str) else "" for name in names)
    if schema.get("nullable") is True:
        yield "null"
    if not names:
        values = schema["enum"] if isinstance(schema.get("enum"), Sequence) else ()
        for value in itertools.chain(values, [schema["const"]] if "const" in schema else []):
            yield TYPES.get(type(value), "array")
        yield from implied_types(schema)


def _inner(schema: Mapping[str, Any], root: object) -> Iterator[object]:
    for key in ("anyOf", "oneOf", "allOf"):
        yield from schema[key] if isinstance(schema.get(key), Sequence) else ()
    if isinstance(reference := schema.get("$ref"), str):
        yield _resolved(reference, root)


def _resolved(reference: str, root: object) -> object:
    """The target of a reference within the schema, such as `#/$defs/Point`; None when there is none."""
    target = root
    for key in reference.removeprefix("#/").split("/", MAX_DEPTH):
        target = target.get(key) if isinstance(target, Mapping) else None
    return target

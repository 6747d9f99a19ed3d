"""A JSON schema as alternatives without references and combinations, each a plain object of keywords.

`anyOf`, `oneOf` whose parts exclude each other, `allOf`, `$ref` into the schema itself, and keywords beside them.
What cannot be written so, and keywords that no grammar follows, are refused by name.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeAlias
from urllib.parse import unquote

from nemotron_triton.chat import schema as schemas
from nemotron_triton.chat.conversation import shown
from nemotron_triton.errors import RequestError

MAX_ALTERNATIVES = 64
TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
_COMBINATIONS = ("$ref", "allOf", "anyOf", "oneOf")
_ANYTHING: tuple[object, ...] = (True, {})
# Assertions that no grammar of ours follows; the values beside mean that they assert nothing.
_NOT_FOLLOWED: dict[str, tuple[object, ...]] = {
    "not": (False,), "if": (), "contains": (), "uniqueItems": (False,), "patternProperties": ({},),
    # Names are strings, and some libraries say so.
    "propertyNames": (*_ANYTHING, {"type": "string"}),
    **dict.fromkeys(("dependentRequired", "dependentSchemas", "dependencies"), ({},)),
    **dict.fromkeys(("unevaluatedItems", "unevaluatedProperties", "additionalItems"), _ANYTHING),
    "$dynamicRef": (), "$recursiveRef": (),
}  # fmt: skip
_LEAST = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_MOST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_NUMBER, _SCHEMA, _LIST = (int, float), (Mapping, bool), (list, tuple)
_FORMS: dict[str, tuple[tuple[type, ...], str]] = {
    **dict.fromkeys((*_LEAST, *_MOST, "multipleOf"), (_NUMBER, "a number")),
    **dict.fromkeys(("items", "additionalProperties"), (_SCHEMA, "a schema")),
    **dict.fromkeys(("required", "enum", "prefixItems"), (_LIST, "a list")),
    "type": ((str, *_LIST), "a type or a list of types"),
    "properties": ((Mapping,), "an object of schemas"),
    "pattern": ((str,), "an expression"),
}
# Whatever else a schema has is an annotation.
_ASSERTIONS = {*_FORMS, "const"}
MAX_VISITED = 3000
Plain: TypeAlias = Mapping[str, Any]


class SchemaParts:
    """The parts of the schema *root* of the parameters of *function*, whose name messages have."""

    def __init__(self, function: str, root: object) -> None:
        self._function = function
        self._root = root
        self._visited = 0

    def refuse(self, keyword: str, value: object, why: str) -> NoReturn:
        """Raise the `RequestError` about a *keyword* with this *value*."""
        raise RequestError(
            f"a call of {shown(self._function)} cannot be made to follow {keyword} {shown(value)} in its parameters: "
            f"{why}; leave the keyword out, or the choice to the model (auto, without strict)"
        )

    def alternatives(self, schema: object, behind: tuple[str, ...] = ()) -> list[Plain]:
        """The plain schemas of which a value must fit one; none where nothing fits. *behind* are references."""
        if isinstance(schema, bool):
            return [{}] if schema else []
        if not isinstance(schema, Mapping):
            self.refuse("the schema", schema, "it must be an object, true or false")
        self._visited += 1
        if self._visited > MAX_VISITED:
            self.refuse("the schema", schema, "its references and alternatives make too much of it")
        for keyword in schema.keys() & _FORMS.keys():
            kinds, form = _FORMS[keyword]
            value = schema[keyword]
            if not isinstance(value, kinds) or (isinstance(value, bool) and kinds != _SCHEMA) or value != value:
                self.refuse(keyword, value, f"it must be {form}")
        if "type" in schema and not (types_of(schema) and {*types_of(schema)} <= {*TYPES}):
            self.refuse("type", schema["type"], f"types are {', '.join(TYPES)}")
        for keyword in schema.keys() & _NOT_FOLLOWED.keys():
            idle = keyword == "if" and not schema.keys() & {"then", "else"}
            if schema[keyword] not in _NOT_FOLLOWED[keyword] and not idle:
                self.refuse(keyword, schema[keyword], "no grammar can")
        own = {key: value for key, value in schema.items() if key in _ASSERTIONS}
        found: list[Plain] = [own]
        for keyword in _COMBINATIONS:
            if keyword in schema:
                found = self._each(found, self._parts(keyword, schema[keyword], behind), keyword, schema[keyword])
        return found

    def _each(self, ones: list[Plain], others: list[Plain], keyword: str, value: object) -> list[Plain]:
        """What fits one of *ones* and one of *others*, which the *keyword* brought."""
        merged = (self._merged(one, other) for one in ones for other in others)
        found = [schema for schema in merged if schema is not None]
        if len(found) > MAX_ALTERNATIVES:
            self.refuse(keyword, value, f"it makes more than {MAX_ALTERNATIVES} alternatives")
        return found

    def _parts(self, keyword: str, value: object, behind: tuple[str, ...]) -> list[Plain]:
        if keyword == "$ref":
            if value in behind:
                self.refuse("$ref", value, "it refers to itself")
            return self.alternatives(self.resolved(value), (*behind, str(value)))
        if not isinstance(value, Sequence) or isinstance(value, str) or not value:
            self.refuse(keyword, value, "it must be a list of schemas")
        options = [self.alternatives(option, behind) for option in value]
        if keyword == "allOf":
            every: list[Plain] = [{}]
            for option in options:
                every = self._each(every, option, keyword, value)
            return every
        if keyword == "oneOf":
            pairs = itertools.combinations(options, 2)
            if not all(_exclusive(one, other) for ones, others in pairs for one in ones for other in others):
                self.refuse(keyword, value, "a value may fit several of its schemas; use anyOf")
        return [schema for option in options for schema in option]

    def resolved(self, reference: object) -> object:
        """The schema that *reference* leads to."""
        target: Any = self._root
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            self.refuse("$ref", reference, "it must lead into the same schema, as #/$defs/NAME does")
        for key in reference.split("/")[1:]:
            key = unquote(key).replace("~1", "/").replace("~0", "~")
            if isinstance(target, Mapping) and key in target:
                target = target[key]
            elif isinstance(target, list) and key.isdecimal() and int(key) < len(target):
                target = target[int(key)]
            else:
                self.refuse("$ref", reference, "it leads nowhere")
        return target

    def _merged(self, one: Plain, other: Plain) -> Plain | None:
        """A schema for what fits both; None where nothing does."""
        if not one or not other:
            return other or one
        both = {**one, **other}
        if "properties" in both:
            both["properties"] = {
                name: _all_of(
                    schema.get("properties", {}).get(name, schema.get("additionalProperties", True))
                    for schema in (one, other)
                )
                for name in {**one.get("properties", {}), **other.get("properties", {})}
            }
        if "prefixItems" in both and all({"items", "prefixItems"} & schema.keys() for schema in (one, other)):
            self.refuse("prefixItems", both["prefixItems"], "other items apply to the same value")
        for key in (one.keys() & other.keys()) - {"properties"}:
            first, second = one[key], other[key]
            if key == "type":
                both[key] = common_types(first, second)
                if not both[key]:
                    return None
            elif key in _LEAST:
                both[key] = max(first, second)
            elif key in _MOST:
                both[key] = min(first, second)
            elif key == "required":
                both[key] = [*first, *second]
            elif key in ("items", "additionalProperties"):
                both[key] = _all_of((first, second))
            elif key == "enum":
                both[key] = [value for value in first if _has(second, value)]
            elif key == "const":
                if not _has([first], second):
                    return None
            elif first != second:
                self.refuse(key, second, f"another one, {shown(first)}, applies to the same value")
        return both


def types_of(schema: Mapping[str, Any]) -> list[str]:
    """The names of types in *schema*, those of other languages as those of JSON Schema."""
    declared = schema.get("type", ())
    names = [declared] if isinstance(declared, str) else declared
    return [schemas.ALIASES.get(name, name) if isinstance(name, str) else "" for name in names]


def values_of(schema: Mapping[str, Any]) -> list[Any] | None:
    """The values that `const` and `enum` leave; None where *schema* has neither."""
    values = schema.get("enum")
    if "const" in schema:
        const = schema["const"]
        return [const] if values is None or _has(values, const) else []
    return list(values) if isinstance(values, (list, tuple)) else None


def common_types(one: object, other: object) -> list[str]:
    """The types that two values of `type` both allow."""
    ones, others = (types_of({"type": names}) for names in (one, other))
    common = [name for name in ones if name in others]
    pairs = {(one, other) for one in ones for other in others}
    if "integer" not in common and pairs & {("integer", "number"), ("number", "integer")}:
        common.append("integer")
    return common


def _exclusive(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether it is plain that no value fits both plain schemas: by their types, values, or those of a property."""
    values, others = values_of(one), values_of(other)
    if values is not None and others is not None:
        return not any(_has(others, value) for value in values)
    types, other_types = types_of(one), types_of(other)
    if types and other_types and not common_types(types, other_types):
        return True
    if types != ["object"] or other_types != ["object"]:
        return False
    return any(name in _required(other) and _differ(one, other, name) for name in _required(one))


def _differ(one: Mapping[str, Any], other: Mapping[str, Any], name: str) -> bool:
    parts = [schema.get("properties", {}).get(name) for schema in (one, other)]
    values = [values_of(part) if isinstance(part, Mapping) else None for part in parts]
    return None not in values and not any(_has(values[1] or (), value) for value in values[0] or ())


def _has(values: Iterable[object], value: object) -> bool:
    """Whether *value* is among *values*, for JSON: Python takes true for 1."""
    return any(schemas.same(value, other) for other in values)


def _required(schema: Mapping[str, Any]) -> Iterator[str]:
    yield from (name for name in schema.get("required", ()) if isinstance(name, str))


def _all_of(schemas: Iterable[object]) -> object:
    parts = [schema for schema in schemas if schema is not True]
    return {"allOf": parts} if len(parts) > 1 else parts[0] if parts else True

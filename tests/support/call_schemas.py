"""Schemas of a function's parameters, one or two for each keyword that docs/answers.md lists as followed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class CallSchema:
    """A schema, arguments that fit it, and arguments that do not."""

    schema: dict[str, Any]
    right: list[dict[str, Any]]
    wrong: list[dict[str, Any]]


def of(properties: dict[str, Any], *, required: list[str] | None = None, **keywords: Any) -> dict[str, Any]:
    """An object's schema; all properties are required by default."""
    needed = list(properties) if required is None else required
    return {"type": "object", "properties": properties, "required": needed, **keywords}


def about(value: dict[str, Any], right: list[Any], wrong: list[Any], **keywords: Any) -> CallSchema:
    """One parameter, whose schema is *value*."""
    return CallSchema(of({"x": value}, **keywords), [{"x": x} for x in right], [{"x": x} for x in wrong])


TREE = {
    "type": "object",
    "properties": {"v": {"type": "integer"}, "kids": {"type": "array", "items": {"$ref": "#/$defs/T"}, "maxItems": 2}},
    "required": ["v"],
}
CIRCLE = of({"kind": {"const": "circle"}, "radius": {"type": "number", "exclusiveMinimum": 0}})
SQUARE = of({"kind": {"const": "square"}, "label": {"type": "string", "maxLength": 5}})
CALL_SCHEMAS = {
    "minimum, maximum": about({"type": "integer", "minimum": 5, "maximum": 70}, [5, 7, 70], [4, 71, 700, -5, 5.5]),
    "negative minimum": about({"type": "integer", "minimum": -12, "maximum": -3}, [-12, -3], [-13, -2, 5, 0]),
    "exclusive bounds": about(
        {"type": "integer", "exclusiveMinimum": -3, "exclusiveMaximum": 12}, [-2, 0, 11], [-3, 12, 100]
    ),
    "bounds of a number": about(
        {"type": "number", "minimum": 0.5, "maximum": 2.75}, [0.5, 1, 2.75, 2.7], [0.49, 2.76, 3, -1.5]
    ),
    "exclusive bounds of a number": about(
        {"type": "number", "exclusiveMinimum": -1.5, "exclusiveMaximum": 1.5}, [-1.4, 0, 1.49], [-1.5, 1.5, 15]
    ),
    "multipleOf": about({"type": "integer", "multipleOf": 7, "minimum": 10, "maximum": 100}, [14, 98], [7, 15, 105]),
    "multipleOf a half": about({"type": "number", "multipleOf": 0.5, "maximum": 10}, [9.5, -3, 0], [9.75, 10.5]),
    "const": about({"const": 5}, [5], [6, 55, "5x"]),
    "const of a string": about({"const": "on"}, ["on"], ["off", "on it", 1]),
    "enum": about({"enum": ["red", "green", 3, None, True]}, ["red", 3, None, True], ["blue", 4, False]),
    "pattern": about({"type": "string", "pattern": "^[0-9]{3}$"}, ["180", "007"], ["18", "1800", "abc"]),
    "pattern and maxLength": about(
        {"type": "string", "pattern": "^[A-Z]{2,4}-\\d+$", "maxLength": 8}, ["AB-1", "ABCD-123"], ["A-1", "ABCD-1234"]
    ),
    "pattern that is not anchored": about(
        {"type": "string", "pattern": "ab+c", "maxLength": 20}, ["abc", "x abbc y"], ["ac", "xyz"]
    ),
    "pattern beyond ASCII": about(
        {"type": "string", "pattern": "^[a-zà-ÿ€🙂]+ [А-яЁё]{2,3}$", "maxLength": 12},
        ["ça€🙂 Ёж", "é Жук"],
        ["é xy", "É Ёж", "日 Ёж", "ça Ёжик"],
    ),
    "pattern of any character": about(
        {"type": "string", "pattern": "^.\\S[^x<]{2}$"}, ["日é🙂y", " ab "], ["日 🙂y", "日é🙂x", "日é🙂"]
    ),
    "maxLength": about({"type": "string", "maxLength": 3}, ["", "abc", 'a"\n', "süß"], ["abcd", "a < b"]),
    "minLength": about({"type": "string", "minLength": 4, "maxLength": 12}, ["abcd", "<b>hi</b>"], ["abc", "a" * 13]),
    "maxLength over 100": about({"type": "string", "maxLength": 120}, ["a" * 120], ["a" * 121]),
    "nesting": about(
        of(
            {"name": {"type": "string", "maxLength": 9}, "age": {"type": "integer", "minimum": 0, "maximum": 150}},
            additionalProperties=False,
        ),
        [{"name": "Ada", "age": 36}],
        [{"name": "Ada", "age": 151}, {"name": "Ada"}, {"name": "Ada", "age": 3, "more": 1}, {"name": 1, "age": 3}, {}],
    ),
    "array of enum": about(
        {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 1, "maxItems": 3},
        [["a"], ["b", "a", "b"]],
        [[], ["c"], ["a"] * 4, "a"],
    ),
    "minItems": about(
        {"type": "array", "items": {"type": "integer", "maximum": 9}, "minItems": 2, "maxItems": 4},
        [[1, 9], [1, 2, 3, 4]],
        [[1], [1, 2, 3, 4, 5], [1, 10]],
    ),
    "prefixItems": about(
        {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "boolean"}], "items": False, "minItems": 2},
        [[1, True]],
        [[1], [True, 1], [1, True, 2]],
    ),
    "$ref": about({"$ref": "#/$defs/C"}, ["north"], ["west"], **{"$defs": {"C": {"enum": ["north", "south"]}}}),
    "$ref to itself": about(
        {"$ref": "#/$defs/T"},
        [{"v": 1}, {"v": 1, "kids": [{"v": 2, "kids": [{"v": 3}]}, {"v": 4}]}],
        [{"kids": []}, {"v": 1, "kids": [{}]}, {"v": 1, "kids": [{"v": 1}] * 3}],
        **{"$defs": {"T": TREE}},
    ),
    "anyOf": about(
        {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 3}, {"type": "null"}]}, [1, 3, None], [4, 0, True]
    ),
    "anyOf with a string": about(
        {"anyOf": [{"type": "integer", "minimum": 100}, {"type": "string", "maxLength": 4}]},
        [100, 4711, "abcd", "x"],
        [99, "abcde"],
    ),
    "oneOf": about(
        {"oneOf": [CIRCLE, SQUARE]},
        [{"kind": "circle", "radius": 1.5}, {"kind": "square", "label": "a"}],
        [{"kind": "circle", "label": "a"}, {"kind": "circle", "radius": 0}, {"kind": "oval"}],
    ),
    "allOf": about({"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 6}]}, [3, 6], [2, 7]),
    "additionalProperties": about(
        {"type": "object", "additionalProperties": {"type": "integer", "minimum": 0}, "maxProperties": 3},
        [{}, {"a": 1, "b": 0}],
        [{"a": -1}, {"a": "x"}, dict.fromkeys("abcd", 1)],
    ),
    "additionalProperties of the function": CallSchema(
        of({"x": {"type": "boolean"}}, additionalProperties={"type": "string", "maxLength": 20}),
        [{"x": True}, {"x": True, "more": "text"}],
        [{"more": "text"}, {"x": 1}],
    ),
    "required": CallSchema(
        of(
            {"a": {"type": "integer"}, "b": {"type": "boolean"}, "c": {"type": "string", "maxLength": 8}},
            required=["b"],
            additionalProperties=False,
        ),
        [{"b": True}, {"a": 1, "b": False, "c": "x"}, {"b": True, "c": "x"}],
        [{"a": 1}, {"a": 1, "c": "x"}, {"b": True, "d": 1}],
    ),
    "a required property that is not declared": CallSchema(
        of({"x": {"type": "integer"}}, required=["x", "y"]), [{"x": 1, "y": "text"}], [{"x": 1}, {"y": "text"}]
    ),
    "a property that is not allowed": CallSchema(
        of({"x": {"type": "boolean"}, "y": False}, required=["x"], additionalProperties=True),
        [{"x": True}, {"x": True, "z": "text"}],
        [{"x": True, "y": "text"}],
    ),
    "alternatives of the function": CallSchema(
        {
            "anyOf": [
                of({"kind": {"const": "a"}, "x": {"type": "integer", "minimum": 3}}),
                of({"kind": {"const": "b"}, "x": {"type": "string", "maxLength": 4}, "y": {"$ref": "#/$defs/Y"}}),
            ],
            "$defs": {"Y": {"type": "array", "items": {"type": "boolean"}}},
        },
        [{"kind": "a", "x": 3}, {"kind": "b", "x": "text", "y": [True]}],
        [{"kind": "a", "x": 2}, {"kind": "a", "x": "text"}, {"kind": "b", "x": "text"}, {"kind": "b", "x": 1, "y": []}],
    ),
    "enum beside keywords of objects and arrays": about(
        {
            "enum": [{"a": 1}, {"a": 0}, {"b": 1}, {"a": 1, "b": 2}, [1, 2], [1], ["x", 2]],
            "required": ["a"],
            "properties": {"a": {"minimum": 1}},
            "maxProperties": 1,
            "minItems": 2,
            "items": {"type": "integer"},
        },
        [{"a": 1}, [1, 2]],
        [{"a": 0}, {"b": 1}, {"a": 1, "b": 2}, [1], ["x", 2]],
    ),
    "enum of characters that a literal must escape": about(
        {"enum": ["\t", "a\x7fb\x01", "\\u0041", '\\"é\n日\r.']},
        ["\t", "a\x7fb\x01", "\\u0041", '\\"é\n日\r.'],
        ["A", " ", "ab"],
    ),
    "a name beyond ASCII": CallSchema(
        of({"größe": {"type": "integer"}}, required=[], additionalProperties={"type": "string"}),
        [{}, {"größe": 1}, {"größe": 2, "grob": "x"}],
        [{"größe": "x"}],
    ),
    "const of the function": CallSchema(
        {"const": {"x": "a"}, "properties": {"x": {"type": "string"}}}, [{"x": "a"}], [{}, {"x": "b"}]
    ),
    "enum beside allOf": about(
        {"allOf": [{"enum": [1, 0, "a"]}, {"enum": [True, 0.0, "a"]}]}, [0, "a"], [1, True, "b"]
    ),
    "propertyNames that are strings": about(
        {"type": "object", "propertyNames": {"type": "string"}, "additionalProperties": {"type": "integer"}},
        [{"a": 1}],
        [{"a": "b"}],
    ),
    "types": CallSchema(
        of({"x": {"type": ["integer", "boolean"]}, "y": {"type": "null"}}),
        [{"x": 1, "y": None}, {"x": True, "y": None}],
        [{"x": "a", "y": None}, {"x": 1.5, "y": None}, {"x": 1, "y": 1}],
    ),
}


def spelt(tool_call_format: str, name: str, arguments: dict[str, Any]) -> str:
    """A call, as a model of that format writes it."""
    import json

    if tool_call_format == "nemotron_json":
        call = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
        return f"<TOOLCALL>[{call}]</TOOLCALL>"
    values = {key: value if isinstance(value, str) else json.dumps(value) for key, value in arguments.items()}
    lines = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in values.items())
    return f"<tool_call>\n<function={name}>\n{lines}</function>\n</tool_call>"


# What bounds neither a string nor how many members there are: a model may write on up to the token limit.
UNBOUNDED = {
    "a name beyond ASCII",
    "a property that is not allowed",
    "a required property that is not declared",
    "alternatives of the function",
    "propertyNames that are strings",
}
BOUNDED_SCHEMAS = {name: schema for name, schema in CALL_SCHEMAS.items() if name not in UNBOUNDED}

"""Lenient JSON and schema types: what is repaired, and what is left alone."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemotron_triton.chat.answer import AnswerParser, AnswerRules
from nemotron_triton.chat.lenient_json import members, repaired
from nemotron_triton.chat.schema import as_json, type_names

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=6), JSON, max_size=5), st.booleans(), st.sampled_from([None, 1]))
def test_valid_json_is_not_touched(value: dict[str, Any], ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)

    assert repaired(text, "{") == text
    assert {key: json.loads(member) for key, member in (members(text) or {}).items()} == value


@given(st.text(max_size=60) | st.text(alphabet="{}[]\"':,\\ aT1", max_size=60))
def test_whatever_comes_out_is_valid_json(text: str) -> None:
    repair = repaired("{" + text, "{")

    assert repair is None or isinstance(json.loads(repair), dict)


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ("{'a': 1}", {"a": 1}),
        ("{'a': 'x\"y'}", {"a": 'x"y'}),
        ('{"a": True, "b": None,}', {"a": True, "b": None}),
        ('{"a": [1, 2}', {"a": [1, 2]}),
        ('{"a": {"b": 1}', {"a": {"b": 1}}),
        ('{"a": 1,, "b": 2}', {"a": 1, "b": 2}),
        ('{"a": "x\ty"}', {"a": "x\ty"}),
        ('{"a": "Trueish None"}', {"a": "Trueish None"}),
        ('{"a": "it\\\'s"}', {"a": "it's"}),
        ('{"a": 1} x', None),
        ('{"a": nope}', None),
        ('{"a": NaN}', None),
        ('{"a": "x}', None),
        ('{"a" 1}', None),
        ('{"a": 01}', None),
    ],
)
def test_repairs(broken: str, expected: dict[str, Any] | None) -> None:
    repair = repaired(broken, "{")

    assert (None if repair is None else json.loads(repair)) == expected


@given(st.dictionaries(st.text(max_size=6), JSON, max_size=5), st.sampled_from([None, 1]))
def test_a_call_in_valid_json_counts_as_no_repair(arguments: dict[str, Any], indent: int | None) -> None:
    call = json.dumps([{"name": "f", "arguments": arguments}], indent=indent)

    assert repairs("nemotron_json", f"<TOOLCALL>{call}</TOOLCALL>") == 0


@pytest.mark.parametrize(
    ("style", "text", "expected"),
    [
        ("nemotron_json", '<TOOLCALL>[{"name": "f", "arguments": {"a": True}}]</TOOLCALL>', 1),
        ("nemotron_json", '<TOOLCALL>[{"name": "f", "arguments": {"a": 1}]</TOOLCALL>', 1),
        ("nemotron_json", '<TOOLCALL>[{"name": "f", "arguments": "{\\"a\\": 1}"}]</TOOLCALL>', 1),
        ("nemotron_json", """<TOOLCALL>[{'name': 'f'}, {"name": "f"}, {"name": "f",}]</TOOLCALL>""", 2),
        ("nemotron_json", '<TOOLCALL>[{"name": "f", "arguments": {"a": "x}}]</TOOLCALL>', 0),
        ("nemotron_json", "no call, {'a': True,}", 0),
        ("qwen3_coder", "<tool_call><function=f>{'a': 1}</function></tool_call>", 1),
        ("qwen3_coder", '<tool_call><function=f>{"a": 1}</function></tool_call>', 0),
        ("qwen3_coder", "<tool_call><function=f><parameter=a>True</parameter></function></tool_call>", 0),
        ("nemotron_json", "<think>\nhm <TOOLCALL>[{'name': 'f'}]</TOOLCALL>", 1),
    ],
)
def test_repairs_are_counted_by_call(style: str, text: str, expected: int) -> None:
    assert repairs(style, text) == expected


def repairs(style: str, text: str) -> int:
    """How many calls needed one, the text coming character by character."""
    parser = AnswerParser(AnswerRules(tool_call_format=style))
    for char in text:
        parser.feed(char)
    parser.finish()
    return parser.repairs


@pytest.mark.parametrize(
    ("declared", "text", "expected"),
    [
        ({"type": "string"}, "007", "007"),
        ({"type": "string"}, "null", "null"),
        ({"type": "string"}, ' "q" ', ' "q" '),
        ({"type": "integer"}, "007", 7),
        ({"type": "integer"}, "-5", -5),
        ({"type": "integer"}, "5.0", 5),
        ({"type": "integer"}, "5.5", "5.5"),
        ({"type": "integer"}, "9007199254740993", 9007199254740993),
        ({"type": "integer"}, "९", "९"),
        ({"type": "number"}, "1e2", 100.0),
        ({"type": "number"}, "+.5", 0.5),
        ({"type": "number"}, "inf", "inf"),
        ({"type": "boolean"}, "True", True),
        ({"type": "boolean"}, "1", "1"),
        ({"type": ["integer", "null"]}, "null", None),
        ({"type": ["string", "null"]}, "None", None),
        ({"type": "integer", "nullable": True}, "null", None),
        ({"anyOf": [{"type": "number"}, {"type": "null"}]}, "12.5", 12.5),
        ({"oneOf": [{"$ref": "#/$defs/point"}]}, '{"x": 1}', {"x": 1}),
        ({"$ref": "#/$defs/nowhere"}, "5", "5"),
        ({"enum": [1, 2]}, "2", 2),
        ({"const": True}, "true", True),
        ({"type": "object"}, "{'x': True}", {"x": True}),
        ({"type": "object"}, "x", "x"),
        ({"type": "array"}, "[1, 'a',]", [1, "a"]),
        ({"items": {"type": "string"}}, '["a"]', ["a"]),
        ({"type": "list"}, "[1]", [1]),
        ({}, "5", "5"),
        (None, "5", "5"),
        (True, "5", "5"),
    ],
)
def test_text_becomes_what_the_schema_declares(declared: object, text: str, expected: object) -> None:
    root = {"$defs": {"point": {"type": "object"}}}

    value = json.loads(as_json(text, declared, root))

    assert (value, type(value)) == (expected, type(expected))


@pytest.mark.parametrize(
    "declared",
    [
        {"anyOf": [{"$ref": "a"}] * 300},
        {"anyOf": [{"anyOf": [{"$ref": "a"}] * 30}] * 30},
        {"anyOf": [{}] * 300_000},
        {"type": [1] * 300_000},
        {"enum": [1] * 300_000},
    ],
)
def test_a_schema_that_refers_to_itself_or_lists_a_lot_is_soon_read(declared: object) -> None:
    root = {"a": declared}
    begin_s = time.process_time()

    for _ in range(30):
        type_names({"$ref": "a"}, root)

    assert time.process_time() - begin_s < 5


def test_a_type_is_found_at_the_end_of_every_way_to_it() -> None:
    """The longest way to a schema, which is too long to follow, comes first."""
    inner: dict[str, Any] = {"anyOf": [{"anyOf": [{"type": "integer"}]}]}
    long: dict[str, Any] = inner
    for _ in range(6):
        long = {"anyOf": [long]}

    assert type_names({"anyOf": [long, inner]}, {}) == ["integer"]

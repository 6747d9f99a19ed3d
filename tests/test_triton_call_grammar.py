"""Grammars of tool calls: each keyword of a schema is followed, in every format, and what cannot be is refused."""

from __future__ import annotations

import json
import random
import re
import time
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from call_schemas import CALL_SCHEMAS, of, spelt
from gbnf_matcher import Grammar
from nemotron_client.events import ReasoningDelta, ToolCall
from nemotron_triton.chat.answer import AnswerRules, parse_whole
from nemotron_triton.chat.conversation import ToolChoice
from nemotron_triton.chat.formats import format_names
from nemotron_triton.chat.gbnf import listed
from nemotron_triton.chat.grammar import MAX_CALLS, forced_call, strict_calls
from nemotron_triton.chat.reasoning import Thinking
from nemotron_triton.errors import RequestError

REQUIRED = ToolChoice("required")
both_formats = pytest.mark.parametrize("tool_call_format", format_names())


def forced(tool_call_format: str, schema: object, *, thinking: Thinking = "none", parallel: bool = True) -> Grammar:
    function = {"name": "f"} if schema is None else {"name": "f", "parameters": schema}
    return Grammar(forced_call(tool_call_format, [function], REQUIRED, thinking=thinking, parallel=parallel))


def read_back(tool_call_format: str, schema: Any, text: str) -> list[Any]:
    events, problems = parse_whole(text, AnswerRules(tool_call_format=tool_call_format, functions={"f": schema}))
    assert problems == []
    return [json.loads(event.arguments_json) for event in events if isinstance(event, ToolCall)]


@both_formats
@pytest.mark.parametrize("keyword", CALL_SCHEMAS)
def test_a_keyword_is_followed(keyword: str, tool_call_format: str) -> None:
    case = CALL_SCHEMAS[keyword]
    grammar = forced(tool_call_format, case.schema)
    validator = Draft202012Validator(case.schema)

    assert all(validator.is_valid(arguments) for arguments in case.right)
    for arguments in case.right:
        text = spelt(tool_call_format, "f", arguments)
        assert grammar.accepts(text), text
        assert read_back(tool_call_format, case.schema, text) == [arguments]
    for arguments in case.wrong:
        text = spelt(tool_call_format, "f", arguments)
        # Between tags, some texts are read as another value, which fits.
        if not all(validator.is_valid(read) for read in read_back(tool_call_format, case.schema, text)):
            assert not grammar.accepts(text), text


@both_formats
@pytest.mark.parametrize(
    "text", ["<b>hi</b>", "sed 's/<//'", "a < b", "</", "</div>\n<p>x</p>\n", "<a></parameters>", "</think>"]
)
def test_a_string_may_hold_tags(tool_call_format: str, text: str) -> None:
    schema = of({"x": {"type": "string"}})
    call = spelt(tool_call_format, "f", {"x": text})

    assert forced(tool_call_format, schema).accepts(call)
    assert read_back(tool_call_format, schema, call) == [{"x": text}]


@pytest.mark.parametrize(
    "text",
    [
        "a\n</parameter>\n<parameter=y>\n9",
        "a\n<parameter=y>\n9",
        "a\n</function>\n</tool_call>",
        "a</tool_call><tool_call>",
    ],
)
def test_no_string_smuggles_another_parameter_in(text: str) -> None:
    schema = of({"x": {"type": "string"}, "y": {"type": "integer", "maximum": 5}})

    assert not forced("qwen3_coder", schema).accepts(spelt("qwen3_coder", "f", {"x": text, "y": 1}))


@both_formats
@pytest.mark.parametrize("thought", ["<p>x</p>\n", "", "a < b </thin k> </thinking </", "a <TOOLCALL>[ <tool_call>\n"])
def test_thinking_may_hold_anything_but_its_closer(tool_call_format: str, thought: str) -> None:
    call = spelt(tool_call_format, "f", {})

    assert forced(tool_call_format, None, thinking="opened").accepts(f"{thought}</think>\n\n{call}")
    assert forced(tool_call_format, None, thinking="model opens").accepts(f"<think>\n{thought}</think>{call}")
    assert not forced(tool_call_format, None, thinking="opened").accepts(call)


@both_formats
def test_nothing_but_a_string_goes_on_for_ever(tool_call_format: str) -> None:
    schema = of({"x": {"type": "integer"}, "y": {"type": "number"}, "z": {"type": "array", "items": {"type": "null"}}})
    grammar = forced(tool_call_format, schema)
    right: dict[str, Any] = {"x": 10**19, "y": 0.5, "z": [None] * 256}

    def accepts(**changes: Any) -> bool:
        return grammar.accepts(spelt(tool_call_format, "f", right | changes))

    assert accepts()
    assert accepts(x=-(10**20) + 1)
    assert not accepts(x=10**20)
    assert accepts(y=int("1" * 20))
    assert not accepts(y=int("1" * 21))
    assert not accepts(z=[None] * 257)
    text = spelt(tool_call_format, "f", right)
    assert grammar.accepts(text.replace("null, null", "null , null"))
    assert not grammar.accepts(text.replace("null, null", "null,  null"))


@both_formats
def test_calls_are_counted(tool_call_format: str) -> None:
    call = spelt(tool_call_format, "f", {})
    whole = {"nemotron_json": call.partition("[")[2].partition("]")[0], "qwen3_coder": call}[tool_call_format]
    between = {"nemotron_json": ", ", "qwen3_coder": "\n"}[tool_call_format]

    def times(number: int) -> str:
        return call.replace(whole, between.join([whole] * number))

    assert forced(tool_call_format, None).accepts(times(MAX_CALLS))
    assert not forced(tool_call_format, None).accepts(times(MAX_CALLS + 1))
    assert not forced(tool_call_format, None, parallel=False).accepts(times(2))


@both_formats
def test_annotations_and_unknown_keywords_are_ignored(tool_call_format: str) -> None:
    about: dict[str, Any] = {
        "title": "t",
        "description": "d",
        "default": 1,
        "examples": ["a"],
        "format": "date",
        "x-any": [1],
    }
    schema = of({"x": {"type": "string", **about}}, **about)

    assert forced(tool_call_format, schema).accepts(spelt(tool_call_format, "f", {"x": "no date"}))


REFUSED: list[tuple[Any, str]] = [
    ({"not": {"const": 1}}, 'not {"const": 1}'),
    ({"type": "array", "uniqueItems": True}, "uniqueItems true"),
    ({"type": "array", "contains": {}}, "contains {}"),
    ({"if": {"const": 1}, "then": {"const": 2}}, "if "),
    ({"type": "object", "patternProperties": {"^a": {}}}, "patternProperties "),
    ({"type": "object", "propertyNames": {"maxLength": 3}}, "propertyNames "),
    ({"type": "object", "dependentRequired": {"a": ["b"]}}, "dependentRequired "),
    ({"type": "number", "multipleOf": 0.01}, "multipleOf 0.01"),
    ({"type": "number", "multipleOf": 0}, "multipleOf 0"),
    ({"type": "integer", "multipleOf": 1_000_003}, "multipleOf 1000003"),
    ({"type": "string", "pattern": "^(?=a)b"}, 'pattern "^(?=a)b" in its parameters: it has a look-ahead or flag'),
    ({"type": "string", "pattern": "(a"}, "pattern "),
    ({"type": "string", "pattern": r"\bfoo"}, "pattern "),
    ({"type": "string", "pattern": "(a|b)*a(a|b){20}"}, "pattern "),
    ({"type": "string", "pattern": "((a{99}){99}){99}"}, "pattern "),
    ({"type": "string", "maxLength": 100_000}, "maxLength 100000"),
    ({"type": "array", "minItems": 5000}, "minItems 5000"),
    ({"minimum": "5"}, 'minimum "5"'),
    ({"type": 5}, "type 5"),
    ({"type": "date"}, 'type "date"'),
    ({"type": []}, "type []"),
    ("string", 'the schema "string"'),
    ({"type": "array", "items": {"anyOf": [None]}}, "the schema null"),
    ({"type": "string", "maxLength": -1}, "the schema "),
    ({"type": "string", "maxLength": float("-inf")}, "the schema "),
    ({"type": "number", "minimum": float("inf")}, "the schema "),
    ({"type": "number", "multipleOf": 10**400}, "multipleOf 1000"),
    ({"const": float("inf")}, "the schema "),
    ({"type": "string", "pattern": "^\x00$"}, "the schema "),
    ({"type": "string", "pattern": r"^\ud83d$"}, "the schema "),
    ({"oneOf": [{"const": n, "title": "t"} for n in range(65)]}, "oneOf "),
    ({"allOf": [{"type": ["integer", "number"]}, {"type": "null"}]}, "the schema "),
    ({"required": "x"}, 'required "x"'),
    ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf "),
    ({"anyOf": []}, "anyOf []"),
    ({"$ref": "https://example.com/s"}, "$ref "),
    ({"$ref": "#/$defs/missing"}, "$ref "),
    ({"$ref": "#/properties/x"}, "$ref "),
    ({"allOf": [{"pattern": "a"}, {"pattern": "b"}]}, "pattern "),
    ({"type": "integer", "minimum": 5, "maximum": 4}, "the schema "),
]


@both_formats
@pytest.mark.parametrize(("about", "complaint"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_no_grammar_follows_is_refused_by_name_and_quickly(
    about: Any, complaint: str, tool_call_format: str
) -> None:
    begin_s = time.monotonic()
    with pytest.raises(RequestError) as caught:
        forced(tool_call_format, of({"x": about}))

    assert str(caught.value).startswith(f'a call of "f" cannot be made to follow {complaint}')
    assert time.monotonic() - begin_s < 5


@both_formats
def test_a_schema_that_explodes_is_refused_quickly(tool_call_format: str) -> None:
    definitions = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}
    schema = of({"x": {"$ref": "#/$defs/d0"}}) | {"$defs": definitions | {"d40": {"type": "integer"}}}
    begin_s = time.monotonic()

    with pytest.raises(RequestError, match="make too much of it"):
        forced(tool_call_format, schema)

    assert time.monotonic() - begin_s < 5


def test_no_value_between_tags_has_nul() -> None:
    function = {"name": "f", "parameters": of({"x": {"enum": ["a\0b", "c"]}})}

    grammar = forced_call("qwen3_coder", [function], REQUIRED, thinking="none", parallel=True)

    assert "\0" not in grammar


@both_formats
def test_a_schema_that_never_ends_is_refused(tool_call_format: str) -> None:
    parts = [{"properties": {"k": {"$ref": "#/$defs/T"}}}, {"properties": {"k": {"type": "object"}}}]
    schema = of({"x": {"$ref": "#/$defs/T"}}) | {"$defs": {"T": {"type": "object", "allOf": parts}}}

    with pytest.raises(RequestError, match="levels deep"):
        forced(tool_call_format, schema)


@both_formats
def test_a_class_of_very_many_characters_costs_no_minute(tool_call_format: str) -> None:
    pattern = f"^[{''.join(chr(0x4E00 + 2 * n) for n in range(2000))}]{{2}}$"
    begin_s = time.process_time()

    grammar = forced(tool_call_format, of({"x": {"type": "string", "pattern": pattern}}))

    assert time.process_time() - begin_s < 5
    assert grammar.accepts(spelt(tool_call_format, "f", {"x": "\u4e00\u4e02"}))
    assert not grammar.accepts(spelt(tool_call_format, "f", {"x": "\u4e00\u4e01"}))


@both_formats
def test_two_escapes_may_spell_one_character(tool_call_format: str) -> None:
    grammar = forced(tool_call_format, of({"x": {"type": "string", "pattern": r"^[\ud83d\ude00-\uD83D\uDE0E]$"}}))

    assert grammar.accepts(spelt(tool_call_format, "f", {"x": "😁"}))
    assert not grammar.accepts(spelt(tool_call_format, "f", {"x": "🙂"}))


PATTERNS = [
    *("ab", "^$", "^(a|b)*c$", "a+b?$", "(foo|bar)", "^a{2,}$", "^(ab|a)(c|bcd)$", "x|^y|z$", "^[^a]*$", "a|"),
    *(
        "^a{0}b$",
        "^a{0,2}b$",
        "(^a)b$",
        "^(?:[a-c]+x)?$",
        r"^\w+-\d{1,2}$",
        r"[\d_]$",
        "^(a*)*$",
        "",
        "^a$|^b",
        r"\.|\-",
    ),
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_an_expression_is_found_where_python_finds_it(pattern: str) -> None:
    grammar = forced("nemotron_json", of({"x": {"type": "string", "pattern": pattern}}))
    texts = random.Random(1)  # noqa: S311 - no secret
    for _ in range(300):
        text = "".join(texts.choices("abcdfoxyz01_-.", k=texts.randrange(7)))

        accepted = grammar.accepts(spelt("nemotron_json", "f", {"x": text}))

        assert accepted == bool(re.search(pattern, text)), text


@pytest.mark.parametrize("thinking", ["none", "opened"])
@both_formats
def test_strict_functions_are_followed_once_a_call_opens(tool_call_format: str, thinking: Thinking) -> None:
    strict = {"name": "f", "strict": True, "parameters": of({"x": {"type": "integer", "maximum": 5}})}
    free = {"name": "g", "parameters": of({"x": {"type": "integer", "maximum": 5}})}
    grammar = Grammar(strict_calls(tool_call_format, [strict, free], thinking=thinking))
    before = "hm </p>\n</think>\n\n" if thinking == "opened" else ""

    def accepts(text: str) -> bool:
        return grammar.accepts(before + text)

    right, wrong = (spelt(tool_call_format, "f", {"x": x}) for x in (5, 6))
    assert accepts("Only <b>text</b>, no call.")
    assert accepts("")
    assert accepts(f"Text.\n{right}\nMore text.\n{right}")
    assert not accepts(f"Text.\n{wrong}")
    assert accepts(spelt(tool_call_format, "g", {"x": 6, "more": "y"}))
    assert not accepts(spelt(tool_call_format, "unknown", {}))
    assert not accepts(right[:-1])


@both_formats
def test_a_grammar_whose_characters_are_listed_takes_the_same_texts(tool_call_format: str) -> None:
    schema = of({"x": {"type": "string", "pattern": "^[^<x\\]]+$"}, "y": {"enum": ['a "[^b]"', "["]}})
    text = forced_call(
        tool_call_format, [{"name": "f", "parameters": schema}], REQUIRED, thinking="opened", parallel=True
    )
    values = [(x, y) for x in ("\xe9\U0001f642[", "\U0010ffff", "<", "a]", "x") for y in ('a "[^b]"', "[", "b")]
    texts = [f"hm </p>\n</think>\n\n{spelt(tool_call_format, 'f', {'x': x, 'y': y})}" for x, y in values]

    listing = listed(text)

    excluding = Grammar(text)
    assert [Grammar(listing).accepts(each) for each in texts] == [excluding.accepts(each) for each in texts]
    assert [excluding.accepts(each) for each in texts] == [True, True, False] * 2 + [False] * 9
    assert "[^" not in listing.replace("[^b]", "")


def test_the_thinking_before_a_forced_call_is_read_as_thinking() -> None:
    text = f"<p>x</p>\n</think>\n\n{spelt('qwen3_coder', 'f', {'x': '<b>hi</b>'})}"

    events, problems = parse_whole(text, AnswerRules(tool_call_format="qwen3_coder", begins="opened"))

    assert [event.text for event in events if isinstance(event, ReasoningDelta)] == ["<p>x</p>"]
    assert (len(events), problems) == (2, [])


def test_undeclared_parameters_between_tags_are_strings_because_they_are_read_so() -> None:
    numbers = forced("qwen3_coder", {"type": "object", "additionalProperties": {"type": "integer"}})
    either = forced("qwen3_coder", {"type": "object", "additionalProperties": {"type": ["integer", "string"]}})

    assert not numbers.accepts(spelt("qwen3_coder", "f", {"a": 1}))
    assert numbers.accepts(spelt("qwen3_coder", "f", {}))
    assert either.accepts(spelt("qwen3_coder", "f", {"a": "text"}))


def test_a_value_that_would_be_read_as_a_string_is_written_as_no_other() -> None:
    """One part of the schema gives the name, another one the type of what it does not name."""
    parts = [{"additionalProperties": {"type": ["number", "string"], "maximum": 5}}, {"properties": {"x": {}}}]
    mixed = forced("qwen3_coder", {"type": "object", "allOf": parts})

    assert mixed.accepts(spelt("qwen3_coder", "f", {"x": "text"}))
    with pytest.raises(RequestError, match="no arguments fit it"):
        forced("qwen3_coder", {"type": "object", "allOf": [{"additionalProperties": {"type": "null"}}, of({"x": {}})]})


@pytest.mark.parametrize(
    ("about", "value"), [({"minimum": 3}, 4), ({"minItems": 1}, [1]), ({"required": ["a"]}, {"a": 1})]
)
def test_a_value_is_read_as_the_type_that_keywords_imply(about: dict[str, Any], value: object) -> None:
    text = spelt("qwen3_coder", "f", {"x": value})

    assert forced("qwen3_coder", of({"x": about})).accepts(text)
    assert read_back("qwen3_coder", of({"x": about}), text) == [{"x": value}]

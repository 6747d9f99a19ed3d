"""Guides and forced calls of requests: the grammars that they become, and what is refused before it is queued."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from typing import Any

import pytest

from chat_requests import TOOLS, read, refusal
from nemotron_triton.chat.conversation import ToolChoice
from nemotron_triton.chat.grammar import forced_call
from nemotron_triton.engine.interface import Guide, Sampling, engine_class
from nemotron_triton.errors import RequestError
from nemotron_triton.serving.sampling_request import refuse_unsupported


def guided(kind: str, guide: str = "", **values: Any) -> Guide | None:
    optional = {"guided_decoding_guide": guide} if guide else {}
    return read(guided_decoding_guide_type=kind, **optional, **values).sampling.guide


def test_a_guide_is_a_schema_or_an_expression() -> None:
    schema = '{"type": "integer"}'

    assert guided("json") == Guide(kind="json_schema", text='{"type": "object"}')
    assert guided("json_schema", schema) == Guide(kind="json_schema", text=schema)
    # As OpenAI wraps it, in part or whole.
    wrapped = {"name": "answer", "strict": True, "schema": json.loads(schema)}
    assert guided("json_schema", json.dumps(wrapped)) == Guide(kind="json_schema", text=schema)
    whole = {"type": "json_schema", "json_schema": wrapped}
    assert guided("json_schema", json.dumps(whole)) == Guide(kind="json_schema", text=schema)
    assert guided("regex", "[a-z]+") == Guide(kind="regex", text="[a-z]+")


def test_a_grammar_of_the_callers_own_is_refused() -> None:
    message = refusal(guided_decoding_guide_type="ebnf_grammar", guided_decoding_guide='root ::= "a"')

    assert message == "guided_decoding_guide_type is 'ebnf_grammar'; it must be one of json, json_schema, regex"


@pytest.mark.parametrize(
    ("kind", "guide", "complaint"),
    [
        ("json_schema", "{", "guided_decoding_guide is not JSON"),
        ("json_schema", "[]", "must be a JSON object"),
        ("json_schema", '{"minItems": 100000000}', "more than 10000 repetitions"),
        ("json_schema", '{"maxLength": 1e999}', "more than 10000 repetitions"),
        ("json_schema", '{"maxLength": NaN}', "more than 10000 repetitions"),
        ("json_schema", json.dumps({"anyOf": [{"minItems": 5000}] * 3}), "more than 10000 repetitions"),
        ("json_schema", json.dumps({"anyOf": [{"minItems": -9000}, {"minItems": 10001}]}), "more than 10000"),
        ("json_schema", json.dumps({"pattern": "a{99999999999999}"}), "more than 10000 repetitions"),
        ("json_schema", '{"minItems": -1e400}', ""),
        ("json_schema", json.dumps({"anyOf": [{"pattern": "a{999}"}] * 11}), "more than 10000 repetitions"),
        ("json_schema", json.dumps({"anyOf": [{"pattern": "a{999}"}] * 10}), ""),
        ("json_schema", json.dumps({"patternProperties": {"(a{200}){200}": {}}}), "more than 10000 repetitions"),
        ("json_schema", json.dumps({"items": {"patternProperties": {"a" * 4097: {}}}}), "4097 characters"),
        ("json_schema", json.dumps({"maxItems": 9000, "items": {"pattern": "a{2000}"}}), "more than 10000 repetitions"),
        ("json_schema", json.dumps({"maxItems": 100, "items": {"maxLength": 200}}), ""),
        ("json_schema", json.dumps({"pattern": "a" * 4097}), "4097 characters; at most 4096"),
        ("json_schema", json.dumps({"enum": ["x" * 66_000]}), "bytes; at most 65536"),
        ("json_schema", json.dumps({"const": "x" * 5_000_000}), "bytes; at most"),
        ("regex", "((a{2,}){,3}){10001}", "more than 10000 repetitions"),
        ("regex", "((((a{99}){99}){99}){99}){99}", "more than 10000 repetitions"),
        ("regex", "(" + "a" * 101 + "){101}", "more than 10000 repetitions"),
        ("regex", r"(?:[)\]]\)a{99}){102}", "more than 10000 repetitions"),
        ("regex", "a{99}{102}", "more than 10000 repetitions"),
        ("regex", "(a{0}){00000000000020000}", "more than 10000 repetitions"),
        ("regex", "a)(b{101}c){101}", "more than 10000 repetitions"),
        ("regex", "(" * 2000 + "a" + "{9}" * 600, "more than 10000 repetitions"),
        ("regex", r"(\d{99}){100}|(?<year>[0-9(]{4})-(?:[a-z]{2}\(){9}", ""),
        ("regex", "a" * 4096, ""),
        ("regex", "a" * 4097, "4097 characters; at most 4096"),
    ],
)
def test_a_guide_that_would_cost_too_much_is_refused_quickly(kind: str, guide: str, complaint: str) -> None:
    begin_s = time.monotonic()
    try:
        message = ""
        guided(kind, guide, thinking=True)
    except RequestError as error:
        message = str(error)

    assert complaint in message
    assert bool(complaint) == bool(message)
    assert time.monotonic() - begin_s < 5


@pytest.mark.parametrize(
    "values", [{"guided_decoding_guide_type": "json"}, {"tools": TOOLS, "tool_choice": "required"}]
)
@pytest.mark.parametrize(("field", "value"), [("min_tokens", 1), ("bad_words", ("a",)), ("end_id", -1)])
def test_a_guide_cannot_be_combined_with_other_constraints(values: dict[str, Any], field: str, value: Any) -> None:
    assert refusal(**values, **{field: value}).startswith(f"{field} cannot go with ")


def test_a_guide_and_a_forced_call_exclude_each_other() -> None:
    message = refusal(tools=TOOLS, tool_choice="required", guided_decoding_guide_type="json")

    assert message.startswith("guided_decoding_guide_type cannot go with tool_choice")


def test_a_guide_behind_a_think_block_that_an_engine_cannot_follow_is_refused() -> None:
    plain = Sampling(max_tokens=1, temperature=0.0, top_p=1.0, guide=Guide(kind="regex", text="a"))
    behind = dataclasses.replace(plain, guide=Guide(kind="regex", text="a", thinking="opened"))

    refuse_unsupported(plain, {"guide.thinking": "no"})
    with pytest.raises(RequestError, match="guided_decoding_guide_type cannot be used"):
        refuse_unsupported(behind, {"guide.thinking": "no"})


def test_a_forced_call_that_an_engine_cannot_guide_is_refused_as_such() -> None:
    forced = Sampling(max_tokens=1, temperature=0.0, top_p=1.0, guide=Guide(kind="grammar", text="root ::= [a]"))

    refuse_unsupported(forced, {"guide.thinking": "no"})
    with pytest.raises(RequestError, match="tool_choice cannot be used"):
        refuse_unsupported(forced, {"guide": "no"})


def test_a_call_is_not_forced_out_of_too_much() -> None:
    function = {"name": "f", "parameters": {"properties": {"a": {"enum": list(range(5000))}}}}

    with pytest.raises(RequestError, match="out of 5001 names and values that the tools list; at most 4096"):
        forced_call("nemotron_json", [function], ToolChoice("required"), thinking="none", parallel=True)


@pytest.mark.parametrize(
    ("pattern", "is_followed"),
    [
        ("^[à-ÿА-я€]+$", True),
        (r"^.*\S$", True),
        ("^[\u0370-\u07ff]$", True),
        ("^[\u4e00-\u9fff]+$", True),
        ("^[\u4e00-\u9fff]{4}$", False),
        ("^[^é]*$", False),
        ("é.*é", False),
    ],
)
def test_classes_beyond_ascii_that_an_engine_cannot_follow_are_refused(pattern: str, is_followed: bool) -> None:
    """Where its library misreads them; their characters are written out while they are not too many."""
    function = {"name": "f", "parameters": {"properties": {"a": {"type": "string", "pattern": pattern}}}}
    text = forced_call("qwen3_coder", [function], ToolChoice("required"), thinking="opened", parallel=True)
    forced = Sampling(max_tokens=1, temperature=0.0, top_p=1.0, guide=Guide(kind="grammar", text=text))

    refuse_unsupported(forced, engine_class("cpu").unsupported({}))
    for kind in ("tensorrt", "pytorch", "edge"):
        cannot = engine_class(kind).unsupported({"guided_decoding_backend": "xgrammar"})
        refused = contextlib.nullcontext() if is_followed else pytest.raises(RequestError, match="XGrammar misreads")
        with refused:
            refuse_unsupported(forced, cannot)


STRICT = json.dumps([{"type": "function", "function": {"name": "f", "strict": True, "parameters": {"type": "object"}}}])


@pytest.mark.parametrize(
    ("field", "value"), [("min_tokens", 1), ("end_id", -1), ("guided_decoding_guide_type", "json")]
)
def test_strict_functions_exclude_what_contradicts_a_guide(field: str, value: Any) -> None:
    assert refusal(tools=STRICT, **{field: value}) == (
        f"{field} cannot go with strict: true in tools, which says what the answer must look like"
    )
    assert read(tools=STRICT, tool_choice="none", **{field: value})


def test_strict_functions_that_an_engine_cannot_guide_are_refused_as_such() -> None:
    guide = Guide(kind="grammar", text="root ::= [a]", strict=True)

    with pytest.raises(RequestError, match="strict: true in tools cannot be used"):
        refuse_unsupported(Sampling(max_tokens=1, temperature=0.0, top_p=1.0, guide=guide), {"guide": "no"})

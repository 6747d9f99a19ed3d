"""Every field of a chat completion is honoured, or ignored and counted, or refused by its name."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateways import HI, Gateway, described, gateway
from nemotron_client import wire
from nemotron_client.protocol import unpacked
from nemotron_gateway.chat_request import IGNORED, REFUSED_FIELDS, ChatRequest
from nemotron_gateway.completion_request import CompletionRequest
from scripted_server import LAST, ScriptedServer, response, scripted_server

SCHEMA = '{"type": "object", "properties": {"n": {"type": "number", "maximum": 1e400}}}'
CITY = {"type": "function", "function": {"name": "city", "parameters": {"type": "object"}}}
# What a body may hold, and the tensors that it becomes.
HONOURED: dict[str, tuple[dict[str, Any], dict[wire.Tensor, Any]]] = {
    "max_tokens": ({"max_tokens": 7}, {wire.MAX_TOKENS: 7, wire.CLAMP_MAX_TOKENS: True}),
    "max_completion_tokens wins": ({"max_tokens": 9, "max_completion_tokens": 7}, {wire.MAX_TOKENS: 7}),
    "temperature": ({"temperature": 0}, {wire.TEMPERATURE: 0.0}),
    "top_p": ({"top_p": 0.5}, {wire.TOP_P: 0.5}),
    "n": ({"n": 2}, {wire.NUM_RETURN_SEQUENCES: 2}),
    "stop, a text": ({"stop": "END"}, {wire.STOP_WORDS: ["END"]}),
    "stop, a list": ({"stop": ["A", "B"]}, {wire.STOP_WORDS: ["A", "B"]}),
    "no stop": ({"stop": []}, {wire.STOP_WORDS: None}),
    "seed": ({"seed": -1}, {wire.SEED: 2**64 - 1}),
    "a large seed": ({"seed": 2**64 + 5}, {wire.SEED: 5}),
    "presence_penalty": ({"presence_penalty": 0.5}, {wire.PRESENCE_PENALTY: 0.5}),
    "frequency_penalty": ({"frequency_penalty": -0.5}, {wire.FREQUENCY_PENALTY: -0.5}),
    "logit_bias": ({"logit_bias": {"5": -100}}, {wire.LOGIT_BIAS: {"5": -100}}),
    "logprobs": ({"logprobs": True, "top_logprobs": 3}, {wire.RETURN_LOG_PROBS: True, wire.TOP_LOGPROBS: 3}),
    "top_k off": ({"top_k": -1}, {wire.TOP_K: 0}),
    "min_p": ({"min_p": 0.25}, {wire.MIN_P: 0.25}),
    "stop_token_ids": ({"stop_token_ids": [5, 6]}, {wire.STOP_TOKEN_IDS: [5, 6]}),
    "ignore_eos": ({"ignore_eos": True}, {wire.END_ID: -1}),
    "tools": ({"tools": [CITY]}, {wire.TOOLS: [CITY]}),
    "no tools": ({"tools": []}, {wire.TOOLS: None}),
    "tool_choice": ({"tools": [CITY], "tool_choice": "required"}, {wire.TOOL_CHOICE: "required"}),
    "a named tool": (
        {"tools": [CITY], "tool_choice": {"type": "function", "function": {"name": "city"}}},
        {wire.TOOL_CHOICE: {"type": "function", "function": {"name": "city"}}},
    ),
    "parallel_tool_calls": ({"parallel_tool_calls": False}, {wire.PARALLEL_TOOL_CALLS: False}),
    "pieces of calls": ({}, {wire.STREAM_TOOL_CALLS: True}),
    "whole calls": ({"stream_tool_calls": False}, {wire.STREAM_TOOL_CALLS: False}),
    "text": ({"response_format": {"type": "text"}}, {wire.GUIDED_DECODING_GUIDE_TYPE: None}),
    "json_object": ({"response_format": {"type": "json_object"}}, {wire.GUIDED_DECODING_GUIDE_TYPE: "json"}),
    "json_schema": (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}},
        {wire.GUIDED_DECODING_GUIDE_TYPE: "json_schema", wire.GUIDED_DECODING_GUIDE: '{"type": "object"}'},
    ),
    "guided_regex": (
        {"guided_regex": "[0-9]+"},
        {wire.GUIDED_DECODING_GUIDE_TYPE: "regex", wire.GUIDED_DECODING_GUIDE: "[0-9]+"},
    ),
    "reasoning_effort": ({"reasoning_effort": "low"}, {wire.REASONING_EFFORT: "low", wire.THINKING: None}),
    "no effort": ({"reasoning_effort": "none"}, {wire.REASONING_EFFORT: "none"}),
    "effort without end": ({"reasoning_effort": "xhigh"}, {wire.REASONING_EFFORT: None, wire.THINKING: True}),
    "reasoning": (
        {"reasoning": {"effort": "high", "exclude": True}},
        {wire.REASONING_EFFORT: "high", wire.INCLUDE_REASONING: False},
    ),
    "budget": ({"max_thinking_tokens": 5}, {wire.MAX_THINKING_TOKENS: 5}),
    "vLLM's budget": ({"thinking_token_budget": 5}, {wire.MAX_THINKING_TOKENS: 5}),
    "NIM's budget": ({"nvext": {"max_thinking_tokens": 5}}, {wire.MAX_THINKING_TOKENS: 5}),
    "a budget below 0": ({"thinking_token_budget": -1}, {wire.MAX_THINKING_TOKENS: None}),
    "Anthropic's budget": (
        {"thinking": {"type": "enabled", "budget_tokens": 5}},
        {wire.MAX_THINKING_TOKENS: 5, wire.THINKING: True},
    ),
    "enable_thinking": ({"chat_template_kwargs": {"enable_thinking": False}}, {wire.THINKING: False}),
    "thinking": (
        {"chat_template_kwargs": {"thinking": True, "truncate_history_thinking": False}},
        {wire.THINKING: True, wire.CHAT_TEMPLATE_KWARGS: {"truncate_history_thinking": False}},
    ),
    "include_reasoning": ({"include_reasoning": False}, {wire.INCLUDE_REASONING: False}),
    "continue_final_message": ({"continue_final_message": True}, {wire.CONTINUE_FINAL_MESSAGE: True}),
    "nulls": (
        {"max_tokens": None, "stop": None, "tools": None, "tool_choice": None, "response_format": None, "n": None},
        {wire.MAX_TOKENS: None, wire.STOP_WORDS: None, wire.TOOLS: None, wire.TOOL_CHOICE: None},
    ),
    "what changes no answer": (
        {"user": "u", "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "prediction": None},
        {},
    ),
}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "audio": ({"audio": {"voice": "alloy"}}, "audio"),
    "speech": ({"modalities": ["text", "audio"]}, "modalities"),
    "functions": ({"functions": [{"name": "f"}]}, "functions"),
    "function_call": ({"function_call": "auto"}, "function_call"),
    "web search": ({"web_search_options": {}}, "web_search_options"),
    "n of text": ({"n": "two"}, "n"),
    "stop of numbers": ({"stop": [1]}, "stop[0]"),
    "an unknown choice": ({"tool_choice": "maybe"}, "tool_choice"),
    "a number for a choice": ({"tool_choice": 5}, "tool_choice"),
    "a format without its schema": (
        {"response_format": {"type": "json_schema"}},
        "response_format.json_schema.schema",
    ),
    "an unknown format": ({"response_format": {"type": "xml"}}, "response_format.type"),
    "a contradiction": (
        {"chat_template_kwargs": {"enable_thinking": False}, "reasoning": {"enabled": True}},
        "reasoning.enabled",
    ),
    "a bias of text": ({"logit_bias": {"5": "much"}}, "logit_bias[...]"),
}


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with scripted_server(described(_answers)) as running:
        yield running


@pytest.fixture(scope="module")
def asked(server: ScriptedServer) -> Iterator[Gateway]:
    with gateway(server.url) as running:
        yield running


@pytest.mark.parametrize("name", HONOURED)
def test_a_field_reaches_the_server(server: ScriptedServer, asked: Gateway, name: str) -> None:
    fields, expected = HONOURED[name]

    got = asked.chat(**fields)

    assert got.status == 200, got.body
    values = {tensor: _value(server.requests[-1], tensor) for tensor in expected}
    assert values == expected


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_honoured_is_refused_by_its_name(server: ScriptedServer, asked: Gateway, name: str) -> None:
    fields, param = REFUSED[name]
    before = len(server.requests)

    got = asked.chat(**fields)

    assert (got.status, got.error["param"], got.error["type"]) == (400, param, "invalid_request_error")
    assert len(server.requests) == before


def test_messages_and_schemas_reach_the_server_as_they_were_written(server: ScriptedServer, asked: Gateway) -> None:
    messages = '[ {"role": "user", "content": "é", "x": 100.10} ]'
    wanted = f'{{"type": "json_schema", "json_schema": {{"schema": {SCHEMA}}}}}'
    body = f'{{"model": "m", "messages": {messages}, "response_format": {wanted}}}'.encode()

    got = asked.ask("POST", "/v1/chat/completions", body)

    assert got.status == 200, got.body
    raw = {tensor: _raw(server.requests[-1], tensor) for tensor in (wire.MESSAGES, wire.GUIDED_DECODING_GUIDE)}
    assert raw == {wire.MESSAGES: messages, wire.GUIDED_DECODING_GUIDE: SCHEMA}


def test_half_a_surrogate_pair_becomes_the_replacement_character(server: ScriptedServer, asked: Gateway) -> None:
    content = r"cut \ud83d, \ude00 and whole \ud83d\ude00, a path C:\\ud83d"

    got = asked.ask("POST", "/v1/chat/completions", b'{"messages": [{"content": "%s"}]}' % content.encode())

    assert got.status == 200, got.body
    (message,) = json.loads(_raw(server.requests[-1], wire.MESSAGES) or "")
    assert message["content"] == "cut \ufffd, \ufffd and whole 😀, a path C:\\ud83d"


def test_unknown_fields_are_ignored_and_counted(asked: Gateway) -> None:
    got = asked.chat(frobnicate=True)

    assert got.status == 200
    assert "nemotron_gateway_unknown_fields_total" in asked.ask("GET", "/metrics").body.decode()


def test_a_strict_gateway_refuses_unknown_fields_and_takes_known_ones(server: ScriptedServer) -> None:
    with gateway(server.url, strict=True) as strict:
        refused = strict.chat(frobnicate=True)
        taken = strict.chat(user="u", temperature=0.5)

    assert (refused.status, refused.error["param"], refused.error["code"]) == (400, "frobnicate", "unknown_parameter")
    assert taken.status == 200


BODIES = {
    "no JSON": b"{",
    "no object": b"[]",
    "no messages": b'{"model": "m"}',
    "no UTF-8": b'{"messages": "\xff"}',
    "NaN": b'{"messages": [], "temperature": NaN}',
    "100,000 brackets": b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "100,000 objects in a field nobody knows": b'{"x": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001,
    "nothing": b"",
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_is_none_is_one_line(asked: Gateway, name: str) -> None:
    got = asked.ask("POST", "/v1/chat/completions", BODIES[name])

    assert (got.status, got.error["type"]) == (400, "invalid_request_error")
    assert "\n" not in got.error["message"]


def test_a_model_that_nobody_serves_is_not_found(server: ScriptedServer) -> None:
    with gateway(server.url, any_model=False, served_model_names=("mine",)) as picky:
        unknown = picky.ask("POST", "/v1/chat/completions", {"model": "gpt-9", "messages": HI})
        known = [
            picky.ask("POST", "/v1/chat/completions", {"model": name, "messages": HI})
            for name in ("mine", "scripted", "MAKERS/Scripted")
        ]
        listed = picky.ask("GET", "/v1/models").json["data"]
        one = picky.ask("GET", "/v1/models/makers/scripted")
        none = picky.ask("GET", "/v1/models/gpt-9")

    assert (unknown.status, unknown.error["code"], unknown.error["param"]) == (404, "model_not_found", "model")
    assert [got.json["model"] for got in known] == ["mine"] * 3
    assert [model["id"] for model in listed] == ["mine", "scripted", "makers/scripted"]
    assert {model["max_model_len"] for model in listed} == {4096}
    assert (one.status, one.json["id"], none.status) == (200, "makers/scripted", 404)


def test_the_documents_name_every_field() -> None:
    text = (Path(__file__).parents[1] / "docs" / "openai.md").read_text(encoding="utf-8")
    fields = {
        *ChatRequest.__struct_encode_fields__,
        *CompletionRequest.__struct_encode_fields__,
        *IGNORED,
        *REFUSED_FIELDS,
    }

    assert [field for field in sorted(fields) if f"`{field}" not in text] == []


def _answers(request: Any, _context: Any) -> Iterator[Any]:
    for choice in range(_value(request, wire.NUM_RETURN_SEQUENCES) or 1):
        yield response({wire.SEQUENCE_INDEX: choice, wire.TEXT_OUTPUT: "hello", **LAST})


def _raw(request: Any, tensor: wire.Tensor) -> str | None:
    names = [sent.name for sent in request.inputs]
    if tensor.name not in names:
        return None
    return str(request.raw_input_contents[names.index(tensor.name)][4:], "utf-8")


def _value(request: Any, tensor: wire.Tensor) -> Any:
    names = [sent.name for sent in request.inputs]
    if tensor.name not in names:
        return None
    data = request.raw_input_contents[names.index(tensor.name)]
    if tensor.dtype != "BYTES":
        return unpacked(tensor, data)
    if tensor.dims != (1,):
        return _texts(data)
    text = unpacked(tensor, data)
    return json.loads(text) if text[:1] in "[{" and tensor != wire.GUIDED_DECODING_GUIDE else text


def _texts(data: bytes) -> list[str]:
    texts, at = [], 0
    while at < len(data):
        (size,) = struct.unpack_from("<I", data, at)
        texts.append(data[at + 4 : at + 4 + size].decode())
        at += 4 + size
    return texts

"""What cannot be sent names its field: each way to raise `InvalidRequest` before anything goes out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nemotron_client import AssistantMessage, Client, InvalidRequest, Tool
from scripted_server import HI

HERE = "127.0.0.1:1"
# What type checkers would refuse.
ASSISTANT_MESSAGE: Any = AssistantMessage
CLIENT: Any = Client
TOOL: Any = Tool


def add(a: int) -> int:
    return a


def unreadable(a: complex) -> None:
    return None


ADD = Tool("add", function=add)


def refused(call: Callable[[], Any]) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        call()
    return caught.value


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda client: client.stream("hi"), "messages"),
        (lambda client: client.stream([*HI, 7]), "messages[1]"),
        (lambda client: client.stream([{"role": "user", "content": {1}}]), "messages"),
        (lambda client: client.render(), "messages"),
        (lambda client: client.render(prompt=7), "prompt"),
        (lambda client: client.render(HI, chat_template_kwargs={"a": {1}}), "chat_template_kwargs"),
        (lambda client: client.count_tokens(HI, reasoning_effort=7), "reasoning_effort"),
        (lambda client: client.count_tokens(HI, timeout_s=-1), "timeout_s"),
        (lambda client: client.generate_stream(7), "prompt"),
        (lambda client: client.stream(HI, stop=7), "stop"),
        (lambda client: client.stream(HI, guide=7), "guide"),
        (lambda client: client.stream(HI, guide_type=7), "guide_type"),
        (lambda client: client.stream(HI, n="2"), "n"),
        (lambda client: client.stream(HI, logprobs=1), "logprobs"),
        (lambda client: client.stream(HI, thinking=1), "thinking"),
        (lambda client: client.stream(HI, seed=2**64), "seed"),
        (lambda client: client.stream(HI, logit_bias=[7]), "logit_bias"),
        (lambda client: client.stream(HI, word_bias=["a"]), "word_bias"),
        (lambda client: client.stream(HI, word_bias={"a": "b"}), "word_bias"),
        (lambda client: client.stream(HI, word_bias={7: 1}), "word_bias"),
        (lambda client: client.stream(HI, timeout_s=-1), "timeout_s"),
        (lambda client: client.stream(HI, max_retries=-1), "max_retries"),
        (lambda client: client.with_options(timeout_s=0), "timeout_s"),
        (lambda client: client.health(timeout_s=0), "timeout_s"),
        (lambda client: client.stream(HI, tools="add"), "tools"),
        (lambda client: client.stream(HI, tools=[{"a": {1}}]), "tools"),
        (lambda client: client.stream(HI, tools=[7]), "tools[0]"),
        (lambda client: client.stream(HI, tools=[add, lambda a: a]), "tools[1]"),
        (lambda client: client.stream(HI, tools=[add, dict.update]), "tools[1]"),
        (lambda client: client.stream(HI, tools=[unreadable]), "tools[0]"),
        (lambda client: client.run(HI, tools=[add, {"no": "tool"}]), "tools[1]"),
        (lambda client: client.run(HI, tools=[Tool("add")]), "tools[0]"),
        (lambda client: client.run(HI, tools=[add, ADD]), "tools[1]"),
        (lambda client: client.run(HI, tools=[Tool("f", parameters={"$ref": "https://a"}, function=add)]), "tools[0]"),
        (lambda client: client.run(HI, tools=[], n=2), "n"),
        (lambda client: client.run(HI, tools=[], max_turns=0), "max_turns"),
        (lambda client: client.run(HI, tools=[], on_tool_error="no"), "on_tool_error"),
    ],
)
def test_a_call_names_the_argument_as_the_caller_wrote_it(call: Callable[[Any], Any], field: str) -> None:
    with Client(HERE) as client:
        error = refused(lambda: call(client))

    assert (error.field, error.code) == (field, "invalid_value")


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: ASSISTANT_MESSAGE(tool_calls=({},)), "tool_calls[0]"),
        (lambda: Tool("two words"), "name"),
        (lambda: TOOL("f", description=7), "description"),
        (lambda: Tool("f", parameters={"type": "string"}), "parameters"),
        (lambda: Tool("f", parameters={"default": {1}}), "parameters"),
        (lambda: TOOL("f", function=7), "function"),
        (lambda: TOOL.of(7), "function"),
        (lambda: Tool.of(lambda a: a), "function"),
        (lambda: Tool.of(dict.update), "function"),
        (lambda: Tool.of(unreadable), "function"),
        (lambda: Tool.from_openai({}), "tool"),
        (lambda: CLIENT(url=7), "url"),
        (lambda: Client(url=[]), "url"),
        (lambda: Client(url=["dns:///a:1", "b:1"]), "url"),
        (lambda: Client(url="http://a:1"), "url"),
        (lambda: Client(url="unix:it.sock"), "url"),
        (lambda: Client(url="a"), "url"),
        (lambda: CLIENT(balance="none"), "balance"),
        (lambda: Client(timeout_s=0), "timeout_s"),
        (lambda: Client(keepalive_s=0), "keepalive_s"),
        (lambda: Client(max_retries=1000), "max_retries"),
        (lambda: Client(secret="two words"), "secret"),  # noqa: S106 - none
        (lambda: Client(root_ca="/nowhere.pem"), "root_ca"),
    ],
)
def test_what_is_made_names_its_argument(make: Callable[[], Any], field: str) -> None:
    assert refused(make).field == field


def test_certificates_name_the_one_that_is_missing_or_none(tmp_path: Path) -> None:
    pem, text = tmp_path / "a.pem", tmp_path / "a.txt"
    pem.write_bytes(b"-----BEGIN NOTHING-----")
    text.write_text("no certificate")

    fields = [
        refused(lambda: Client(root_ca=pem, client_cert=pem)).field,
        refused(lambda: Client(root_ca=pem, client_key=pem)).field,
        refused(lambda: Client(client_cert=pem, client_key=pem)).field,
        refused(lambda: Client(root_ca=pem, client_cert=pem, client_key=text)).field,
    ]

    assert fields == ["client_key", "client_cert", "root_ca", "client_key"]


def test_the_environment_is_named_as_the_argument_that_it_stands_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEMOTRON_TIMEOUT_S", "soon")

    error = refused(Client)

    assert (error.field, str(error)) == ("timeout_s", "NEMOTRON_TIMEOUT_S is 'soon'; it must be a number of seconds")

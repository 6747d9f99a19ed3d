"""Answers of the conformance kit through the gateway: what a stream joins to is what the whole answer says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateways import Answer, Gateway, described, gateway, sent
from nemotron_client import wire
from nemotron_client.events import Event, Finish, ToolCall, Usage
from nemotron_triton.chat import reasoning
from nemotron_triton.chat.answer import AnswerParser, answer_rules
from nemotron_triton.chat.conversation import read_choice, read_functions
from nemotron_triton.chat.profiles import profile
from nemotron_triton.serving.responses import Response, in_order
from scripted_server import response, scripted_server

KIT = json.loads((Path(__file__).parent / "conformance" / "cases.json").read_text(encoding="utf-8"))
CASES: dict[str, dict[str, Any]] = {case["id"]: case for case in KIT["cases"]}
USAGE = Usage(input_tokens=1, output_tokens=1, reasoning_tokens=0)


@dataclass(frozen=True)
class Sent:
    """An answer as the gateway sent it; calls are by name and arguments."""

    reasoning: str
    content: str
    calls: list[tuple[str, str]]
    finish_reason: str
    problems: list[dict[str, Any]]

    @classmethod
    def whole(cls, answer: Answer) -> Sent:
        (choice,) = answer.json["choices"]
        message = choice["message"]
        calls = [(call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls", ())]
        return cls(
            reasoning=message.get("reasoning", ""),
            content=message["content"] or "",
            calls=calls,
            finish_reason=choice["finish_reason"],
            problems=choice.get("problems", []),
        )

    @classmethod
    def streamed(cls, answer: Answer) -> Sent:
        choices = [choice for chunk in answer.chunks for choice in chunk["choices"]]
        deltas = [choice["delta"] for choice in choices]
        assert deltas[0]["role"] == "assistant"
        calls: list[tuple[str, str]] = []
        for piece in [piece for delta in deltas for piece in delta.get("tool_calls", ())]:
            if piece["index"] == len(calls):
                assert piece["id"]
                calls.append((piece["function"]["name"], ""))
            name, arguments = calls[piece["index"]]
            calls[piece["index"]] = name, arguments + piece["function"]["arguments"]
        assert all(delta.get("reasoning") == delta.get("reasoning_content") for delta in deltas)
        return cls(
            reasoning="".join(delta.get("reasoning", "") for delta in deltas),
            content="".join(delta.get("content", "") for delta in deltas),
            calls=calls,
            finish_reason=choices[-1]["finish_reason"],
            problems=choices[-1].get("problems", []),
        )


@pytest.fixture(scope="module")
def replaying() -> Iterator[Gateway]:
    """A gateway in front of a server that answers with the case that the user's message names."""

    def replay(request: Any, _context: Any) -> Iterator[Any]:
        (message,) = json.loads(sent(request, wire.MESSAGES))
        return map(response, _responses(CASES[message["content"]]))

    with scripted_server(described(replay)) as server, gateway(server.url) as running:
        yield running


@pytest.mark.parametrize("name", CASES)
def test_a_stream_joins_to_the_whole_answer(replaying: Gateway, name: str) -> None:
    messages = [{"role": "user", "content": name}]

    whole = Sent.whole(replaying.chat(messages))
    streamed = Sent.streamed(replaying.chat(messages, stream=True))

    assert streamed == whole
    _check_expected(CASES[name], whole)


def _check_expected(case: dict[str, Any], got: Sent) -> None:
    """*got* is what the case expects, but for calls that broke, which a stream has begun and leaves open."""
    broken = [arguments for _, arguments in got.calls if not _is_json(arguments)]
    if broken or case.get("contentious") or case.get("nonstream_only"):
        assert not broken or got.problems
        return
    answers = [case["expected"], *case.get("accept_also", ())]
    assert got.reasoning.strip() in [(answer["reasoning"] or "").strip() for answer in answers]
    assert got.content.strip() in [(answer["content"] or "").strip() for answer in answers]
    assert [name for name, _ in got.calls] in [[call["name"] for call in answer["tool_calls"]] for answer in answers]
    assert got.finish_reason in [answer["finish"] for answer in answers]


def _responses(case: dict[str, Any]) -> Iterator[Response]:
    """The responses of the real parser to the text of *case*, three characters at a time."""
    model = profile(case["model"])
    functions = read_functions([KIT["tools"][name] for name in case["tools"]])
    prefilled = case["think_prefilled"]
    prompt = None if prefilled is None else reasoning.OPENER if prefilled else ""
    thinking = model.thinking.default if case["thinking"] is None else case["thinking"]
    rules = answer_rules(
        model,
        functions,
        begins=reasoning.begins(model.reasoning_format, thinking=bool(thinking), prompt=prompt),
        choice=read_choice(case["tool_choice"], functions),
        parallel=case["parallel_tool_calls"],
    )
    parser, cut = AnswerParser(rules, stream_calls=True), case["engine_finish"] == "length"
    for at in range(0, len(case["text"]), 3):
        yield from _in_order(parser.feed(case["text"][at : at + 3]))
    last = parser.finish(cut=cut)
    reason = "length" if cut else "tool_calls" if parser.called_tools else "stop"
    yield from _in_order([*last, Finish(reason=reason, usage=USAGE, problems=tuple(parser.problems))])


def _in_order(events: list[Event]) -> list[Response]:
    # All of a call is in its pieces.
    sent = [event for event in events if not isinstance(event, ToolCall)]
    return in_order(sent) if sent else []


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True

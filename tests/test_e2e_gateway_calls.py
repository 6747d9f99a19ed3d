"""Tool calls and thinking on the wire of the gateway, as agents and SDKs read them: whole, and piece by piece."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from conftest import ROOT
from gateways import Answer, Gateway, gateway
from nemotron_triton.server import ServeOptions

TOOLS = json.loads((ROOT / "build/demo/tools.json").read_text())
NAMED = {"type": "function", "function": {"name": "calculate_tip"}}
SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["Paris", "Rome"]}, "letters": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["name", "letters"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": True}}


@pytest.fixture(scope="module")
def offered(served: ServeOptions) -> Iterator[Gateway]:
    """A gateway in front of the demo model."""
    with gateway(served.grpc_url) as running:
        yield running


def messages(text: str, *, think: bool) -> list[dict[str, str]]:
    """A question, and whether to think about it."""
    system = f"detailed thinking {'on' if think else 'off'}"
    return [{"role": "system", "content": system}, {"role": "user", "content": text}]


TWO, TIP, CAPITAL = (
    "What is a 15% tip on $80 and a 20% tip on $60?",
    "My bill is $100. What will be the amount for 18% tip?",
    "What is the capital of France?",
)


def deltas(answer: Answer) -> list[dict[str, Any]]:
    """What each chunk of a stream adds to its one answer."""
    return [chunk["choices"][0]["delta"] for chunk in answer.chunks]


def finish(answer: Answer) -> list[str]:
    """Every reason in a stream for its end."""
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in answer.chunks]
    return [reason for reason in reasons if reason]


def joined(answer: Answer) -> dict[str, Any]:
    """The message of a stream, without the ids of its calls."""
    pieces = deltas(answer)
    texts = {name: "".join(piece.get(name) or "" for piece in pieces) for name in ("reasoning", "content")}
    return texts | {"calls": calls(piece for delta in pieces for piece in delta.get("tool_calls", ()))}


def whole(answer: Answer) -> dict[str, Any]:
    """The message of a whole answer, without the ids of its calls."""
    message = answer.json["choices"][0]["message"]
    texts = {name: message.get(name) or "" for name in ("reasoning", "content")}
    return texts | {
        "calls": calls({"index": index, **call} for index, call in enumerate(message.get("tool_calls", ())))
    }


def calls(pieces: Iterator[Mapping[str, Any]]) -> list[tuple[int, str, str]]:
    """The index, name and arguments of each call in *pieces*, which come one call after the other."""
    return [
        (index, functions[0]["name"], "".join(function["arguments"] for function in functions))
        for index, group in itertools.groupby(pieces, lambda piece: piece["index"])
        for functions in [[piece["function"] for piece in group]]
    ]


@pytest.mark.parametrize("think", [True, False])
def test_the_pieces_of_two_calls_cannot_be_mixed_up(offered: Gateway, think: bool) -> None:
    streamed = offered.chat(messages(TWO, think=think), tools=TOOLS, temperature=0, stream=True)

    pieces = [piece for delta in deltas(streamed) for piece in delta.get("tool_calls", ())]
    opening = [piece for piece in pieces if "id" in piece]
    assert [(piece["index"], piece["type"], piece["function"]["name"]) for piece in opening] == [
        (0, "function", "calculate_tip"),
        (1, "function", "calculate_tip"),
    ]
    assert len({piece["id"] for piece in opening}) == 2
    assert [piece["index"] for piece in pieces] == sorted(piece["index"] for piece in pieces)
    for piece in pieces:
        if piece not in opening:
            assert (set(piece), set(piece["function"])) == ({"index", "function"}, {"arguments"})


@pytest.mark.parametrize("text", [CAPITAL, TWO])
@pytest.mark.parametrize("think", [True, False])
@pytest.mark.parametrize("tools", [[], TOOLS])
def test_an_answer_has_calls_or_does_not_name_them(offered: Gateway, text: str, think: bool, tools: list[Any]) -> None:
    request: dict[str, Any] = {"tools": tools, "temperature": 0}

    answer = offered.chat(messages(text, think=think), **request)
    streamed = offered.chat(messages(text, think=think), **request, stream=True)

    (choice,) = answer.json["choices"]
    called = text == TWO and bool(tools)
    assert ("tool_calls" in choice["message"], any("tool_calls" in delta for delta in deltas(streamed))) == (
        called,
        called,
    )
    assert (choice["message"]["content"] is None) == called
    assert [choice["finish_reason"]] == finish(streamed) == ["tool_calls" if called else "stop"]


@pytest.mark.parametrize("choice", ["auto", "none", "required", NAMED], ids=["auto", "none", "required", "named"])
@pytest.mark.parametrize("think", [True, False])
def test_every_choice_of_tools_is_the_same_in_a_stream(offered: Gateway, choice: Any, think: bool) -> None:
    request: dict[str, Any] = {"tools": TOOLS, "tool_choice": choice, "temperature": 0}

    answer = offered.chat(messages(TIP, think=think), **request)
    streamed = offered.chat(messages(TIP, think=think), **request, stream=True)

    assert joined(streamed) == whole(answer)
    assert bool(whole(answer)["calls"]) == (choice != "none")
    assert bool(whole(answer)["reasoning"]) == think


@pytest.mark.parametrize("think", [True, False])
def test_a_schema_is_for_the_text_and_leaves_the_thinking_alone(offered: Gateway, think: bool) -> None:
    request: dict[str, Any] = {"response_format": FORMAT, "temperature": 0}

    answer = offered.chat(messages(CAPITAL, think=think), **request)
    streamed = offered.chat(messages(CAPITAL, think=think), **request, stream=True)

    message = whole(answer)
    assert json.loads(message["content"])["name"] == "Paris"
    assert (bool(message["reasoning"]), message["calls"]) == (think, [])
    assert joined(streamed) == message


@pytest.mark.parametrize("text", [CAPITAL, TIP])
def test_both_names_of_the_thinking_have_the_same_text(offered: Gateway, text: str) -> None:
    request: dict[str, Any] = {"tools": TOOLS, "temperature": 0}

    answer = offered.chat(messages(text, think=True), **request)
    streamed = offered.chat(messages(text, think=True), **request, stream=True)

    message = answer.json["choices"][0]["message"]
    assert message["reasoning"] == message["reasoning_content"] != ""
    assert all(delta.get("reasoning") == delta.get("reasoning_content") for delta in deltas(streamed))
    assert any("reasoning" in delta for delta in deltas(streamed))


def test_nobody_who_asks_for_no_thinking_gets_any(offered: Gateway) -> None:
    request: dict[str, Any] = {"include_reasoning": False, "temperature": 0}

    answer = offered.chat(messages(CAPITAL, think=True), **request)
    streamed = offered.chat(messages(CAPITAL, think=True), **request, stream=True)

    names = {"reasoning", "reasoning_content"}
    assert not names & set(answer.json["choices"][0]["message"])
    assert not any(names & set(delta) for delta in deltas(streamed))
    assert joined(streamed)["content"] == whole(answer)["content"] != ""

"""Sampling parameters and guides through a real tritonserver."""

from __future__ import annotations

import json

import pytest

from nemotron_client import Client, RequestRejected

CAPITAL = [{"role": "user", "content": "What is the capital of Sweden?"}]
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}},
    "required": ["city"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("thinking", [False, True])
def test_the_answer_behind_the_thinking_fits_the_schema(client: Client, thinking: bool) -> None:
    reply = client.chat(CAPITAL, thinking=thinking, guide_type="json_schema", guide=CITY, max_tokens=500, seed=1)

    assert json.loads(reply.content or "").keys() == {"city"}
    assert bool(reply.reasoning) == thinking


def test_a_guide_that_is_none_is_refused_and_the_next_request_is_served(client: Client) -> None:
    with pytest.raises(RequestRejected, match="guided_decoding_guide cannot be followed"):
        client.chat(CAPITAL, guide_type="json_schema", guide={"type": "frob"})
    with pytest.raises(RequestRejected, match="guided_decoding_guide_type"):
        client.chat(CAPITAL, guide_type="ebnf_grammar", guide='root ::= "a"')  # type: ignore[arg-type]

    assert "Stockholm" in (client.chat(CAPITAL, thinking=False).content or "")


def test_words_can_be_forbidden_and_can_end_the_answer(client: Client) -> None:
    without = client.chat(CAPITAL, thinking=False, bad_words=["Stockholm"], max_tokens=50)
    stopped = client.chat(CAPITAL, thinking=False, stop=["Stockholm"])

    assert "Stockholm" not in (without.content or "")
    assert (stopped.content, stopped.finish_reason) == ("The capital of Sweden is ", "stop")


def test_an_answer_can_be_made_longer_than_the_model_likes(client: Client) -> None:
    short = client.chat(CAPITAL, thinking=False)
    long = client.chat(CAPITAL, thinking=False, min_tokens=40, max_tokens=60)

    assert short.usage.output_tokens < 40 <= long.usage.output_tokens


def test_thinking_ends_at_its_budget(client: Client) -> None:
    free = client.chat(CAPITAL, thinking=True)
    short = client.chat(CAPITAL, thinking=True, max_thinking_tokens=1)
    ample = client.chat(CAPITAL, thinking=True, max_thinking_tokens=1000)
    hidden = client.chat(CAPITAL, thinking=True, max_thinking_tokens=1, include_reasoning=False)

    assert short.reasoning
    assert free.reasoning
    assert free.reasoning.startswith(short.reasoning)
    assert 0 < short.usage.reasoning_tokens < free.usage.reasoning_tokens
    assert (short.finish_reason, bool(short.content)) == ("stop", True)
    assert ample == free
    assert (hidden.reasoning, hidden.content, hidden.usage) == (None, short.content, short.usage)


def test_an_effort_says_whether_to_think(client: Client) -> None:
    off = client.chat(CAPITAL, reasoning_effort="none")
    low = client.chat(CAPITAL, reasoning_effort="low")

    assert (off.reasoning, off.usage.reasoning_tokens) == (None, 0)
    assert low == client.chat(CAPITAL, thinking=True)
    with pytest.raises(RequestRejected, match=r"reasoning_effort is .*; it must be one of none, minimal, low, medium"):
        client.chat(CAPITAL, reasoning_effort="max")  # type: ignore[arg-type]

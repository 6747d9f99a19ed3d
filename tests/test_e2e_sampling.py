"""Sampling parameters and guides through a real tritonserver."""

from __future__ import annotations

import json

import pytest

from nemotron_client import Client, RequestRejected
from nemotron_triton.bundle import Bundle
from nemotron_triton.chat.tokens import TokenCodec

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


@pytest.mark.parametrize("thinking", [False, True])
def test_log_probabilities_say_what_their_tokens_belong_to(client: Client, thinking: bool) -> None:
    reply = client.chat(CAPITAL, thinking=thinking, temperature=0.0, logprobs=True, top_logprobs=2)

    parts = [token.part for token in reply.logprobs]
    texts = {part: b"".join(token.bytes for token in reply.logprobs if token.part == part) for part in set(parts)}
    assert len(parts) == reply.usage.output_tokens
    # The closing tag is not counted.
    assert parts.count("reasoning") == reply.usage.reasoning_tokens + thinking
    assert parts == sorted(parts, key=["reasoning", "content"].index)
    assert texts["content"].strip().decode() == reply.content
    assert (f"<think>\n{reply.reasoning}\n</think>" if thinking else "").encode() == texts.get("reasoning", b"")
    assert all(len(token.top) == 2 for token in reply.logprobs if token.logprob is not None)


def test_log_probabilities_without_alternatives_have_their_tokens(client: Client) -> None:
    reply = client.chat(CAPITAL, thinking=False, temperature=0.0, logprobs=True)

    assert b"Stockholm" in b"".join(token.bytes for token in reply.logprobs)
    assert [token.top for token in reply.logprobs] == [()] * reply.usage.output_tokens


def test_several_answers_differ_by_their_seed_and_are_told_apart(client: Client) -> None:
    alone = client.chat(CAPITAL, thinking=False, seed=7, temperature=3.0, max_tokens=20)
    reply = client.chat(CAPITAL, thinking=False, seed=7, temperature=3.0, max_tokens=20, n=3)

    assert len(reply.choices) == 3
    assert reply.content == reply.choices[0].content == alone.content
    assert len({choice.content for choice in reply.choices}) > 1
    assert reply.usage.output_tokens == sum(choice.usage.output_tokens for choice in reply.choices)


def test_what_ended_the_answer_is_told(client: Client, bundle: Bundle) -> None:
    codec = TokenCodec(bundle.tokenizer_path)
    (stockholm,) = codec.encode_text("Stockholm")

    word = client.chat(CAPITAL, thinking=False, stop="Stockholm")
    token = client.chat(CAPITAL, thinking=False, stop_token_ids=[stockholm])
    end = client.chat(CAPITAL, thinking=False)
    cut = client.chat(CAPITAL, thinking=False, max_tokens=2)

    assert (word.content, word.stop_reason) == ("The capital of Sweden is ", "Stockholm")
    assert (token.content, token.stop_reason) == (word.content, stockholm)
    assert end.stop_reason in bundle.manifest.end_ids
    assert cut.stop_reason is None


def test_a_token_or_a_word_can_be_barred(client: Client, bundle: Bundle) -> None:
    (stockholm,) = TokenCodec(bundle.tokenizer_path).encode_text("Stockholm")

    by_id = client.chat(CAPITAL, thinking=False, temperature=0.0, logit_bias={stockholm: -100})
    by_text = client.chat(CAPITAL, thinking=False, temperature=0.0, word_bias={"Stockholm": -100})

    assert "Stockholm" not in (by_id.content or "")
    assert by_id == by_text


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
    assert (short.thinking_cut, hidden.thinking_cut, ample.thinking_cut) == (True, True, False)
    assert (hidden.reasoning, hidden.content, hidden.usage) == (None, short.content, short.usage)


def test_an_effort_says_whether_to_think(client: Client) -> None:
    off = client.chat(CAPITAL, reasoning_effort="none")
    low = client.chat(CAPITAL, reasoning_effort="low")

    assert (off.reasoning, off.usage.reasoning_tokens) == (None, 0)
    assert low == client.chat(CAPITAL, thinking=True)
    with pytest.raises(RequestRejected, match=r"reasoning_effort is .*; it must be one of none, minimal, low, medium"):
        client.chat(CAPITAL, reasoning_effort="max")  # type: ignore[arg-type]

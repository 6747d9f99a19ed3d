"""Sampling of the CPU engine: every parameter is obeyed, and every guide followed or refused."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from cpu_engine import GREEDY, HOT, begin, chunks_of, ids_of, running
from nemotron_client.events import ToolCall
from nemotron_triton.bundle import Bundle
from nemotron_triton.chat.answer import AnswerRules, parse_whole
from nemotron_triton.chat.conversation import ToolChoice
from nemotron_triton.chat.formats import call_format, format_names
from nemotron_triton.chat.grammar import forced_call
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.engine.interface import Guide, Sampling
from nemotron_triton.engine.stream import TokenChunk
from nemotron_triton.errors import RequestError


def answers(bundle: Bundle, *samplings: Sampling) -> list[list[TokenChunk]]:
    """The answers of a new engine to requests one after another."""

    async def generate() -> list[list[TokenChunk]]:
        async with running(bundle) as engine:
            return [await chunks_of(engine, PROMPT, sampling) for sampling in samplings]

    return asyncio.run(generate())


def joined(chunks: Sequence[TokenChunk]) -> list[int]:
    return [token_id for chunk in chunks for token_id in chunk.ids]


def token_of(bundle: Bundle, text: str) -> int:
    token_id = TokenCodec(bundle.tokenizer_path).id_of(text.encode())
    assert token_id is not None
    return token_id


PROMPT = [9, 8, 7, 6]
LONG = replace(GREEDY, max_tokens=60, ignore_end=True)


def test_a_stop_id_ends_the_answer_and_is_not_part_of_it(random_bundle: Bundle) -> None:
    (free,) = answers(random_bundle, LONG)
    stop_id = joined(free)[7]

    (stopped,) = answers(random_bundle, replace(LONG, stop_ids=(stop_id,)))

    assert joined(stopped) == joined(free)[: joined(free).index(stop_id)]
    assert stopped[-1].finish_reason == "stop"


def test_no_end_comes_before_the_least_number_of_tokens(random_bundle: Bundle) -> None:
    (free,) = answers(random_bundle, LONG)
    stop_id = joined(free)[3]
    ending = replace(LONG, stop_ids=(stop_id,))

    short, long, longest = answers(
        random_bundle, ending, replace(ending, min_tokens=20), replace(ending, min_tokens=60, max_tokens=60)
    )

    assert len(joined(short)) <= 3
    assert len(joined(long)) >= 20
    assert joined(long)[: len(joined(short))] == joined(short)
    assert stop_id not in joined(long) + joined(longest)
    assert (len(joined(longest)), longest[-1].finish_reason) == (60, "length")


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_bad_sequence_never_comes_and_the_answer_goes_on(random_bundle: Bundle, size: int) -> None:
    (free,) = answers(random_bundle, LONG)
    bad = [tuple(joined(free)[start : start + size]) for start in (5, 20)]

    (without,) = answers(random_bundle, replace(LONG, bad_ids=tuple(bad)))

    ids = joined(without)
    assert ids[: 5 + size - 1] == joined(free)[: 5 + size - 1]
    assert not set(bad) & {tuple(ids[start : start + size]) for start in range(60)}
    assert len(ids) == 60


def test_a_logit_bias_decides(random_bundle: Bundle) -> None:
    first, second = (token_of(random_bundle, text) for text in ("x", "y"))

    first_answer, second_answer = answers(
        random_bundle,
        replace(LONG, logit_bias={first: 100.0}),
        replace(LONG, logit_bias={first: 100.0, second: 200.0}),
    )

    assert (set(joined(first_answer)), set(joined(second_answer))) == ({first}, {second})


def test_min_p_leaves_only_what_is_nearly_as_likely_as_the_likeliest(random_bundle: Bundle) -> None:
    hot = replace(LONG, temperature=1.0, seed=3)

    greedy, free, strict = answers(random_bundle, LONG, hot, replace(hot, min_p=1.0))

    assert joined(strict) == joined(greedy) != joined(free)


def test_log_probabilities_come_with_every_token_and_the_alternatives_asked_for(bundle: Bundle) -> None:
    none, bare, full = answers(bundle, LONG, replace(LONG, logprobs=0), replace(LONG, logprobs=4))

    logprobs = [token for chunk in full for token in chunk.logprobs]
    assert [token for chunk in none for token in chunk.logprobs] == []
    assert all(not token.top for chunk in bare for token in chunk.logprobs)
    assert len(logprobs) == len(joined(full)) == 60
    tokens = [
        (token_id, token) for token_id, token in zip(joined(full), logprobs, strict=True) if token.logprob is not None
    ]
    assert len(tokens) > 30
    for token_id, token in tokens:
        assert len(token.top) == 4
        # Greedy: the likeliest was picked.
        assert token.top[0] == (token_id, token.logprob)
        assert sorted((logprob for _, logprob in token.top), reverse=True) == [logprob for _, logprob in token.top]
        assert 0 < sum(math.exp(logprob) for _, logprob in token.top) <= 1.000001


PERSON = {
    "type": "object",
    "properties": {
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 9}, "maxItems": 2},
    },
    "required": ["age", "tags"],
    "additionalProperties": False,
}


def text_of(bundle: Bundle, chunks: Sequence[TokenChunk]) -> str:
    codec = TokenCodec(bundle.tokenizer_path)
    return b"".join(map(codec.bytes_of, joined(chunks))).decode()


@pytest.mark.parametrize("thinking", ["none", "opened", "model opens"])
def test_a_guide_shapes_the_text_behind_the_thinking(bundle: Bundle, thinking: Any) -> None:
    schema = Guide(kind="json_schema", text=json.dumps(PERSON), thinking=thinking)
    regex = Guide(kind="regex", text=r"[a-c]{3}/\d{2}", thinking=thinking)
    # Whatever the answer is, it must end.
    brief = replace(HOT, max_tokens=400, seed=5, logit_bias={token_of(bundle, "</think>"): 15.0})

    texts = [
        text_of(bundle, chunks) for chunks in answers(bundle, replace(brief, guide=schema), replace(brief, guide=regex))
    ]

    assert all(text.startswith("<think>\n") == (thinking == "model opens") for text in texts)
    as_json, as_code = (text.split("</think>", thinking != "none")[-1] for text in texts)
    person = json.loads(as_json)
    assert isinstance(person["age"], int)
    assert len(person["tags"]) <= 2
    assert re.fullmatch(r"\n{0,2}[a-c]{3}/\d{2}", as_code)


@pytest.mark.parametrize(
    "guide",
    [
        Guide(kind="json_schema", text='{"type": "frob"}'),
        Guide(kind="json_schema", text='{"$ref": "#"}'),
        Guide(kind="json_schema", text='{"$ref": "https://example.com/schema"}'),
        Guide(kind="json_schema", text='{"allOf": [{"$ref": "#"}]}'),
        Guide(kind="json_schema", text=json.dumps({"enum": ["\ud800"]})),
        Guide(kind="regex", text="[a-z"),
        Guide(kind="regex", text="(?=a)b"),
        Guide(kind="regex", text="a\\"),
        Guide(kind="regex", text="(" * 4000),
    ],
    ids=lambda guide: f"{guide.kind} {guide.text[:30]!r}",
)
def test_a_guide_that_cannot_be_followed_is_refused_without_harm_to_other_requests(
    bundle: Bundle, guide: Guide
) -> None:
    async def generate() -> tuple[list[TokenChunk], list[int]]:
        async with running(bundle) as engine:
            neighbour = asyncio.create_task(chunks_of(engine, [5], LONG))
            stream = begin(engine, [5] * 30, replace(GREEDY, guide=guide))
            with pytest.raises(RequestError, match="guided_decoding_guide cannot be followed"):
                async for _ in stream:
                    pass
            return await neighbour, await ids_of(engine, [1], LONG)

    neighbour, after = asyncio.run(generate())

    assert len(joined(neighbour)) == len(after) == 60


@pytest.mark.parametrize("tool_call_format", format_names())
def test_a_call_can_be_forced_of_a_function_with_a_thousand_parameters(bundle: Bundle, tool_call_format: str) -> None:
    names = [f"p{number}" for number in range(1000)]
    schema = {"type": "object", "properties": {name: {"enum": ["x", name]} for name in names}, "required": names[:2]}
    grammar = forced_call(
        tool_call_format, [{"name": "f", "parameters": schema}], ToolChoice("required"), thinking="none", parallel=True
    )

    (chunks,) = answers(bundle, replace(GREEDY, max_tokens=80, guide=Guide(kind="grammar", text=grammar)))

    assert text_of(bundle, chunks).startswith(call_format(tool_call_format).openers)


def likely(bundle: Bundle, text: bytes) -> dict[int, float]:
    """A bias that has a model write the bytes of *text*, one token each, where it may."""
    codec = TokenCodec(bundle.tokenizer_path)
    ids = [codec.id_of(bytes([byte])) for byte in text]
    return {token_id: 200.0 - 20 * place for place, token_id in enumerate(ids) if token_id is not None}


@pytest.mark.parametrize("tool_call_format", format_names())
@pytest.mark.parametrize(
    ("about", "chars"), [({"pattern": "^[\u4e00-\u9fff]{3}$"}, "日"), ({"const": "\x7f\t\x01"}, "x")]
)
def test_a_call_may_have_characters_of_any_kind(
    bundle: Bundle, tool_call_format: str, about: dict[str, Any], chars: str
) -> None:
    parameters = {"properties": {"x": {"type": "string", **about}}, "required": ["x"]}
    functions = [{"name": "f", "parameters": parameters}]
    grammar = forced_call(tool_call_format, functions, ToolChoice("required"), thinking="none", parallel=False)

    (chunks,) = answers(
        bundle,
        replace(
            GREEDY, max_tokens=80, logit_bias=likely(bundle, chars.encode()), guide=Guide(kind="grammar", text=grammar)
        ),
    )

    rules = AnswerRules(tool_call_format=tool_call_format, functions={"f": parameters})
    ([call], []) = parse_whole(text_of(bundle, chunks), rules)
    assert isinstance(call, ToolCall)
    assert Draft202012Validator(parameters).is_valid(json.loads(call.arguments_json))


# Too many bytes for a character, half a surrogate pair, past U+10FFFF: llama.cpp would count each as one character.
@pytest.mark.parametrize("broken", [b"\xe0\x85", b"\xf0\x85", b"\xed\xa1", b"\xf4\x91", b"\xf6\x91", b"\xfa\x91"])
def test_a_model_that_breaks_characters_keeps_to_a_grammar(bundle: Bundle, broken: bytes) -> None:
    guide = Guide(kind="grammar", text='root ::= "<" [^"]{3} ">"')

    (chunks,) = answers(bundle, replace(GREEDY, logit_bias=likely(bundle, broken), guide=guide))

    assert re.fullmatch('<[^"]{3}>', text_of(bundle, chunks))


@pytest.mark.parametrize("character", ["\xe9", "\u0924", "\ud7df", "\uffff", "\U0001f7df", "\U00020820", "\U0010f3cf"])
def test_a_grammar_takes_characters_of_several_tokens(bundle: Bundle, character: str) -> None:
    guide = Guide(kind="grammar", text='root ::= "<" [^"]{3} "\ufffd\ufffd\ufffd>"')

    (chunks,) = answers(
        bundle, replace(GREEDY, max_tokens=30, logit_bias=likely(bundle, character.encode()), guide=guide)
    )

    assert text_of(bundle, chunks) == f"<{character * 3}\ufffd\ufffd\ufffd>"

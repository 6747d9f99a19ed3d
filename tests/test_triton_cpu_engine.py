"""The CPU engine: every token accounted for, limits kept, cancelled at once, every parameter obeyed."""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import xllamacpp

from checkpoints import write_checkpoint
from nemotron_build.engine import EngineSpec, build
from nemotron_triton.bundle import Bundle
from nemotron_triton.chat.conversation import ToolChoice
from nemotron_triton.chat.grammar import forced_call
from nemotron_triton.chat.tokens import Detokenizer, TokenCodec
from nemotron_triton.engine.factory import start_engine
from nemotron_triton.engine.interface import Engine, Guide, Sampling
from nemotron_triton.engine.llama_cpp import Answer
from nemotron_triton.engine.stream import TokenChunk, TokenStream
from nemotron_triton.errors import RequestError, ServingError

GREEDY = Sampling(max_tokens=20, temperature=0.0, top_p=1.0)
HOT = Sampling(max_tokens=12, temperature=1.0, top_p=1.0)
ENDLESS = Sampling(max_tokens=1900, temperature=0.0, top_p=1.0, ignore_end=True)
ENDLESS_BUT_SHORT = replace(ENDLESS, max_tokens=5)


@pytest.fixture(scope="module")
def random_bundle(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Bundle:
    """A model that talks nonsense: broken characters, control tokens, every kind of id."""
    folder = tmp_path_factory.mktemp("random")
    write_checkpoint(folder / "checkpoint", checkpoint)
    build(
        EngineSpec(checkpoint=folder / "checkpoint", gpu="cpu", precision="bf16", max_batch_size=2), folder / "bundle"
    )
    return Bundle.open(folder / "bundle")


@asynccontextmanager
async def running(bundle: Bundle) -> AsyncIterator[Engine]:
    engine = start_engine(bundle, TokenCodec(bundle.tokenizer_path))
    try:
        yield engine
    finally:
        engine.close()


def begin(engine: Engine, ids: Sequence[int], sampling: Sampling) -> TokenStream:
    stream = TokenStream()
    engine.generate(ids, sampling, stream)
    return stream


async def chunks_of(engine: Engine, ids: Sequence[int], sampling: Sampling) -> list[TokenChunk]:
    return [chunk async for chunk in begin(engine, ids, sampling)]


async def ids_of(engine: Engine, ids: Sequence[int], sampling: Sampling) -> list[int]:
    return [token_id for chunk in await chunks_of(engine, ids, sampling) for token_id in chunk.ids]


async def until_idle(engine: Engine) -> None:
    deadline = time.monotonic() + 10
    while engine.statistics().active_requests or engine.statistics().waiting_requests:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


def test_the_token_limit_is_exact_and_nothing_is_lost(random_bundle: Bundle) -> None:
    codec = TokenCodec(random_bundle.tokenizer_path)
    hot = replace(HOT, temperature=1.5, ignore_end=True)

    async def generate() -> dict[int, list[TokenChunk]]:
        async with running(random_bundle) as engine:
            return {
                limit: await chunks_of(engine, [5, 6, 7], replace(hot, max_tokens=limit, seed=limit))
                for limit in range(1, 60)
            }

    for limit, chunks in asyncio.run(generate()).items():
        ids = [token_id for chunk in chunks for token_id in chunk.ids]
        detokenizer = Detokenizer(codec)
        text = detokenizer.feed(ids) + detokenizer.finish()
        assert len(ids) == limit
        assert chunks[-1].finish_reason == "length"
        assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
        assert len(text.encode()) >= limit


def test_seeds_repeat_and_differ(random_bundle: Bundle) -> None:
    async def generate() -> list[list[int]]:
        async with running(random_bundle) as engine:
            return [await ids_of(engine, [1, 2], replace(HOT, seed=seed)) for seed in (7, 7, 2**63 + 8)]

    first, again, other = asyncio.run(generate())

    assert first == again
    assert first != other


def test_a_cancelled_request_stops_at_once(random_bundle: Bundle) -> None:
    async def generate() -> tuple[int, int]:
        async with running(random_bundle) as engine:
            stream = begin(engine, [1], ENDLESS)
            await anext(stream)
            stream.cancel()
            await until_idle(engine)
            tokens = engine.statistics().generated_tokens
            await asyncio.sleep(0.1)
            return tokens, engine.statistics().generated_tokens

    tokens, later = asyncio.run(generate())

    assert later == tokens < 1900


def test_a_request_is_cancelled_while_its_prompt_is_read(random_bundle: Bundle) -> None:
    async def generate() -> tuple[float, float]:
        async with running(random_bundle) as engine:
            prompt = [5, 6] * 900
            begin_s = time.monotonic()
            await ids_of(engine, prompt, replace(GREEDY, max_tokens=1))
            whole_s = time.monotonic() - begin_s
            stream = begin(engine, prompt[::-1], ENDLESS)
            while not engine.statistics().active_requests:
                await asyncio.sleep(0.001)
            begin_s = time.monotonic()
            stream.cancel()
            await until_idle(engine)
            return time.monotonic() - begin_s, whole_s

    cancelled_s, whole_s = asyncio.run(generate())

    assert cancelled_s < whole_s / 2


def test_requests_past_the_batch_wait_and_can_be_cancelled_there(random_bundle: Bundle) -> None:
    async def generate() -> tuple[int, int, int]:
        async with running(random_bundle) as engine:
            streams = [begin(engine, [i], ENDLESS) for i in range(3)]
            while engine.statistics().active_requests < 2:
                await asyncio.sleep(0.01)
            full = engine.statistics()
            streams[2].cancel()
            without = engine.statistics()
            for stream in streams[:2]:
                stream.cancel()
            await until_idle(engine)
            return full.active_requests, full.waiting_requests, without.waiting_requests

    assert asyncio.run(generate()) == (2, 1, 0)


def test_closing_ends_every_request_with_an_error(random_bundle: Bundle) -> None:
    async def generate() -> list[str]:
        async with running(random_bundle) as engine:
            streams = [begin(engine, [i], ENDLESS) for i in range(4)]
            await anext(streams[0])
            await asyncio.to_thread(engine.close)
            streams.append(begin(engine, [1], GREEDY))
            assert engine.statistics().problem
            assert engine.statistics().waiting_requests == 0
            return [await failure_of(stream) for stream in streams]

    assert asyncio.run(generate()) == ["the engine is closed"] * 5


async def failure_of(stream: TokenStream) -> str:
    with pytest.raises(ServingError) as caught:
        async for _ in stream:
            pass
    return str(caught.value)


def test_a_prompt_llama_cpp_refuses_is_an_error_of_that_request_alone(random_bundle: Bundle) -> None:
    async def generate() -> tuple[str, int]:
        async with running(random_bundle) as engine:
            failure = await failure_of(begin(engine, [1] * 3000, GREEDY))
            return failure, len(await ids_of(engine, [1], replace(GREEDY, ignore_end=True)))

    failure, tokens = asyncio.run(generate())

    assert "exceeds the available context size" in failure
    assert tokens == 20


def test_an_error_of_ours_ends_one_request_and_not_the_engine(
    random_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive = Answer.receive

    def fails_once(self: Answer, message: dict[str, Any]) -> bool:
        monkeypatch.setattr(Answer, "receive", receive)
        raise KeyError("what nobody foresaw")

    async def generate() -> tuple[str, str | None, int]:
        async with running(random_bundle) as engine:
            monkeypatch.setattr(Answer, "receive", fails_once)
            failure = await failure_of(begin(engine, [1], GREEDY))
            return failure, engine.statistics().problem, len(await chunks_of(engine, [1], ENDLESS_BUT_SHORT))

    assert asyncio.run(generate()) == ("llama.cpp failed: 'what nobody foresaw'", None, 5)


@pytest.mark.parametrize("broken", [[7], [7, 0]])
def test_only_a_binding_that_answers_nothing_any_more_is_a_problem(
    random_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, broken: list[int]
) -> None:
    """A prompt that begins with a *broken* token breaks the binding; the engine looks with token 0."""

    class Server(xllamacpp.Server):  # type: ignore[misc]
        def handle_completions(self, request: dict[str, Any], receive: Any) -> Any:
            if request["prompt"][0] in broken:
                raise RuntimeError("llama.cpp has had enough\nat somewhere.cpp:12")
            return super().handle_completions(request, receive)

    monkeypatch.setattr(xllamacpp, "Server", Server)

    async def generate() -> tuple[str, str | None, int, str | None]:
        async with running(random_bundle) as engine:
            failure = await failure_of(begin(engine, [7], GREEDY))
            problem = engine.statistics().problem
            parallel = len(await chunks_of(engine, [1], ENDLESS_BUT_SHORT))
            return failure, problem, parallel, engine.statistics().problem

    problem = "llama.cpp answers no request any more" if 0 in broken else None
    assert asyncio.run(generate()) == ("llama.cpp failed: llama.cpp has had enough", problem, 5, problem)


def answers(bundle: Bundle, *samplings: Sampling) -> list[list[TokenChunk]]:
    """What an engine of its own answers to each, one after the other."""

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

    one, other = answers(
        random_bundle,
        replace(LONG, logit_bias={first: 100.0}),
        replace(LONG, logit_bias={first: 100.0, second: 200.0}),
    )

    assert (set(joined(one)), set(joined(other))) == ({first}, {second})


def test_min_p_leaves_only_what_is_nearly_as_likely_as_the_likeliest(random_bundle: Bundle) -> None:
    hot = replace(LONG, temperature=1.0, seed=3)

    greedy, free, strict = answers(random_bundle, LONG, hot, replace(hot, min_p=1.0))

    assert joined(strict) == joined(greedy) != joined(free)


def test_log_probabilities_come_with_every_token_and_the_alternatives_asked_for(bundle: Bundle) -> None:
    none, bare, told = answers(bundle, LONG, replace(LONG, logprobs=0), replace(LONG, logprobs=4))

    logprobs = [each for chunk in told for each in chunk.logprobs]
    assert [each for chunk in none for each in chunk.logprobs] == []
    assert all(not each.top for chunk in bare for each in chunk.logprobs)
    assert len(logprobs) == len(joined(told)) == 60
    known = [
        (token_id, each) for token_id, each in zip(joined(told), logprobs, strict=True) if each.logprob is not None
    ]
    assert len(known) > 30
    for token_id, each in known:
        assert len(each.top) == 4
        # Greedy: the likeliest was picked.
        assert each.top[0] == (token_id, each.logprob)
        assert sorted((logprob for _, logprob in each.top), reverse=True) == [logprob for _, logprob in each.top]
        assert 0 < sum(math.exp(logprob) for _, logprob in each.top) <= 1.000001


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
    # Whatever it says, it must come to an end.
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
def test_a_guide_that_cannot_be_followed_is_refused_and_hurts_nobody_else(bundle: Bundle, guide: Guide) -> None:
    async def generate() -> tuple[list[TokenChunk], list[int]]:
        async with running(bundle) as engine:
            other = asyncio.create_task(chunks_of(engine, [5], LONG))
            stream = begin(engine, [5] * 30, replace(GREEDY, guide=guide))
            with pytest.raises(RequestError, match="guided_decoding_guide cannot be followed"):
                async for _ in stream:
                    pass
            return await other, await ids_of(engine, [1], LONG)

    other, after = asyncio.run(generate())

    assert len(joined(other)) == len(after) == 60


@pytest.mark.parametrize("tool_call_format", ["nemotron_json", "qwen3_coder"])
def test_a_call_can_be_forced_of_a_function_with_a_thousand_parameters(bundle: Bundle, tool_call_format: str) -> None:
    names = [f"p{number}" for number in range(1000)]
    schema = {"type": "object", "properties": {name: {"enum": ["x", name]} for name in names}, "required": names[:2]}
    grammar = forced_call(
        tool_call_format, [{"name": "f", "parameters": schema}], ToolChoice("required"), thinking="none", parallel=True
    )

    (chunks,) = answers(bundle, replace(GREEDY, max_tokens=80, guide=Guide(kind="grammar", text=grammar)))

    assert text_of(bundle, chunks).startswith(("<TOOLCALL>", "<tool_call>"))

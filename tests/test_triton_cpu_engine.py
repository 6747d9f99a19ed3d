"""The CPU engine: every token is counted, limits hold, and a cancel takes effect at once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
import xllamacpp

from cpu_engine import ENDLESS, ENDLESS_BUT_SHORT, GREEDY, HOT, begin, chunks_of, ids_of, running, until_idle
from nemotron_triton.bundle import Bundle
from nemotron_triton.chat.tokens import Detokenizer, TokenCodec
from nemotron_triton.engine.llama_cpp import Answer
from nemotron_triton.engine.stream import TokenChunk, TokenStream
from nemotron_triton.errors import ServingError


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


def test_the_tokens_that_two_prompts_begin_with_are_cached(random_bundle: Bundle) -> None:
    prefix = [5, 6, 7, 8] * 60

    async def generate() -> list[int | None]:
        async with running(random_bundle) as engine:
            streams = []
            for end in ([1, 2], [3, 4]):
                streams.append(begin(engine, [*prefix, *end], GREEDY))
                async for _ in streams[-1]:
                    pass
            return [stream.cached_tokens for stream in streams]

    assert asyncio.run(generate()) == [0, len(prefix)]


def test_seeds_repeat_and_differ(random_bundle: Bundle) -> None:
    async def generate() -> list[list[int]]:
        async with running(random_bundle) as engine:
            return [await ids_of(engine, [1, 2], replace(HOT, seed=seed)) for seed in (7, 7, 2**63 + 8)]

    first, again, different = asyncio.run(generate())

    assert first == again
    assert first != different


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
    async def generate() -> tuple[int, int]:
        async with running(random_bundle) as engine:
            prompt = [5, 6] * 900
            await ids_of(engine, prompt, replace(GREEDY, max_tokens=1))
            whole_steps = engine.statistics().prompt_steps
            stream = begin(engine, prompt[::-1], ENDLESS)
            while engine.statistics().prompt_steps == whole_steps:
                await asyncio.sleep(0.001)
            stream.cancel()
            await until_idle(engine)
            return engine.statistics().prompt_steps - whole_steps, whole_steps

    cancelled_steps, whole_steps = asyncio.run(generate())

    assert 0 < cancelled_steps < whole_steps


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
    """A prompt that begins with a *broken* token breaks the binding; the engine checks itself with token 0."""

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

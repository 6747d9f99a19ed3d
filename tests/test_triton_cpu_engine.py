"""The CPU engine: every token accounted for, limits kept, cancelled at once, every parameter obeyed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from checkpoints import write_checkpoint
from nemotron_build.engine import EngineSpec, build
from nemotron_triton.bundle import Bundle
from nemotron_triton.chat.tokens import Detokenizer, TokenCodec
from nemotron_triton.engine.factory import start_engine
from nemotron_triton.engine.interface import Engine, Sampling
from nemotron_triton.engine.stream import TokenChunk, TokenStream
from nemotron_triton.errors import EngineError

GREEDY = Sampling(max_tokens=20, temperature=0.0, top_p=1.0)
HOT = Sampling(max_tokens=12, temperature=1.0, top_p=1.0)
ENDLESS = Sampling(max_tokens=1900, temperature=0.0, top_p=1.0, ignore_end=True)


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
    stream = TokenStream("a request")
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
    with pytest.raises(EngineError) as caught:
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

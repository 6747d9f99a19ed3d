"""The CPU engine: every token accounted for, limits kept, cancelled at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from checkpoints import write_checkpoint
from nemotron_build.engine import EngineSpec, build
from nemotron_triton.bundle import Bundle
from nemotron_triton.chat.tokens import Detokenizer, TokenCodec
from nemotron_triton.engine.factory import start_engine
from nemotron_triton.engine.interface import Engine, Sampling, TokenChunk
from nemotron_triton.errors import EngineError

GREEDY = Sampling(max_tokens=20, temperature=0.0, top_p=1.0)
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


async def collect(stream: AsyncGenerator[TokenChunk, None]) -> list[TokenChunk]:
    return [chunk async for chunk in stream]


def ids_of(chunks: Sequence[TokenChunk]) -> list[int]:
    return [token for chunk in chunks for token in chunk.ids]


def test_the_token_limit_is_exact_and_nothing_is_lost(random_bundle: Bundle) -> None:
    codec = TokenCodec(random_bundle.tokenizer_path)
    hot = Sampling(max_tokens=1, temperature=1.5, top_p=1.0, ignore_end=True)

    async def generate() -> dict[int, list[TokenChunk]]:
        async with running(random_bundle) as engine:
            return {
                limit: await collect(engine.generate([5, 6, 7], replace(hot, max_tokens=limit, seed=limit), str(limit)))
                for limit in range(1, 60)
            }

    for limit, chunks in asyncio.run(generate()).items():
        ids = ids_of(chunks)
        detokenizer = Detokenizer(codec)
        text = detokenizer.feed(ids) + detokenizer.finish()
        assert len(ids) == limit
        assert chunks[-1].finish_reason == "length"
        assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
        assert len(text.encode()) >= limit


def test_seeds_repeat_and_differ(random_bundle: Bundle) -> None:
    hot = Sampling(max_tokens=12, temperature=1.0, top_p=1.0)

    async def generate() -> list[list[int]]:
        async with running(random_bundle) as engine:
            return [
                ids_of(await collect(engine.generate([1, 2], replace(hot, seed=seed), str(i))))
                for i, seed in enumerate([7, 7, 2**63 + 8])
            ]

    first, again, other = asyncio.run(generate())

    assert first == again
    assert first != other


def test_a_cancelled_request_stops_at_once(random_bundle: Bundle) -> None:
    async def generate() -> tuple[TokenChunk, int, int]:
        async with running(random_bundle) as engine:
            stream = engine.generate([1], ENDLESS, "a")
            await anext(stream)
            engine.cancel("a")
            engine.cancel("a request nobody knows")
            last = (await collect(stream))[-1]
            await idle(engine)
            tokens = engine.statistics().generated_tokens
            await asyncio.sleep(0.1)
            return last, tokens, engine.statistics().generated_tokens

    last, tokens, later = asyncio.run(generate())

    assert last.finish_reason == "cancelled"
    assert later == tokens < 1900


def test_a_reader_that_goes_away_stops_the_generation(random_bundle: Bundle) -> None:
    async def generate() -> int:
        async with running(random_bundle) as engine:
            async with aclosing(engine.generate([1], ENDLESS, "a")) as stream:
                await anext(stream)
            await idle(engine)
            return engine.statistics().generated_tokens

    assert asyncio.run(generate()) < 1900


def test_requests_past_the_batch_wait_and_can_be_cancelled_there(random_bundle: Bundle) -> None:
    async def generate() -> tuple[int, int, TokenChunk]:
        async with running(random_bundle) as engine:
            streams = [engine.generate([i], ENDLESS, str(i)) for i in range(3)]
            tasks = [asyncio.create_task(collect(stream)) for stream in streams]
            while engine.statistics().active_requests < 2:
                await asyncio.sleep(0.01)
            statistics = engine.statistics()
            for i in (2, 0, 1):
                engine.cancel(str(i))
            chunks = await asyncio.gather(*tasks)
            return statistics.active_requests, statistics.waiting_requests, chunks[2][-1]

    assert asyncio.run(generate()) == (2, 1, TokenChunk((), "cancelled"))


def test_a_prompt_llama_cpp_refuses_is_an_error(random_bundle: Bundle) -> None:
    async def generate() -> None:
        async with running(random_bundle) as engine:
            await collect(engine.generate([1] * 3000, GREEDY, "a"))

    with pytest.raises(EngineError, match="exceeds the available context size"):
        asyncio.run(generate())


async def idle(engine: Engine) -> None:
    """Wait until the engine generates for nobody."""
    deadline = time.monotonic() + 10
    while engine.statistics().active_requests:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)

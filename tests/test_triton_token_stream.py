"""Tokens from an engine's thread to the event loop: none lost, none late, gathered at the pace."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemotron_triton.engine.stream import TokenChunk, TokenLogprob, TokenStream
from nemotron_triton.errors import EngineError


async def read_all(stream: TokenStream) -> list[TokenChunk]:
    return [chunk async for chunk in stream]


@given(st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=20), st.sampled_from([None, 0.0, 0.001]))
def test_every_token_arrives_once_and_in_order(puts: list[list[int]], pause_s: float | None) -> None:
    async def run() -> list[TokenChunk]:
        stream = TokenStream(None if pause_s is None else lambda: pause_s)

        def engine() -> None:
            for ids in puts:
                stream.put(ids)
            stream.put((), "stop")

        thread = threading.Thread(target=engine)
        thread.start()
        chunks = await read_all(stream)
        thread.join()
        return chunks

    chunks = asyncio.run(run())

    assert [token for chunk in chunks for token in chunk.ids] == [token for ids in puts for token in ids]
    assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].finish_reason == "stop"


def test_without_a_pace_each_token_is_a_chunk() -> None:
    async def run() -> list[TokenChunk]:
        stream = TokenStream()
        stream.put((1, 2, 3), logprobs=tuple(TokenLogprob(-float(i)) for i in range(3)))
        stream.put((), "length")
        return await read_all(stream)

    chunks = asyncio.run(run())

    assert [chunk.ids for chunk in chunks][:3] == [(1,), (2,), (3,)]
    assert [token.logprob for chunk in chunks for token in chunk.logprobs] == [-0.0, -1.0, -2.0]
    assert chunks[-1].finish_reason == "length"


def test_the_first_token_never_waits_and_the_others_are_gathered() -> None:
    pauses = 0

    def pace() -> float:
        nonlocal pauses
        pauses += 1
        return 0.05

    async def run() -> list[tuple[int, ...]]:
        stream = TokenStream(pace)
        stream.put((1,))
        first = await stream.__anext__()
        assert pauses == 0
        for token in range(2, 12):
            stream.put((token,))
        second = await stream.__anext__()
        return [first.ids, second.ids]

    assert asyncio.run(run()) == [(1,), tuple(range(2, 12))]


def test_the_end_of_an_answer_does_not_wait_for_the_pause() -> None:
    async def run() -> tuple[TokenChunk, float]:
        stream = TokenStream(lambda: 30.0)
        stream.put((1,))
        await stream.__anext__()
        asyncio.get_running_loop().call_later(0.01, stream.put, (2,), "stop")
        begin = time.monotonic()
        return await stream.__anext__(), time.monotonic() - begin

    chunk, took_s = asyncio.run(run())

    assert chunk == TokenChunk((2,), "stop")
    assert took_s < 10


def test_an_error_comes_after_the_tokens_before_it() -> None:
    async def run() -> list[int]:
        stream = TokenStream(lambda: 0.0)
        stream.put((1, 2))
        stream.fail(EngineError("the GPU fell off"))
        stream.put((3,))
        before = await stream.__anext__()
        with pytest.raises(EngineError, match="fell off"):
            await stream.__anext__()
        assert await read_all(stream) == []
        return list(before.ids)

    assert asyncio.run(run()) == [1, 2]


@pytest.mark.parametrize("announced", [True, False])
def test_cancelling_tells_the_engine_once_whether_it_asked_before_or_after(announced: bool) -> None:
    calls: list[str] = []

    def listen(stream: TokenStream) -> Callable[[], None]:
        return lambda: stream.when_cancelled(lambda: calls.append("stop"))

    async def run() -> None:
        stream = TokenStream()
        steps = [listen(stream), stream.cancel]
        for step in steps if announced else reversed(steps):
            step()
        stream.cancel()
        assert stream.cancelled

    asyncio.run(run())

    assert calls == ["stop"]


def test_an_answer_that_has_ended_cannot_be_cancelled() -> None:
    async def run() -> TokenStream:
        stream = TokenStream()
        stream.put((1,), "stop")
        stream.when_cancelled(lambda: pytest.fail("nothing is left to cancel"))
        stream.cancel()
        assert (await read_all(stream))[-1].ids == (1,)
        return stream

    assert not asyncio.run(run()).cancelled

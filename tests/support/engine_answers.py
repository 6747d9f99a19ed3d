"""Answers of an engine, read on an event loop as the server reads them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from nemotron_triton.engine.stream import TokenLogprob, TokenStream
from patience import PATIENCE_S


def on_loop(test: Callable[[], Awaitable[None]]) -> None:
    """Run *test* on an event loop of its own; a test that hangs fails."""

    async def bounded() -> None:
        await asyncio.wait_for(test(), timeout=2 * PATIENCE_S)

    asyncio.run(bounded())


async def read(stream: TokenStream) -> tuple[list[int], str | None, list[TokenLogprob]]:
    """The whole answer."""
    chunks = [chunk async for chunk in stream]
    ids = [token_id for chunk in chunks for token_id in chunk.ids]
    return ids, chunks[-1].finish_reason, [logprob for chunk in chunks for logprob in chunk.logprobs]


async def settled(condition: Callable[[], bool]) -> None:
    """Let the engine's task run until *condition* holds."""
    while not condition():
        await asyncio.sleep(0)

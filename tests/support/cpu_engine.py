"""The CPU engine on the event loop of a test."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from nemotron_triton.bundle import Bundle
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.engine.interface import Engine, Sampling
from nemotron_triton.engine.start import start_engine
from nemotron_triton.engine.stream import TokenChunk, TokenStream

GREEDY = Sampling(max_tokens=20, temperature=0.0, top_p=1.0)
HOT = Sampling(max_tokens=12, temperature=1.0, top_p=1.0)
ENDLESS = Sampling(max_tokens=1900, temperature=0.0, top_p=1.0, ignore_end=True)
ENDLESS_BUT_SHORT = replace(ENDLESS, max_tokens=5)


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

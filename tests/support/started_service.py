"""The service without Triton, with an engine that says a word and an observer that keeps what is reported."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nemotron_triton.bundle import Bundle
from nemotron_triton.chat.render import Prompt
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.engine import interface
from nemotron_triton.engine.interface import EngineStatistics, Sampling
from nemotron_triton.engine.stream import TokenStream
from nemotron_triton.serving.service import Service, StartEngine
from nemotron_triton.serving.settings import Settings
from pb_utils import PB_UTILS


class Engine(interface.Engine):
    """Generates one word for each request, once the test lets it; the warm-up passes."""

    max_seq_len = 2048
    max_batch_size = 2
    cannot: Mapping[str, str] = {}

    def __init__(self, _bundle: Bundle, codec: TokenCodec) -> None:
        self.ids = codec.encode(Prompt("word", "\ufdd0", ()))
        self.go = threading.Event()
        self.go.set()
        self.closed = False

    def generate(self, _ids: Sequence[int], _sampling: Sampling, stream: TokenStream) -> None:
        async def say() -> None:
            while not self.go.is_set() and not stream.cancelled:
                await asyncio.sleep(0.002)
            stream.put(self.ids)
            stream.put((), "stop")

        self._task = asyncio.get_running_loop().create_task(say())

    def statistics(self) -> EngineStatistics:
        return EngineStatistics(active_requests=0, waiting_requests=0, generated_tokens=0)

    def close(self) -> None:
        self.closed = True


@dataclass
class Watch:
    """An observer that keeps the records that it gets."""

    reported: list[str] = field(default_factory=list)

    def report(self, problem: str) -> None:
        self.reported.append(problem)

    def close(self) -> None:
        pass

    def leave(self) -> None:
        pass


def start(bundle: Bundle, watch: Any, engine: StartEngine = Engine, **settings: int) -> Service:
    """A service of *bundle* that reports to *watch*; the test closes it."""
    return Service(bundle, Settings(**settings), PB_UTILS, start_engine=engine, watch=lambda *_: watch)


def engine_of(service: Service) -> Engine:
    """The engine that *service* started."""
    engine = service._engine
    assert isinstance(engine, Engine)
    return engine

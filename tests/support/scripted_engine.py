"""An engine that writes what it is told, in two generations, and how a request is answered with it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from chat_answers import Read, read_answer
from chat_requests import CODEC, read
from nemotron_triton.bundle import Bundle
from nemotron_triton.engine.interface import Engine, EngineStatistics, Sampling
from nemotron_triton.engine.stream import TokenLogprob, TokenStream
from nemotron_triton.errors import EngineError
from nemotron_triton.serving.answering import Answering


def ids_of(text: str) -> list[int]:
    return CODEC.encode_text(text)


def text_of(ids: Sequence[int]) -> str:
    return b"".join(map(CODEC.bytes_of, ids)).decode(errors="replace")


@dataclass(frozen=True)
class Asked:
    """What an engine was asked for."""

    ids: list[int]
    sampling: Sampling
    stream: TokenStream


class Scripted(Engine):
    """Writes *thinking* at first, and *answer* when it is asked again; puts *size* tokens together, from a *place*."""

    max_seq_len = 2048
    max_batch_size = 1
    cannot: Mapping[str, str] = {}

    def __init__(
        self,
        thinking: str | list[int],
        answer: str = "Forty-two.",
        *,
        size: int = 1,
        place: Literal["caller", "task", "thread"] = "caller",
    ) -> None:
        self.scripts = [ids_of(thinking) if isinstance(thinking, str) else thinking, ids_of(answer)]
        self.size = size
        self.place = place
        self.asked: list[Asked] = []
        self.failure: EngineError | None = None

    def generate(self, ids: Sequence[int], sampling: Sampling, stream: TokenStream) -> None:
        script = self.scripts[len(self.asked)] if not self.is_closed(ids) else self.scripts[1]
        self.asked.append(Asked(list(ids), sampling, stream))
        stream.cached_tokens = len(self.asked) * 10

        def say() -> Iterator[None]:
            if self.failure and len(self.asked) == 2:
                stream.fail(self.failure)
            said = script[: sampling.max_tokens]
            for start in range(0, len(said), self.size):
                some = said[start : start + self.size]
                stream.put(some, None, [TokenLogprob(-1.0)] * len(some) if sampling.logprobs is not None else ())
                yield
            stream.put((), "stop" if len(script) < sampling.max_tokens else "length")

        async def say_slowly() -> None:
            for _ in say():
                await asyncio.sleep(0)

        if self.place == "caller":
            list(say())
        elif self.place == "task":
            self.task = asyncio.get_running_loop().create_task(say_slowly())
        else:
            threading.Thread(target=lambda: list(say())).start()

    def is_closed(self, ids: Sequence[int]) -> bool:
        return text_of(ids).endswith("</think>\n\n")

    def statistics(self) -> EngineStatistics:
        return EngineStatistics(active_requests=0, waiting_requests=0, generated_tokens=0)

    def close(self) -> None:
        pass


def ask(bundle: Bundle, engine: Engine, *, pause: Callable[[], float] | None = None, **values: Any) -> Read:
    return asyncio.run(read_answer(Answering(bundle, CODEC, engine), read(**values), pause=pause))

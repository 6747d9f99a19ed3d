"""What runs in one loaded model, what ended, and how full it is: what its service and its watcher both know."""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Iterator

from nemotron_triton.bundle import Memory
from nemotron_triton.engine.stream import TokenStream
from nemotron_triton.serving.call import Call
from nemotron_triton.serving.record import RequestRecord


class Requests:
    """The requests of one loaded model, for any thread; *memory* says how many tokens its KV cache holds.

    No request is taken any more when `draining` is set: the server stops, or `problem`: why the engine cannot answer.
    """

    def __init__(self, memory: Memory) -> None:
        self.draining = False
        self.problem: str | None = None
        self._calls: set[Call] = set()
        self._ended: collections.deque[RequestRecord] = collections.deque()
        # What is being generated, and how many tokens its prompt has.
        self._streams: dict[TokenStream, int] = {}
        # A model of Mamba layers alone would have no KV cache.
        self._kv_cache_tokens = max(1, memory.kv_cache_bytes // max(1, memory.kv_bytes_per_token))

    def begin(self, call: Call) -> None:
        """*call* has arrived."""
        self._calls.add(call)

    def end(self, call: Call) -> None:
        """*call* is over, and its record complete."""
        self._calls.discard(call)
        self._ended.append(call.record)

    @contextlib.contextmanager
    def answering(self, stream: TokenStream, prompt_tokens: int) -> Iterator[None]:
        """While the engine generates an answer into *stream*."""
        self._streams[stream] = prompt_tokens
        try:
            yield
        finally:
            del self._streams[stream]

    def calls(self) -> list[Call]:
        """The requests that are not over."""
        return list(self._calls)

    def ended(self) -> list[RequestRecord]:
        """The records of the requests that ended since this was last asked."""
        return [self._ended.popleft() for _ in range(len(self._ended))]

    @property
    def running(self) -> int:
        """How many requests are not over."""
        return len(self._calls)

    @property
    def generating(self) -> int:
        """How many answers the engine was asked for and has not ended."""
        return len(self._streams)

    @property
    def waiting(self) -> int:
        """How many requests wait until the engine is asked, those whose prompts are being made included."""
        return sum(call.record.started_s is None for call in self.calls())

    @property
    def size_bytes(self) -> int:
        """What the texts of all requests take."""
        return sum(call.size_bytes for call in self.calls())

    @property
    def kv_cache_used_ratio(self) -> float:
        """What the answers in progress take of the KV cache, their prompts included; blocks and reuse not counted."""
        used = sum(prompt_tokens + stream.tokens for stream, prompt_tokens in list(self._streams.items()))
        return min(1.0, used / self._kv_cache_tokens)

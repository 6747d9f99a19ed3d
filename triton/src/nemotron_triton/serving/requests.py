"""The requests of one loaded model: which are running, which ended, and whether there is room for another."""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from nemotron_client import wire
from nemotron_triton.bundle import Memory
from nemotron_triton.engine.stream import TokenStream
from nemotron_triton.errors import CallerLimitError, EngineError, OverloadedError
from nemotron_triton.serving.call import Call
from nemotron_triton.serving.record import RequestRecord

# The memory that the texts of all requests together may take, which a limit on each does not bound.
_MAX_TEXT_BYTES = 256 << 20
# Records that wait for a log that nobody reads must not fill the memory; a second has some hundred.
_MAX_ENDED = 4096


@dataclass(frozen=True, kw_only=True)
class Load:
    """How busy a server is at one moment: how many answers are generated, how many requests wait for the engine.

    `draining` is whether the server is leaving.
    """

    generating: int = 0
    waiting: int = 0
    kv_cache_used_ratio: float = 0.0
    draining: bool = False


class Requests:
    """What the service and the watcher share, on any thread: room for *slots* requests that run and *queue* that wait.

    Of one caller there may be *per_caller* together, where that is not 0.
    *memory* says how many tokens the KV cache holds. No request is admitted once `draining` is set, because the server
    stops, or `problem`, which says why the engine cannot answer. Before `draining` comes `withdrawn`: requests should
    go elsewhere, and are still admitted.
    """

    def __init__(self, memory: Memory, *, slots: int, queue: int, per_caller: int = 0) -> None:
        self._slots = slots
        self._queue = queue
        self._per_caller = per_caller
        self.withdrawn = False
        self.draining = False
        self.problem: str | None = None
        self._calls: set[Call] = set()
        self._ended: collections.deque[RequestRecord] = collections.deque()
        self._lost = 0
        # The answers being generated, each with the number of tokens in its prompt.
        self._streams: dict[TokenStream, int] = {}
        # A model of Mamba layers alone would have no KV cache.
        self._kv_cache_tokens = max(1, memory.kv_cache_bytes // max(1, memory.kv_bytes_per_token))

    def begin(self, call: Call) -> None:
        """*call* has arrived."""
        self._calls.add(call)

    def end(self, call: Call) -> None:
        """*call* is over, and its record complete."""
        self._calls.discard(call)
        if len(self._ended) < _MAX_ENDED:
            self._ended.append(call.record)
        else:
            self._lost += 1

    def forget(self, call: Call) -> None:
        """*call* asked for no answer, and is neither logged nor counted."""
        self._calls.discard(call)

    def check_room(self, caller: str) -> None:
        """Raise `EngineError` or `OverloadedError` where there is no room for *caller*'s request, which began last."""
        if self.problem:
            raise EngineError(self.problem)
        if self.draining:
            raise OverloadedError(f"{wire.STOPPING}; ask another one, or retry later")
        if len(self._calls) > self._slots + self._queue:
            raise OverloadedError(
                f"{self._slots} requests run and {self._queue} wait, which is all there is room for; retry later"
            )
        if self._per_caller and sum(call.record.caller == caller for call in self.calls()) > self._per_caller:
            raise CallerLimitError(
                f"{caller or 'all callers together'} may have {self._per_caller} requests here, running and waiting, "
                "and has them; retry when one has ended"
            )

    def check_bytes(self) -> None:
        """Raise `OverloadedError` where there is no room for the texts of the request that was read last."""
        size = sum(call.size_bytes for call in self.calls())
        if size > _MAX_TEXT_BYTES:
            raise OverloadedError(
                f"the requests here hold {size >> 20} MiB, and there is room for {_MAX_TEXT_BYTES >> 20}; retry later"
            )

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
        """The records of the requests that ended since the last call."""
        return [self._ended.popleft() for _ in range(len(self._ended))]

    def lost(self) -> int:
        """About how many records were dropped since the last call, because nobody took them."""
        lost, self._lost = self._lost, 0
        return lost

    @property
    def generating(self) -> int:
        """How many answers the engine was asked for and has not ended."""
        return len(self._streams)

    @property
    def load(self) -> Load:
        """How busy the server is now; requests also wait while their prompts are rendered.

        The KV cache is counted from the answers in progress and their prompts, without blocks and reuse.
        """
        used = sum(prompt_tokens + stream.tokens for stream, prompt_tokens in list(self._streams.items()))
        return Load(
            generating=self.generating,
            waiting=sum(call.record.started_s is None for call in self.calls()),
            kv_cache_used_ratio=min(1.0, used / self._kv_cache_tokens),
            draining=self.withdrawn or self.draining,
        )

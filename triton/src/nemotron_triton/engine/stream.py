"""The tokens of one answer on their way from an engine to its reader.

The engine puts, from any thread; the reader takes, on one event loop. What waits is taken together, and a reader that
pauses between two takes is woken by nothing but the answer's end: so tokens are coalesced without work for each.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from nemotron_triton.errors import EngineError

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class TokenLogprob:
    """The log probability (natural, of the model's distribution) of a token; `top` has ids and those of the likeliest.

    `logprob` is None where an engine cannot tell that of a single token.
    """

    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class TokenChunk:
    """The next tokens of one answer, and why it ended if it did; an end token is not among `ids`.

    `logprobs` has one entry for each id where they were asked for, and is empty otherwise.
    """

    ids: tuple[int, ...]
    finish_reason: FinishReason | None = None
    logprobs: tuple[TokenLogprob, ...] = ()


def _unpaced() -> float:
    return 0.0


class TokenStream:
    """One answer. `async for` gives its chunks; the last one has a finish reason. Raises what the engine failed with."""

    def __init__(self, request_id: str, pace: Callable[[], float] = _unpaced) -> None:
        """Made on the event loop that reads it. *pace* gives the seconds to gather tokens after each chunk."""
        self.request_id = request_id
        self.cancelled = False
        self._pace = pace
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._ids: list[int] = []
        self._logprobs: list[TokenLogprob] = []
        self._finish_reason: FinishReason | None = None
        self._error: EngineError | None = None
        self._begun = False
        self._taken = False
        self._on_cancel: Callable[[], None] | None = None
        # What the reader waits in: None while it does not, or is on its way.
        self._waiter: asyncio.Future[None] | None = None
        self._gathering = False

    def put(
        self,
        ids: tuple[int, ...] | list[int],
        finish_reason: FinishReason | None = None,
        logprobs: tuple[TokenLogprob, ...] = (),
    ) -> None:
        """Add tokens; after a finish reason, an error or a cancellation nothing more is taken."""
        with self._lock:
            if self._ended:
                return
            self._ids += ids
            self._logprobs += logprobs
            self._finish_reason = finish_reason
            if finish_reason is None and (self._gathering or not ids):
                return
            self._wake()

    def fail(self, error: EngineError) -> None:
        """End the answer with *error*; tokens that were put before are still read."""
        with self._lock:
            if not self._ended:
                self._error = error
                self._wake()

    def when_cancelled(self, callback: Callable[[], None]) -> None:
        """Have *callback* called, once and on the event loop, when the reader wants no more."""
        self._on_cancel = callback
        if self.cancelled:
            callback()

    def cancel(self) -> None:
        """Want no more, on the event loop: the reader gets a chunk `cancelled` at once, whatever the engine does."""
        with self._lock:
            if self._ended:
                return
            self.cancelled = True
            self._finish_reason = "cancelled"
            self._wake()
        if self._on_cancel:
            self._on_cancel()

    def __aiter__(self) -> TokenStream:
        return self

    async def __anext__(self) -> TokenChunk:
        """Everything that has come, at least one token or the end."""
        if self._taken:
            raise StopAsyncIteration
        if self._begun and (pause_s := self._pace()) > 0:
            await self._wait(pause_s)
        await self._wait(None)
        self._begun = True
        with self._lock:
            if self._error and not self._ids:
                self._taken = True
                raise self._error
            # An error is raised by the next take.
            chunk = TokenChunk(tuple(self._ids), self._finish_reason, tuple(self._logprobs))
            self._ids.clear()
            self._logprobs.clear()
            self._taken = self._finish_reason is not None
        return chunk

    @property
    def _ended(self) -> bool:
        return self._finish_reason is not None or self._error is not None

    async def _wait(self, pause_s: float | None) -> None:
        """Until the answer ended, and with a *pause_s* until it is over, without one until there are tokens."""
        with self._lock:
            if self._ended or (pause_s is None and self._ids):
                return
            waiter = self._waiter = self._loop.create_future()
            self._gathering = pause_s is not None
        timer = None if pause_s is None else self._loop.call_later(pause_s, _set, waiter)
        try:
            await waiter
        finally:
            if timer:
                timer.cancel()
            with self._lock:
                self._waiter = None
                self._gathering = False

    def _wake(self) -> None:
        """Let the reader look; the lock is held."""
        waiter, self._waiter = self._waiter, None
        if waiter is None:
            return
        try:
            self._loop.call_soon_threadsafe(_set, waiter)
        except RuntimeError:
            # The loop closes first only when the server shuts down; then nobody waits.
            return


def _set(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)

"""The token stream between an engine, which puts from any thread, and its reader on one event loop.

All waiting tokens are read together, and while a reader pauses between two reads only the answer's end wakes it: tokens
are gathered without work for each of them.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from nemotron_triton.errors import ServingError

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class TokenLogprob:
    """A token's log probability (natural, of the model's distribution), and `top`, the likeliest ids with theirs.

    `logprob` is None where an engine does not report that of the token itself.
    """

    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class TokenChunk:
    """The next tokens of one answer, without its end token, and why it ended if it did.

    `logprobs` has one entry for each id if they were requested, and is empty otherwise.
    """

    ids: tuple[int, ...]
    finish_reason: FinishReason | None = None
    logprobs: tuple[TokenLogprob, ...] = ()


class TokenStream:
    """One answer. `async for` gives its chunks, of which the last has a finish reason; an engine's error is raised.

    Create it on the event loop that reads it. *pace* returns the seconds to gather tokens after each chunk; without it
    every token is a chunk of its own. `first_token_s` and `last_token_s` are when tokens were read, on the clock
    `time.monotonic`, `tokens` is how many were. The engine sets `cached_tokens` before the end: how many tokens of the
    prompt were in its KV cache already; None where it does not tell. `stop_token_id` is the end token, if it told it.
    `closer_forced` is set before the tokens that end the model's thinking in its place.
    """

    def __init__(self, pace: Callable[[], float] | None = None) -> None:
        self.cancelled = False
        self.first_token_s: float | None = None
        self.last_token_s: float | None = None
        self.tokens = 0
        self.cached_tokens: int | None = None
        self.stop_token_id: int | None = None
        self.closer_forced = False
        self._pace = pace
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._lock = threading.Lock()
        self._ids: collections.deque[int] = collections.deque()
        self._logprobs: collections.deque[TokenLogprob] = collections.deque()
        self._finish_reason: FinishReason | None = None
        self._error: ServingError | None = None
        self._begun = False
        self._finished = False
        self._on_cancel: Callable[[], None] | None = None
        # What the reader awaits; None while it does not wait.
        self._waiter: asyncio.Future[None] | None = None
        self._gathering = False

    def put(
        self,
        ids: Sequence[int],
        finish_reason: FinishReason | None = None,
        logprobs: Sequence[TokenLogprob] = (),
        stop_token_id: int | None = None,
    ) -> None:
        """Add tokens; they are dropped after a finish reason, an error or a cancellation."""
        with self._lock:
            if self._ended or self.cancelled:
                return
            self._ids += ids
            self._logprobs += logprobs
            self._finish_reason = finish_reason
            self.stop_token_id = stop_token_id
            if finish_reason is None and (self._gathering or not ids):
                return
            self._wake()

    def fail(self, error: ServingError) -> None:
        """End the answer with *error*, raised when the tokens before it have been read."""
        with self._lock:
            if not self._ended:
                self._error = error
                self._wake()

    def when_cancelled(self, callback: Callable[[], None]) -> None:
        """Have *callback* called, once and on the event loop, when the answer is cancelled; call this there too."""
        with self._lock:
            self._on_cancel = callback
            cancelled = self.cancelled
        if cancelled:
            callback()

    def cancel(self) -> None:
        """Called by who leaves before the end, on any thread; repeated calls do nothing."""
        with self._lock:
            if self._ended or self.cancelled:
                return
            self.cancelled = True
            callback = self._on_cancel
        if callback:
            self.call_on_loop(callback)

    def call_on_loop(self, callback: Callable[[], None]) -> None:
        """Call *callback* on the event loop: now where this is its thread, else soon."""
        if threading.get_ident() == self._loop_thread:
            callback()
            return
        # A loop that is closed has nothing left to do.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback)

    def __aiter__(self) -> TokenStream:
        return self

    async def __anext__(self) -> TokenChunk:
        """The next token, or with a pace all that have arrived; the last chunk may have none."""
        if self._finished:
            raise StopAsyncIteration
        if self._begun:
            if self._pace and (pause_s := self._pace()) > 0:
                await self._wait(pause_s)
            else:
                # An engine that is faster than its reader must not block the event loop.
                await asyncio.sleep(0)
        await self._wait(None)
        self._begun = True
        with self._lock:
            # Tokens before an error are read first.
            if self._error and not self._ids:
                self._finished = True
                raise self._error
            count = len(self._ids) if self._pace else min(1, len(self._ids))
            ids = tuple([self._ids.popleft() for _ in range(count)])
            logprobs = tuple([self._logprobs.popleft() for _ in range(min(count, len(self._logprobs)))])
            self._finished = self._finish_reason is not None and not self._ids
        self.tokens += len(ids)
        if ids:
            self.last_token_s = time.monotonic()
            self.first_token_s = self.first_token_s or self.last_token_s
        return TokenChunk(ids, self._finish_reason if self._finished else None, logprobs)

    @property
    def _ended(self) -> bool:
        return self._finish_reason is not None or self._error is not None

    async def _wait(self, pause_s: float | None) -> None:
        """Wait until the answer ends, or for *pause_s*; with None, until it ends or there are tokens."""
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
        """Wake the reader; the lock is held."""
        waiter, self._waiter = self._waiter, None
        if waiter is None:
            return
        try:
            # To wake the loop from another thread is a system call.
            on_loop = threading.get_ident() == self._loop_thread
            (self._loop.call_soon if on_loop else self._loop.call_soon_threadsafe)(_set, waiter)
        except RuntimeError:
            return  # The loop is closed: the server shuts down, and nothing reads any more.


def _set(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)

"""The attempts of one request: where each goes, how long it may take, and whether there is another one. No I/O here."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nemotron_client.endpoints import Attempt, Endpoints
from nemotron_client.errors import ClientError, DeadlineExceeded, ServerUnavailable

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 8.0


class Attempts:
    """Retries only what is safe, `ServerUnavailable`, which is never raised after the first token.

    Pauses are drawn between nothing and a bound that doubles (full jitter), so that clients that failed together do
    not come back together. All attempts and pauses together stay within the request's time, which runs from now.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        *,
        timeout_s: float,
        max_retries: int,
        request_id: str = "",
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.begin_s = clock()
        self.timeout_s = timeout_s
        self.request_id = request_id
        self.retries = 0
        self._endpoints = endpoints
        self._max_retries = max_retries
        self._failed: list[str] = []
        self._clock = clock
        self._draw = draw

    @contextmanager
    def one(self) -> Iterator[Attempt]:
        """The next attempt; a server that proves unavailable within the block is ejected."""
        with self._endpoints.one(self._failed) as attempt:
            try:
                yield attempt
            except ServerUnavailable as error:
                self._endpoints.eject(attempt.endpoint, stopping=error.stopping)
                self._failed.append(attempt.url)
                raise

    def remaining_s(self) -> float:
        """The time the request still has; `DeadlineExceeded` when there is none."""
        left_s = self.begin_s + self.timeout_s - self._clock()
        if left_s <= 0:
            raise self._described(DeadlineExceeded(f"no server answered within {self.timeout_s:g} s"))
        return left_s

    def pause_s(self, error: ClientError) -> float | None:
        """How long to wait before the next attempt; None where there is to be none, and *error* is the request's."""
        if isinstance(error, ServerUnavailable) and self.retries < self._max_retries:
            pause_s = self._draw(0, min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**self.retries))
            if pause_s < self.begin_s + self.timeout_s - self._clock():
                self.retries += 1
                return pause_s
        self._described(error)
        return None

    def _described(self, error: ClientError) -> ClientError:
        """*error* with the request's id and retries."""
        error.request_id, error.retries = self.request_id, self.retries
        return error

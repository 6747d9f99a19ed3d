"""Which servers a client knows, which of them can answer, and which one gets the next request. No I/O here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from nemotron_client.errors import ServerUnavailable

Balance: TypeAlias = Literal["least_loaded", "round_robin"]
# A server of an older version says that it is ready until it is gone.
STOPPING_S = 30.0


@dataclass(eq=False)
class Endpoint:
    """One server, and the `attempts` that run on it; one that is ejected gets none while others can.

    `stopping_until_s` is when a server that said that it is stopping is believed again where it says that it is ready;
    `silent_looks` counts how often it was looked at in a row without any answer.
    """

    url: str
    ejected: bool = False
    stopping_until_s: float | None = None
    silent_looks: int = 0
    attempts: set[Attempt] = field(default_factory=set)


class Attempt:
    """One request on one server, which can be broken off from another thread when the server went silent.

    `heard` is set by each response, and cleared by those who look at the server.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.url = endpoint.url
        self.heard = False
        self.broken_off = False
        self._call: Any = None

    def begin(self, call: Any) -> Any:
        """Take gRPC's *call*, and cancel it at once if the attempt was broken off before."""
        self._call = call
        if self.broken_off:
            call.cancel()
        return call

    def break_off(self) -> None:
        """Cancel the call; whoever reads it gets an error, and finds `broken_off` set."""
        self.broken_off = True
        if self._call is not None:
            self._call.cancel()


class Endpoints:
    """The servers of one client. Safe to share between threads.

    All of *urls* count as able to answer, until a request or a look at them says otherwise; *name* is the DNS name
    that stands for them, where there is one.
    """

    def __init__(
        self,
        urls: Sequence[str],
        balance: Balance,
        name: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._all = [Endpoint(url) for url in urls]
        self._gone: list[Endpoint] = []
        self._balance = balance
        self._turn = 0
        self._clock = clock
        self._lock = threading.Lock()

    @property
    def urls(self) -> tuple[str, ...]:
        """Every server, ejected ones included."""
        return tuple(endpoint.url for endpoint in self._all)

    @property
    def healthy_urls(self) -> tuple[str, ...]:
        """The servers that are not ejected."""
        return tuple(endpoint.url for endpoint in self._all if not endpoint.ejected)

    @property
    def watched_urls(self) -> tuple[str, ...]:
        """Every server, and those that the name no longer stands for but that still answer."""
        return (*self.urls, *(endpoint.url for endpoint in self._gone if endpoint.attempts))

    @contextmanager
    def one(self, avoid: Collection[str] = ()) -> Iterator[Attempt]:
        """An attempt on the server that is to get the next request, which runs there within the block.

        One that failed the request before, in *avoid*, is taken only where no other can answer, and an ejected one
        only where all are ejected: to ask it is then the one way to find out. `ServerUnavailable` when there is none.
        """
        with self._lock:
            endpoint = self._chosen(avoid)
            attempt = Attempt(endpoint)
            endpoint.attempts.add(attempt)
        try:
            yield attempt
        finally:
            with self._lock:
                endpoint.attempts.discard(attempt)

    def eject(self, endpoint: Endpoint, *, stopping: bool) -> None:
        """*endpoint* could not take a request, and gets none until a look finds it ready.

        Where it said that it is *stopping*, it must have been seen not ready before, or `STOPPING_S` have passed.
        """
        with self._lock:
            endpoint.ejected = True
            if stopping:
                endpoint.stopping_until_s = self._clock() + STOPPING_S

    def look_at(self, url: str) -> None:
        """A look at *url* begins."""
        with self._lock:
            for endpoint in self._known(url):
                if not endpoint.silent_looks:
                    for attempt in endpoint.attempts:
                        attempt.heard = False

    def looked_at(self, url: str, ready: bool | None, *, patience: int) -> bool:
        """Take what *url* said: whether it is *ready*, or nothing (None); whether it is lost.

        It is lost when it was silent for as many looks in a row as *patience* says, and no answer of it went on since
        the first of these began. One that says that it is not ready goes on with what it has.
        """
        lost = False
        with self._lock:
            for endpoint in self._known(url):
                if ready is None:
                    endpoint.ejected = True
                    endpoint.silent_looks += 1
                    if endpoint.silent_looks >= patience:
                        endpoint.silent_looks = 0
                        lost = not any(attempt.heard for attempt in endpoint.attempts)
                    continue
                endpoint.silent_looks = 0
                if not ready or endpoint.stopping_until_s is None or self._clock() >= endpoint.stopping_until_s:
                    endpoint.ejected = not ready
                    endpoint.stopping_until_s = None
        return lost

    def running(self, url: str) -> list[Attempt]:
        """What runs on *url*."""
        with self._lock:
            return [attempt for endpoint in self._known(url) for attempt in endpoint.attempts]

    def replace(self, urls: Sequence[str]) -> None:
        """The name now stands for *urls*; those that stay, or come back while they still answer, keep their state."""
        with self._lock:
            known = {endpoint.url: endpoint for endpoint in (*self._all, *self._gone)}
            self._all = [known.pop(url) if url in known else Endpoint(url) for url in dict.fromkeys(urls)]
            self._gone = list(known.values())

    def idle(self) -> tuple[str, ...]:
        """The servers that the name no longer stands for, once their last answer has ended; each is returned once."""
        with self._lock:
            idle = tuple(endpoint.url for endpoint in self._gone if not endpoint.attempts)
            self._gone = [endpoint for endpoint in self._gone if endpoint.attempts]
            return idle

    def after_fork(self) -> None:
        """This process is a forked child: nothing runs in it, and no thread holds the lock."""
        self._lock = threading.Lock()
        for endpoint in self._all:
            endpoint.attempts.clear()
        self._gone = []

    def _known(self, url: str) -> list[Endpoint]:
        return [endpoint for endpoint in (*self._all, *self._gone) if endpoint.url == url]

    def _chosen(self, avoid: Collection[str]) -> Endpoint:
        if not self._all:
            raise ServerUnavailable(f"{self._name} has no address")
        healthy = [endpoint for endpoint in self._all if not endpoint.ejected]
        choices = [endpoint for endpoint in healthy if endpoint.url not in avoid] or healthy or self._all
        # Every server gets its turn, also among those that are equally loaded.
        self._turn += 1
        first = self._turn % len(choices)
        if self._balance == "round_robin":
            return choices[first]
        return min(choices[first:] + choices[:first], key=lambda endpoint: len(endpoint.attempts))

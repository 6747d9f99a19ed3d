"""Which servers a client knows, which of them can answer, and which one gets the next request. No I/O here."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias

from nemotron_client.errors import ServerUnavailable

Balance: TypeAlias = Literal["least_loaded", "round_robin"]


@dataclass(eq=False)
class Endpoint:
    """One server: `active` requests run on it; one that is ejected gets none while others can."""

    url: str
    active: int = 0
    ejected: bool = False


class Endpoints:
    """The servers of one client. Safe to share between threads.

    All of *urls* count as able to answer, until a request or a health check says otherwise; *name* is the DNS name
    that stands for them, where there is one.
    """

    def __init__(self, urls: Sequence[str], balance: Balance, name: str | None = None) -> None:
        self._name = name
        self._all = [Endpoint(url) for url in urls]
        self._gone: list[Endpoint] = []
        self._balance = balance
        self._turn = 0
        self._lock = threading.Lock()

    @property
    def urls(self) -> tuple[str, ...]:
        """Every server, ejected ones included."""
        return tuple(endpoint.url for endpoint in self._all)

    @property
    def healthy_urls(self) -> tuple[str, ...]:
        """The servers that are not ejected."""
        return tuple(endpoint.url for endpoint in self._all if not endpoint.ejected)

    @contextmanager
    def one(self, avoid: Collection[str] = ()) -> Iterator[Endpoint]:
        """The server for the next request, counted as active within the block.

        One that failed the request before, in *avoid*, is taken only where no other can answer, and an ejected one
        only where all are ejected: to ask it is then the one way to find out. `ServerUnavailable` when there is none.
        """
        with self._lock:
            endpoint = self._chosen(avoid)
            endpoint.active += 1
        try:
            yield endpoint
        finally:
            with self._lock:
                endpoint.active -= 1

    def mark(self, url: str, *, ready: bool) -> None:
        """*url* can answer, or cannot and is ejected."""
        with self._lock:
            for endpoint in self._all:
                if endpoint.url == url:
                    endpoint.ejected = not ready

    def replace(self, urls: Sequence[str]) -> None:
        """The name now stands for *urls*; those that stay, or come back while they still answer, keep their state."""
        with self._lock:
            known = {endpoint.url: endpoint for endpoint in (*self._all, *self._gone)}
            self._all = [known.pop(url) if url in known else Endpoint(url) for url in dict.fromkeys(urls)]
            self._gone = list(known.values())

    def idle(self) -> tuple[str, ...]:
        """The servers that the name no longer stands for, once their last answer has ended; each is returned once."""
        with self._lock:
            idle = tuple(endpoint.url for endpoint in self._gone if not endpoint.active)
            self._gone = [endpoint for endpoint in self._gone if endpoint.active]
            return idle

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
        return min(choices[first:] + choices[:first], key=lambda endpoint: endpoint.active)

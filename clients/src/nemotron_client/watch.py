"""Watching the servers of a client: when to resolve their DNS name anew, and what their answers change. No I/O here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from nemotron_client.connection import Connections
from nemotron_client.endpoints import Endpoints
from nemotron_client.settings import split_address

# How often servers are asked whether they are ready, and how long they have to say so.
CHECK_INTERVAL_S, CHECK_TIMEOUT_S = 2.0, 1.0
_RESOLVE_INTERVAL_S = 30.0


class Watch:
    """The servers to look at: *endpoints*, reached by *connections*, behind a DNS *name* where there is one.

    It refers to no `Servers`, so that what looks at them does not keep alive what ends it.
    """

    def __init__(self, endpoints: Endpoints, connections: Connections, name: str | None) -> None:
        self.endpoints = endpoints
        self.connections = connections
        self._address = split_address(name) if name else None
        self._resolved_s: float | None = None

    def due(self) -> tuple[str, int] | None:
        """Host and port to resolve now: at first, from time to time, and while no server can answer."""
        if (
            self._resolved_s is None
            or time.monotonic() - self._resolved_s >= _RESOLVE_INTERVAL_S
            or not self.endpoints.healthy_urls
        ):
            return self._address
        return None

    def resolved(self, infos: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Take what `getaddrinfo` returned; the channels to close. Nothing changes where it found nothing."""
        self._resolved_s = time.monotonic()
        if infos:
            self.endpoints.replace([_url(info[4]) for info in infos])
        return [channel for url in self.endpoints.idle() if (channel := self.connections.take(url))]


def _url(address: tuple[Any, ...]) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

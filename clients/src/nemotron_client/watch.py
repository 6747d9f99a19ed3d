"""Looking after the servers of a client: how often, when their DNS name is resolved anew, what is found. No I/O here.

A look asks a server whether it is ready, which one that is about to stop is not, although before tritonserver 26.04
its model is. It goes over the connection that carries the requests, so it also keeps that from being idle, and finds a
peer that vanished; HTTP/2's pings would do the same, but servers with gRPC's
defaults hang up on a client that sends one more often than every 300 s.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nemotron_client.connection import Connections
from nemotron_client.endpoints import Endpoints
from nemotron_client.settings import ClientSettings, split_address

_RESOLVE_INTERVAL_S = 30.0


@dataclass(frozen=True)
class Rhythm:
    """A look each `interval_s`, which may take `timeout_s`; a server is lost after `patience` of them in silence."""

    interval_s: float
    timeout_s: float
    patience: int


class Watch:
    """The servers to look at, with their connections.

    It refers to no `Servers`, so that what looks at them does not keep alive what ends it.
    """

    def __init__(self, endpoints: Endpoints, connections: Connections, settings: ClientSettings) -> None:
        self.endpoints = endpoints
        self.connections = connections
        # Among several a request goes elsewhere, soon. Where there is one, the connection is all that can be renewed.
        self.several = settings.several
        self.rhythm = (
            Rhythm(min(2.0, settings.keepalive_s), timeout_s=1.0, patience=2)
            if settings.several
            else Rhythm(settings.keepalive_s, timeout_s=min(20.0, max(1.0, settings.keepalive_s)), patience=1)
        )
        self._address = split_address(settings.name) if settings.name else None
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

    def looked(self, url: str, ready: bool | None) -> list[Any]:
        """Take what a look at *url* found, None for nothing within its time; the channels to close.

        What ran on a server that is lost has failed then: a request without a token goes elsewhere, or there over a
        new connection, and an answer that was begun is broken.
        """
        if not self.endpoints.looked_at(url, ready, patience=self.rhythm.patience):
            return []
        # First its connection: then none that is not among those that run begins on it.
        channel = self.connections.take(url)
        for attempt in self.endpoints.running(url):
            attempt.break_off()
        return [channel] if channel else []


def ready_despite(error: Any) -> bool | None:
    """What a `grpc.RpcError` says of a server that was looked at: that it is not ready, or nothing."""
    return None if error.code().name == "DEADLINE_EXCEEDED" else False


def _url(address: tuple[Any, ...]) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

"""The servers behind a DNS name, and when it is time to ask for them again. No I/O here."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from nemotron_client.endpoints import Endpoints
from nemotron_client.settings import split_address

# How often servers are asked whether they are ready, and how long they have to say so.
CHECK_INTERVAL_S, CHECK_TIMEOUT_S = 2.0, 1.0
_RESOLVE_INTERVAL_S = 30.0


class Addresses:
    """What a name stood for when it was last resolved."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        """*name* is `host:port`."""
        self.wanted = split_address(name)
        self._clock = clock
        self._resolved_s: float | None = None

    def due(self, endpoints: Endpoints) -> bool:
        """Whether to resolve the name now: at first, from time to time, and while no server can answer."""
        return (
            self._resolved_s is None
            or self._clock() - self._resolved_s >= _RESOLVE_INTERVAL_S
            or not endpoints.healthy_urls
        )

    def found(self, infos: Sequence[tuple[Any, ...]], endpoints: Endpoints) -> None:
        """Take what `getaddrinfo` returned; nothing changes where it found nothing."""
        self._resolved_s = self._clock()
        if infos:
            endpoints.replace([_url(info[4]) for info in infos])


def _url(address: tuple[Any, ...]) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

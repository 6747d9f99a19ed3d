"""HTTP/1.1 connections, whose headers must come in time."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class Connection(HttpToolsProtocol):
    """uvicorn's, which waits for the headers of a first request for ever, and so lets a silent caller hold a socket."""

    header_timeout_s = 10.0

    def connection_made(self, transport: Any) -> None:
        """Give the headers their time."""
        super().connection_made(transport)
        self._waiting: asyncio.TimerHandle | None = self.loop.call_later(self.header_timeout_s, transport.close)

    def on_headers_complete(self) -> None:
        """They have come."""
        if self._waiting:
            self._waiting.cancel()
            self._waiting = None
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        if self._waiting:
            self._waiting.cancel()
            self._waiting = None
        super().connection_lost(exc)


def limited(header_timeout_s: float) -> type[Connection]:
    """Connections whose headers must come within *header_timeout_s*."""
    return type("LimitedConnection", (Connection,), {"header_timeout_s": header_timeout_s})

"""A response of server-sent events, which begins with the first of them, or with a comment where that takes long."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING

from nemotron_gateway.exchange import Send

if TYPE_CHECKING:
    from typing_extensions import Self

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # nginx holds events back without it.
    (b"x-accel-buffering", b"no"),
]
_COMMENT = b": keep-alive\n\n"


class EventStream:
    """Use with `with`. When nothing was written for *keep_alive_s*, a comment is: proxies end what is silent.

    `begun` is set from when the status is out. Writing waits where the caller reads slowly, so that little is held.
    """

    def __init__(self, send: Send, keep_alive_s: float) -> None:
        self.begun = False
        self._send = send
        self._keep_alive_s = keep_alive_s
        self._loop = asyncio.get_running_loop()
        self._last_s = self._loop.time()
        # Of a write that has not ended: comments are not to pile up behind it.
        self._writing = False
        self._commenting: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(keep_alive_s, self._look)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._commenting:
            self._commenting.cancel()

    async def write(self, data: bytes) -> None:
        """Send *data*, whole events."""
        self._last_s = self._loop.time()
        self._writing = True
        try:
            await self._begin()
            await self._send({"type": "http.response.body", "body": data, "more_body": True})
        finally:
            self._writing = False

    async def end(self, data: bytes) -> None:
        """Send *data* and end the response."""
        self._timer.cancel()
        await self._begin()
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    async def _begin(self) -> None:
        if not self.begun:
            self.begun = True
            await self._send({"type": "http.response.start", "status": 200, "headers": _HEADERS})

    def _look(self) -> None:
        silent_s = self._loop.time() - self._last_s
        if silent_s >= self._keep_alive_s and not self._writing:
            silent_s = 0.0
            self._commenting = self._loop.create_task(self.write(_COMMENT))
        self._timer = self._loop.call_later(max(self._keep_alive_s - silent_s, 0.01), self._look)

"""What all routes that generate share: the client, the limits, and how the server's responses become one of HTTP."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from nemotron_client import AsyncClient, ClientError, Event
from nemotron_gateway.client_errors import api_error
from nemotron_gateway.errors import invalid
from nemotron_gateway.event_stream import EventStream
from nemotron_gateway.exchange import Receive, Scope, Send, read_body, send_json, while_connected
from nemotron_gateway.metrics import Metrics
from nemotron_gateway.served_model import ServedModel
from nemotron_gateway.settings import Settings
from nemotron_gateway.visit import Visit

_log = logging.getLogger(__name__)
# Names of unknown fields that are remembered, so that each is logged once; callers choose them.
_MAX_NAMES = 256


class Chunks(Protocol):
    """Makes the events of a stream: of what a response of the server brought, and of the end."""

    def of(self, events: Sequence[Event]) -> bytes:
        """The chunks for the *events* of one response."""

    def end(self) -> bytes:
        """What follows the last answer."""


class Whole(Protocol):
    """Puts a whole answer together."""

    def add(self, events: Sequence[Event]) -> None:
        """Take the *events* of one response."""

    def body(self) -> dict[str, Any]:
        """The body of the response, when all events have come."""


@dataclass
class Answering:
    """One for the whole process."""

    client: AsyncClient
    settings: Settings
    served: ServedModel
    metrics: Metrics
    _logged: set[str] = field(default_factory=set)

    async def body(self, scope: Scope, receive: Receive) -> bytes:
        """The body of a request, within the limits."""
        limits = self.settings
        return await read_body(scope, receive, max_bytes=limits.max_body_bytes, timeout_s=limits.body_timeout_s)

    def connected(self, receive: Receive) -> contextlib.AbstractAsyncContextManager[None]:
        """A block that is cancelled when the caller leaves."""
        return while_connected(receive)

    def check_fields(self, unknown: frozenset[str]) -> None:
        """Count the *unknown* fields of a request and log them once; `ApiError` where the gateway is strict."""
        for name in sorted(unknown):
            if self.settings.strict:
                raise invalid(f"{name:.100} is no field that this gateway knows", name[:100], "unknown_parameter")
            self.metrics.unknown_fields.inc()
            if name not in self._logged and len(self._logged) < _MAX_NAMES:
                self._logged.add(name)
                _log.warning("requests have the field %r, which is ignored", name[:100])

    async def stream(
        self,
        send: Send,
        responses: AsyncGenerator[Sequence[Event], None],
        chunks: Chunks,
        fields: Mapping[str, str],
        visit: Visit,
    ) -> None:
        """Send *responses* as server-sent events; what fails before the first is raised, later it is an event."""
        begin_s: float | None = time.monotonic()
        with EventStream(send, self.settings.keep_alive_s) as out:
            try:
                async with contextlib.aclosing(responses):
                    async for events in responses:
                        if begin_s is not None:
                            self.metrics.first_event_seconds.observe(time.monotonic() - begin_s)
                            begin_s = None
                        await out.write(chunks.of(events))
            except ClientError as error:
                if not out.begun:
                    raise
                body = msgspec.json.encode(api_error(error, fields).body(visit.request_id))
                # No [DONE]: the answer is not whole.
                await out.end(b"data: " + body + b"\n\n")
            else:
                await out.end(chunks.end())

    async def whole(self, send: Send, responses: AsyncGenerator[Sequence[Event], None], answer: Whole) -> None:
        """Send what *answer* makes of *responses*."""
        async with contextlib.aclosing(responses):
            async for events in responses:
                answer.add(events)
        await send_json(send, 200, answer.body())

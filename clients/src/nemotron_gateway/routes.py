"""The routes that take no body: models, health and metrics."""

from __future__ import annotations

import time
from collections.abc import Callable

from nemotron_client import ClientError, Health
from nemotron_gateway.answering import Answering
from nemotron_gateway.client_errors import api_error
from nemotron_gateway.errors import ApiError
from nemotron_gateway.exchange import Receive, Scope, Send, send_bytes, send_json
from nemotron_gateway.served_model import Served

_HEALTH_TIMEOUT_S = 2.0
_TEXT = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")


class Models:
    """`GET /v1/models` and `/v1/models/{name}`."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self._created = int(time.time())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Answer one request."""
        entries = (await self._served()).entries(self._created)
        if (name := scope["path_params"].get("name")) is None:
            await send_json(send, 200, {"object": "list", "data": entries})
            return
        entry = next((entry for entry in entries if entry["id"].lower() == name.lower()), None)
        if entry is None:
            raise ApiError(404, f"no model is named {name!r:.200}", code="model_not_found", param="model")
        await send_json(send, 200, entry)

    async def _served(self) -> Served:
        try:
            return await self._answering.served.served()
        except ClientError as error:
            raise api_error(error, {}) from error


class Live:
    """`GET /health/live`: whether this process answers."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Answer one request."""
        await send_json(send, 200, {"live": True})


class Ready:
    """`GET /health/ready`: whether a request would be answered."""

    def __init__(self, answering: Answering, is_draining: Callable[[], bool]) -> None:
        self._answering = answering
        self._is_draining = is_draining
        self._health: Health | None = None
        self._until_s = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Answer one request."""
        if self._is_draining():
            await send_json(send, 503, {"ready": False, "problem": "the gateway is stopping"})
            return
        if self._health is None or time.monotonic() >= self._until_s:
            # Everybody may ask without a key, so the servers are asked once a second and not for each.
            self._health = await self._answering.client.health(_HEALTH_TIMEOUT_S)
            self._until_s = time.monotonic() + 1.0
        ready = self._health.ready
        problem = "" if ready else "no server is ready"
        await send_json(send, 200 if ready else 503, {"ready": ready, "problem": problem})


class Scrape:
    """`GET /metrics`."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Answer one request."""
        await send_bytes(send, 200, self._answering.metrics.text(), [_TEXT])

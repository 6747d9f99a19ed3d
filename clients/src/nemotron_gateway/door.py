"""In front of every route: which host and which web pages may ask, whose key it is, and what an error looks like."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from nemotron_gateway.errors import ApiError
from nemotron_gateway.exchange import CallerLeft, Headers, Message, Receive, Scope, Send, header, send_bytes, send_json
from nemotron_gateway.keys import Keys
from nemotron_gateway.metrics import Metrics
from nemotron_gateway.settings import Settings
from nemotron_gateway.visit import Visit

_log = logging.getLogger(__name__)
# What probes and web pages may ask without a key.
OPEN_PATHS = frozenset({"/health/live", "/health/ready"})
_ALLOWED = (b"access-control-allow-headers", b"authorization, content-type, traceparent, x-api-key, x-request-id")
_METHODS = (b"access-control-allow-methods", b"GET, POST, OPTIONS")
_EXPOSED = (b"access-control-expose-headers", b"retry-after, x-request-id")
_DENIED = {"www-authenticate": "Bearer"}
# nginx's number for a caller who left.
_LEFT = 499


class Door:
    """An ASGI application around *app*, whose routes are at *paths*. `active` is the number of requests within.

    With `draining` set it lets nobody in but to those paths that are open.
    """

    def __init__(self, app: ASGIApp, paths: Iterable[str], settings: Settings, keys: Keys, metrics: Metrics) -> None:
        self.app = app
        self._paths = frozenset(paths)
        self._settings = settings
        self._keys = keys
        self._metrics = metrics
        self._hosts = settings.hosts
        self._origins = frozenset(settings.cors_origins)
        self.active = 0
        self.draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        visit = Visit.of(scope)
        # For Starlette: where there is an application, it raises what it would answer itself.
        scope["app"] = self
        scope["state"] = {"visit": visit}
        headers: Headers = [(b"x-request-id", visit.request_id.encode()), *self._cors(scope)]
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        self.active += 1
        self._metrics.active.inc()
        try:
            await self._answer(scope, receive, answer, visit)
        except CallerLeft:
            status = _LEFT
        except ApiError as error:
            more = [(name.encode(), value.encode()) for name, value in error.headers.items()]
            await send_json(answer, error.status, error.body(visit.request_id), more)
        except Exception:
            _log.exception("request %s failed", visit.request_id)
            if status:
                # The response was begun: only its end without an end says that something is wrong.
                raise
            failed = ApiError(500, "the gateway failed; its log says why", headers={"x-should-retry": "false"})
            await send_json(answer, 500, failed.body(visit.request_id))
        finally:
            self.active -= 1
            self._metrics.active.dec()
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._metrics.requests.labels(path, status or _LEFT).inc()

    async def _answer(self, scope: Scope, receive: Receive, send: Send, visit: Visit) -> None:
        self._check_host(scope)
        if scope["method"] == "OPTIONS":
            await send_bytes(send, 204, b"", [])
            return
        if scope["path"] not in OPEN_PATHS:
            self._admit(scope, visit)
        try:
            await self.app(scope, receive, send)
        except HTTPException as error:
            raise _of_starlette(error, scope) from error

    def _check_host(self, scope: Scope) -> None:
        if self._hosts is None:
            return
        host = header(scope, b"host").lower()
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if name not in self._hosts:
            raise ApiError(
                403, f"this gateway is not called {name!r:.100}; --allowed-host adds a name", code="host_not_allowed"
            )

    def _admit(self, scope: Scope, visit: Visit) -> None:
        caller = self._keys.name_of(header(scope, b"authorization"), header(scope, b"x-api-key"))
        if caller is None:
            raise ApiError(
                401,
                "the API key is missing or wrong; send it as `Authorization: Bearer KEY`",
                code="invalid_api_key",
                headers=_DENIED,
            )
        visit.caller = caller
        if self.draining:
            raise ApiError(503, "the gateway is stopping", code="service_unavailable", headers={"retry-after": "1"})
        if self.active > self._settings.max_requests:
            raise ApiError(
                503,
                f"{self._settings.max_requests} requests are here, which is all there is room for",
                code="service_unavailable",
                headers={"retry-after": "1"},
            )

    def _cors(self, scope: Scope) -> Headers:
        origin = header(scope, b"origin")
        if not self._origins or origin not in self._origins:
            return []
        return [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"vary", b"origin"),
            _EXPOSED,
            *((_ALLOWED, _METHODS) if scope["method"] == "OPTIONS" else ()),
        ]


def _of_starlette(error: HTTPException, scope: Scope) -> ApiError:
    path, method = scope["path"], scope["method"]
    if error.status_code == 405:
        return ApiError(
            405, f"{path:.200} takes no {method}", code="method_not_allowed", headers=dict(error.headers or {})
        )
    return ApiError(404, f"there is no {path:.200} here; the API is under /v1", code="not_found")

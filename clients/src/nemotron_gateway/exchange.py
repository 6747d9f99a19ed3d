"""One HTTP request over ASGI: its body within limits, its response, and a caller who may leave at any time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

import anyio
import msgspec

from nemotron_gateway.errors import ApiError

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Headers: TypeAlias = list[tuple[bytes, bytes]]

JSON = (b"content-type", b"application/json")
_CLOSE = {"connection": "close"}


class CallerLeft(Exception):
    """The caller is gone, and its request with it."""


def header(scope: Scope, name: bytes) -> str:
    """The first header *name* (in small letters), or nothing."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


async def read_body(scope: Scope, receive: Receive, *, max_bytes: int, timeout_s: float) -> bytes:
    """The whole body, which must be JSON of at most *max_bytes* and come within *timeout_s*; raises `ApiError`."""
    kind = header(scope, b"content-type").partition(";")[0].strip().lower()
    if kind != "application/json":
        # Any web page may send a form or plain text to any address; JSON it may not, without being allowed to.
        raise ApiError(415, f"content-type is {kind or 'missing'!r}; send application/json", headers=_CLOSE)
    length = header(scope, b"content-length")
    if length.isdigit() and int(length) > max_bytes:
        raise _too_large(max_bytes)
    parts: list[bytes] = []
    size = 0
    try:
        with anyio.fail_after(timeout_s):
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise CallerLeft
                part = message.get("body", b"")
                size += len(part)
                if size > max_bytes:
                    raise _too_large(max_bytes)
                parts.append(part)
                more = message.get("more_body", False)
    except TimeoutError as error:
        raise ApiError(
            408, f"the body did not come within {timeout_s:g} s; send it faster", code="timeout", headers=_CLOSE
        ) from error
    return parts[0] if len(parts) == 1 else b"".join(parts)


@contextlib.asynccontextmanager
async def while_connected(receive: Receive) -> AsyncIterator[None]:
    """Cancel the block when the caller leaves, whose body has been read; `CallerLeft` is raised then."""
    task = asyncio.current_task()
    assert task is not None
    watching = asyncio.ensure_future(_left(receive))
    over = False

    def leave(_: object) -> None:
        if not over:
            task.cancel()

    watching.add_done_callback(leave)
    try:
        yield
    except asyncio.CancelledError as error:
        if watching.done() and not watching.cancelled():
            raise CallerLeft from error
        raise
    finally:
        over = True
        watching.cancel()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def send_json(send: Send, status: int, value: Any, headers: Headers | None = None) -> None:
    """Send *value* as the whole response."""
    await send_bytes(send, status, msgspec.json.encode(value), [JSON, *(headers or [])])


async def send_bytes(send: Send, status: int, body: bytes, headers: Headers) -> None:
    """Send *body* as the whole response."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
    await send({"type": "http.response.body", "body": body})


def _too_large(max_bytes: int) -> ApiError:
    return ApiError(
        413, f"the body has more than {max_bytes:,} bytes; send less", code="request_too_large", headers=_CLOSE
    )

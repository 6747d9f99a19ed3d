"""Both clients behind one function, so that each test runs with both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from nemotron_client import AsyncClient, Client, Event

# Collects the events of `stream`; *settings* are the client's, the rest is the request's.
Ask = Callable[..., list[Event]]


def ask_client(url: str, messages: Any, settings: dict[str, Any] | None = None, **options: Any) -> list[Event]:
    """The events that `Client` sees."""
    events: list[Event] = []
    with Client(url, **{"timeout_s": 10, "max_retries": 0, **(settings or {})}) as client:
        events.extend(client.stream(messages, **options))
    return events


def ask_async_client(url: str, messages: Any, settings: dict[str, Any] | None = None, **options: Any) -> list[Event]:
    """The events that `AsyncClient` sees."""

    async def ask() -> list[Event]:
        async with AsyncClient(url, **{"timeout_s": 10, "max_retries": 0, **(settings or {})}) as client:
            return [event async for event in client.stream(messages, **options)]

    return asyncio.run(ask())


both_clients = pytest.mark.parametrize("ask", [ask_client, ask_async_client], ids=["Client", "AsyncClient"])

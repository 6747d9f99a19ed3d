"""The servers behind an `AsyncClient`: their channels, and a task that watches their health where there are several."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import grpc
import grpc.aio

from nemotron_client import wire
from nemotron_client.addresses import CHECK_INTERVAL_S, CHECK_TIMEOUT_S, Addresses
from nemotron_client.connection import Connections
from nemotron_client.endpoints import Endpoints
from nemotron_client.errors import ClientError, InvalidRequest
from nemotron_client.protocol import Methods, live_request, ready_request
from nemotron_client.refusals import of_status
from nemotron_client.settings import ClientSettings
from nemotron_client.status import EndpointHealth, Health


class AsyncServers:
    """Shared by a client and those made of it by `with_options`; belongs to the event loop of the first request."""

    def __init__(self, settings: ClientSettings) -> None:
        """Nothing is connected yet."""
        self.endpoints = Endpoints(settings.urls, settings.balance, settings.name)
        self._connections = Connections(grpc.aio, settings.credentials, settings.authority)
        self._addresses = Addresses(settings.name) if settings.name else None
        self._several = settings.several
        self._where = settings.where
        self._loop: asyncio.AbstractEventLoop | None = None
        self._first_look: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None

    def methods(self, url: str) -> Methods:
        """Triton's methods at *url*; `InvalidRequest` when the client was closed."""
        return self._connections.methods(url)

    @property
    def closed(self) -> bool:
        """Whether the client was closed; gRPC ends its calls as if their tasks had been cancelled."""
        return self._connections.closed

    async def ensure_watched(self) -> None:
        """Look at the servers once before the first request, and from time to time from then on."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise InvalidRequest(
                f"this client of {self._where} belongs to another event loop; make one for each asyncio.run"
            )
        if not self._several:
            return
        if self._first_look is None:
            self._first_look = asyncio.create_task(self._look())
        # Whoever is cancelled while it waits leaves it to the others.
        await asyncio.shield(self._first_look)
        if self._watch is None and not self._connections.closed:
            self._watch = asyncio.create_task(self._keep_looking(), name="nemotron-health")

    async def health(self, timeout_s: float) -> Health:
        """Ask every server."""
        await self.ensure_watched()
        return Health(tuple(await asyncio.gather(*(self._health(url, timeout_s) for url in self.endpoints.urls))))

    async def close(self) -> None:
        """Close every connection; running requests end with an error."""
        channels = self._connections.take_all()
        for task in (self._first_look, self._watch):
            if task and not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        for channel in channels:
            await channel.close()

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            await self._look()

    async def _look(self) -> None:
        """Find the servers of the name anew where that is due, and ask each whether it is ready."""
        if self._addresses and self._addresses.due(self.endpoints):
            loop = asyncio.get_running_loop()
            try:
                found = await loop.getaddrinfo(*self._addresses.wanted, type=socket.SOCK_STREAM)
            except OSError:
                found = []  # those that were known are asked on
            self._addresses.found(found, self.endpoints)
            for url in self._addresses.idle():
                if channel := self._connections.take(url):
                    await channel.close()
        await asyncio.gather(*(self._check(url) for url in self.endpoints.urls))

    async def _check(self, url: str) -> None:
        try:
            answer = await self.methods(url).model_ready(ready_request(wire.MODEL_NAME), timeout=CHECK_TIMEOUT_S)
            ready = answer.ready
        except (grpc.RpcError, ClientError):
            ready = False
        (self.endpoints.admit if ready else self.endpoints.eject)(url)

    async def _health(self, url: str, timeout_s: float) -> EndpointHealth:
        methods = self.methods(url)
        live: Any = methods.server_live(live_request(), timeout=timeout_s)
        ready: Any = methods.model_ready(ready_request(wire.MODEL_NAME), timeout=timeout_s)
        alive = False
        try:
            alive = (await live).live
            is_ready = (await ready).ready
        except grpc.RpcError as error:
            ready.cancel()
            problem = str(of_status(error, url, timeout_s, started=False))
            return EndpointHealth(url=url, live=alive, ready=False, problem=problem)
        return EndpointHealth(url=url, live=alive, ready=is_ready, problem="" if is_ready else "the model is not ready")

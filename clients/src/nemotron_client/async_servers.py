"""The servers behind an `AsyncClient`: their channels, and a task that looks after them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import weakref

import grpc
import grpc.aio

from nemotron_client.cancellation import asked_to_stop
from nemotron_client.connection import Connections, closed
from nemotron_client.endpoints import Endpoints
from nemotron_client.errors import ClientError, InvalidRequest
from nemotron_client.forking import tell_after_fork
from nemotron_client.refusals import of_status
from nemotron_client.settings import ClientSettings
from nemotron_client.status import EndpointHealth, Health, unready
from nemotron_client.watch import Watch, ready_despite


class AsyncServers:
    """Shared by a client and those made of it by `with_options`; belongs to the event loop of the first request."""

    def __init__(self, settings: ClientSettings) -> None:
        self.endpoints = Endpoints(settings.urls, settings.balance, settings.name)
        self.connections = Connections(grpc.aio, settings.credentials, settings.authority)
        self._watch = Watch(self.endpoints, self.connections, settings)
        self._looked = asyncio.Event()
        self._where = settings.where
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watching: asyncio.Task[None] | None = None
        tell_after_fork(self)

    async def ensure_watched(self, timeout_s: float) -> None:
        """See that the servers are looked at from time to time; of several wait for the first look, for *timeout_s*."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise InvalidRequest(
                f"this client of {self._where} belongs to another event loop; make one for each asyncio.run"
            )
        if self.connections.closed:
            raise closed(self._where)
        if self._watching is None:
            self._watching = asyncio.create_task(_keep_looking(self._watch, self._looked), name="nemotron-health")
            # A client that is dropped without `close` leaves no task behind.
            weakref.finalize(self, _cancel, loop, self._watching)
        if self._watch.several and not self._looked.is_set():
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._looked.wait(), timeout_s)

    def after_fork(self) -> None:
        """Begin anew, with connections and a task of this process."""
        self.endpoints.after_fork()
        self.connections.after_fork()
        self._looked = asyncio.Event()
        self._loop = self._watching = None

    async def health(self, timeout_s: float) -> Health:
        """Ask every server."""
        await self.ensure_watched(timeout_s)
        return Health(tuple(await asyncio.gather(*(self._health(url, timeout_s) for url in self.endpoints.urls))))

    async def close(self) -> None:
        """Close every connection; running requests end with an error."""
        channels = self.connections.take_all()
        if self._watching:
            self._watching.cancel()
            # Not awaited itself: then a cancellation of the caller would look like one of the task.
            await asyncio.wait([self._watching])
        self._looked.set()
        for channel in channels:
            await channel.close()

    async def _health(self, url: str, timeout_s: float) -> EndpointHealth:
        methods = self.connections.methods(url)
        live = methods.server_live(methods.live_request, timeout=timeout_s)
        server = methods.server_ready(methods.server_ready_request, timeout=timeout_s)
        model = methods.model_ready(methods.ready_request, timeout=timeout_s)
        alive = is_ready = False
        try:
            alive = (await live).live
            problem = unready(server=(await server).ready, model=(await model).ready)
            is_ready = not problem
        except grpc.RpcError as error:
            server.cancel()
            model.cancel()
            problem = str(of_status(error, url, timeout_s, started=False))
        except asyncio.CancelledError:
            if not self.connections.closed or asked_to_stop(unknown=False):
                raise
            problem = "the client was closed"
        return EndpointHealth(url=url, live=alive, ready=is_ready, problem=problem)


async def _keep_looking(watch: Watch, looked: asyncio.Event) -> None:
    if not watch.several:
        await asyncio.sleep(watch.rhythm.interval_s)
    while True:
        try:
            await _look(watch)
        finally:
            looked.set()
        await asyncio.sleep(watch.rhythm.interval_s)


async def _look(watch: Watch) -> None:
    """Resolve the name where that is due, and ask every server whether it is ready."""
    if address := watch.due():
        try:
            infos = await asyncio.get_running_loop().getaddrinfo(*address, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            infos = []  # the servers that are known stay
        for channel in watch.resolved(infos):
            await channel.close()
    await asyncio.gather(*(_look_at(watch, url) for url in watch.endpoints.watched_urls))


async def _look_at(watch: Watch, url: str) -> None:
    ready: bool | None
    watch.endpoints.look_at(url)
    try:
        methods = watch.connections.methods(url)
        ready = (await methods.server_ready(methods.server_ready_request, timeout=watch.rhythm.timeout_s)).ready
    except grpc.RpcError as error:
        ready = ready_despite(error)
    except ClientError:
        ready = False
    for channel in watch.looked(url, ready):
        await channel.close()


def _cancel(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(task.cancel)

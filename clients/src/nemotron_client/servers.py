"""The servers behind a `Client`: their channels, and a thread that looks after them."""

from __future__ import annotations

import socket
import threading
import weakref
from typing import Any

import grpc

from nemotron_client.connection import Connections
from nemotron_client.endpoints import Endpoints
from nemotron_client.forking import tell_after_fork
from nemotron_client.refusals import of_status
from nemotron_client.settings import ClientSettings
from nemotron_client.status import EndpointHealth, Health, unready
from nemotron_client.watch import Watch, ready_despite


class Servers:
    """Shared by a client and those made of it by `with_options`. Safe to share between threads."""

    def __init__(self, settings: ClientSettings) -> None:
        self.endpoints = Endpoints(settings.urls, settings.balance, settings.name)
        self.connections = Connections(grpc, settings.credentials, settings.authority)
        self._stop = threading.Event()
        self._watch = Watch(self.endpoints, self.connections, settings)
        self._looked = threading.Event()
        self._watching = False
        self._starting = threading.Lock()
        tell_after_fork(self)
        # A client that is dropped without `close` leaves no thread behind.
        weakref.finalize(self, self._stop.set)

    def ensure_watched(self, timeout_s: float) -> None:
        """See that the servers are looked at from time to time; of several wait for the first look, for *timeout_s*."""
        if not self._watching:
            with self._starting:
                if not self._watching and not self.connections.closed:
                    self._watching = True
                    arguments = self._stop, self._watch, self._looked
                    threading.Thread(target=_watch_until, args=arguments, name="nemotron-health", daemon=True).start()
        if self._watch.several and not self._looked.is_set() and not self.connections.closed:
            self._looked.wait(timeout_s)

    def after_fork(self) -> None:
        """Begin anew, with connections and a thread of this process."""
        self.endpoints.after_fork()
        self.connections.after_fork()
        self._looked = threading.Event()
        self._watching = False
        self._starting = threading.Lock()

    def health(self, timeout_s: float) -> Health:
        """Ask every server."""
        self.ensure_watched(timeout_s)
        calls = [
            (
                url,
                methods.server_live.future(methods.live_request, timeout=timeout_s),
                methods.server_ready.future(methods.server_ready_request, timeout=timeout_s),
                methods.model_ready.future(methods.ready_request, timeout=timeout_s),
            )
            for url, methods in [(url, self.connections.methods(url)) for url in self.endpoints.urls]
        ]
        return Health(tuple(_health(*call, timeout_s) for call in calls))

    def close(self) -> None:
        """Close every connection; running requests end with an error."""
        self._stop.set()
        for channel in self.connections.take_all():
            channel.close()


def _watch_until(stop: threading.Event, watch: Watch, looked: threading.Event) -> None:
    pause_s = 0.0 if watch.several else watch.rhythm.interval_s
    while not stop.wait(pause_s):
        pause_s = watch.rhythm.interval_s
        try:
            _look(watch)
        except Exception:
            if stop.is_set():
                return  # closed while it looked
            raise
        finally:
            looked.set()


def _look(watch: Watch) -> None:
    """Resolve the name where that is due, and ask every server whether it is ready."""
    if address := watch.due():
        try:
            infos = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            infos = []  # the servers that are known stay
        for channel in watch.resolved(infos):
            channel.close()
    calls = {}
    for url in watch.endpoints.watched_urls:
        methods = watch.connections.methods(url)
        watch.endpoints.look_at(url)
        calls[url] = methods.server_ready.future(methods.server_ready_request, timeout=watch.rhythm.timeout_s)
    for url, call in calls.items():
        ready: bool | None
        try:
            ready = call.result().ready
        except grpc.FutureCancelledError:
            ready = False
        except grpc.RpcError as error:
            ready = ready_despite(error)
        for channel in watch.looked(url, ready):
            channel.close()


def _health(url: str, live: Any, server: Any, model: Any, timeout_s: float) -> EndpointHealth:
    alive = is_ready = False
    try:
        alive = live.result().live
        problem = unready(server=server.result().ready, model=model.result().ready)
        is_ready = not problem
    except grpc.RpcError as error:
        problem = str(of_status(error, url, timeout_s, started=False))
    return EndpointHealth(url=url, live=alive, ready=is_ready, problem=problem)

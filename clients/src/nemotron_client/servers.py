"""The servers behind a `Client`: their channels, and a thread that watches their health where there are several."""

from __future__ import annotations

import socket
import threading
import weakref
from typing import Any

import grpc

from nemotron_client.connection import Connections
from nemotron_client.endpoints import Endpoints
from nemotron_client.refusals import of_status
from nemotron_client.settings import ClientSettings
from nemotron_client.status import EndpointHealth, Health
from nemotron_client.watch import CHECK_INTERVAL_S, CHECK_TIMEOUT_S, Watch


class Servers:
    """Shared by a client and those made of it by `with_options`. Safe to share between threads."""

    def __init__(self, settings: ClientSettings) -> None:
        self.endpoints = Endpoints(settings.urls, settings.balance, settings.name)
        self.connections = Connections(grpc, settings.credentials, settings.authority)
        self._stop = threading.Event()
        self._watch = Watch(self.endpoints, self.connections, settings.name) if settings.several else None
        self._looked = threading.Event()
        self._watching = False
        self._starting = threading.Lock()
        # A client that is dropped without `close` leaves no thread behind.
        weakref.finalize(self, self._stop.set)

    def ensure_watched(self, timeout_s: float) -> None:
        """See that the servers are looked at from time to time, and wait for the first look, *timeout_s* at most."""
        if self._watch is None or self._looked.is_set():
            return
        with self._starting:
            if not self._watching:
                self._watching = True
                arguments = self._stop, self._watch, self._looked
                threading.Thread(target=_watch_until, args=arguments, name="nemotron-health", daemon=True).start()
        self._looked.wait(timeout_s)

    def health(self, timeout_s: float) -> Health:
        """Ask every server."""
        self.ensure_watched(timeout_s)
        calls = [
            (
                url,
                methods.server_live.future(methods.live_request, timeout=timeout_s),
                methods.model_ready.future(methods.ready_request, timeout=timeout_s),
            )
            for url, methods in [(url, self.connections.methods(url)) for url in self.endpoints.urls]
        ]
        return Health(tuple(_health(url, live, ready, timeout_s) for url, live, ready in calls))

    def close(self) -> None:
        """Close every connection; running requests end with an error."""
        self._stop.set()
        for channel in self.connections.take_all():
            channel.close()


def _watch_until(stop: threading.Event, watch: Watch, looked: threading.Event) -> None:
    while not stop.is_set():
        try:
            _look(watch)
        except Exception:
            if stop.is_set():
                return  # closed while it looked
            raise
        finally:
            looked.set()
        stop.wait(CHECK_INTERVAL_S)


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
    for url in watch.endpoints.urls:
        methods = watch.connections.methods(url)
        calls[url] = methods.model_ready.future(methods.ready_request, timeout=CHECK_TIMEOUT_S)
    for url, call in calls.items():
        try:
            ready = call.result().ready
        except (grpc.RpcError, grpc.FutureCancelledError):
            ready = False
        watch.endpoints.mark(url, ready=ready)


def _health(url: str, live: Any, ready: Any, timeout_s: float) -> EndpointHealth:
    alive = is_ready = False
    try:
        alive = live.result().live
        is_ready = ready.result().ready
        problem = "" if is_ready else "the model is not ready"
    except grpc.RpcError as error:
        problem = str(of_status(error, url, timeout_s, started=False))
    return EndpointHealth(url=url, live=alive, ready=is_ready, problem=problem)

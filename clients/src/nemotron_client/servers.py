"""The servers behind a `Client`: their channels, and a thread that watches their health where there are several."""

from __future__ import annotations

import socket
import threading
import weakref
from typing import Any

import grpc

from nemotron_client import wire
from nemotron_client.addresses import CHECK_INTERVAL_S, CHECK_TIMEOUT_S, Addresses
from nemotron_client.connection import Connections
from nemotron_client.endpoints import Endpoints
from nemotron_client.protocol import Methods, live_request, ready_request
from nemotron_client.refusals import of_status
from nemotron_client.settings import ClientSettings
from nemotron_client.status import EndpointHealth, Health


class Servers:
    """Shared by a client and those made of it by `with_options`. Safe to share between threads."""

    def __init__(self, settings: ClientSettings) -> None:
        """Nothing is connected yet."""
        self.endpoints = Endpoints(settings.urls, settings.balance, settings.name)
        self._connections = Connections(grpc, settings.credentials, settings.authority)
        self._stop = threading.Event()
        self._watch = _Watch(self.endpoints, self._connections, settings.name) if settings.several else None
        self._watching = False
        self._starting = threading.Lock()
        # A client that was forgotten without `close` leaves no thread behind.
        weakref.finalize(self, self._stop.set)

    def methods(self, url: str) -> Methods:
        """Triton's methods at *url*; `InvalidRequest` when the client was closed."""
        return self._connections.methods(url)

    def ensure_watched(self, timeout_s: float) -> None:
        """See that the servers are looked at from time to time, and wait for the first look, *timeout_s* at most."""
        if self._watch is None or self._watch.looked.is_set():
            return
        with self._starting:
            if not self._watching:
                self._watching = True
                threading.Thread(
                    target=_watch_until, args=(self._stop, self._watch), name="nemotron-health", daemon=True
                ).start()
        self._watch.looked.wait(timeout_s)

    def health(self, timeout_s: float) -> Health:
        """Ask every server."""
        self.ensure_watched(timeout_s)
        asked = [(url, self.methods(url)) for url in self.endpoints.urls]
        calls = [
            (
                url,
                methods.server_live.future(live_request(), timeout=timeout_s),
                methods.model_ready.future(ready_request(wire.MODEL_NAME), timeout=timeout_s),
            )
            for url, methods in asked
        ]
        return Health(tuple(_health(url, live, ready, timeout_s) for url, live, ready in calls))

    def close(self) -> None:
        """Close every connection; running requests end with an error."""
        self._stop.set()
        for channel in self._connections.take_all():
            channel.close()


class _Watch:
    """One look at all servers at a time; what they say decides who gets requests."""

    def __init__(self, endpoints: Endpoints, connections: Connections, name: str | None) -> None:
        self.looked = threading.Event()
        self._endpoints = endpoints
        self._connections = connections
        self._addresses = Addresses(name) if name else None

    def look(self) -> None:
        """Find the servers of the name anew where that is due, and ask each whether it is ready."""
        if self._addresses and self._addresses.due(self._endpoints):
            try:
                found = socket.getaddrinfo(*self._addresses.wanted, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError):
                found = []  # those that were known are asked on
            self._addresses.found(found, self._endpoints)
            for url in self._endpoints.idle():
                if channel := self._connections.take(url):
                    channel.close()
        calls = [
            (
                url,
                self._connections.methods(url).model_ready.future(
                    ready_request(wire.MODEL_NAME), timeout=CHECK_TIMEOUT_S
                ),
            )
            for url in self._endpoints.urls
        ]
        for url, call in calls:
            try:
                ready = call.result().ready
            except (grpc.RpcError, grpc.FutureCancelledError):
                ready = False
            (self._endpoints.admit if ready else self._endpoints.eject)(url)


def _watch_until(stop: threading.Event, watch: _Watch) -> None:
    # Holds no `Servers`, so that the thread does not keep alive what ends it.
    while not stop.is_set():
        try:
            watch.look()
        except Exception:
            if stop.is_set():
                return  # closed while it looked
            raise
        finally:
            watch.looked.set()
        stop.wait(CHECK_INTERVAL_S)


def _health(url: str, live: Any, ready: Any, timeout_s: float) -> EndpointHealth:
    alive = False
    try:
        alive = live.result().live
        is_ready = ready.result().ready
    except grpc.RpcError as error:
        return EndpointHealth(
            url=url, live=alive, ready=False, problem=str(of_status(error, url, timeout_s, started=False))
        )
    return EndpointHealth(url=url, live=alive, ready=is_ready, problem="" if is_ready else "the model is not ready")

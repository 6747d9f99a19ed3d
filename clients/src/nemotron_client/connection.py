"""gRPC channels to servers: plain, with TLS or mutual TLS, opened when they are first used."""

from __future__ import annotations

import threading
from typing import Any

import grpc

from nemotron_client.errors import InvalidRequest
from nemotron_client.protocol import MAX_MESSAGE_BYTES, Methods
from nemotron_client.settings import Credentials

_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # http_proxy is meant for the web, not for an inference server nearby.
    ("grpc.enable_http_proxy", 0),
    # Else all channels of a process to one address share a connection: also with one that hangs, or is the parent's.
    ("grpc.use_local_subchannel_pool", 1),
    # A connection that is not made after this long fails (despite the name), and the request goes elsewhere.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    # A restarted server is connected to within a second, not within gRPC's two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]
# Open channels that this process shares with the one it was forked from.
_of_the_parent: list[Any] = []


class Connections:
    """A channel to each server of a client, opened by *channels*: `grpc` or `grpc.aio`. Safe to share between threads.

    *authority* is the name that certificates are checked against, where servers are addressed by number.
    """

    def __init__(self, channels: Any, credentials: Credentials, authority: str | None) -> None:
        self._channels = channels
        self._credentials = credentials
        self._options = [*_OPTIONS, ("grpc.default_authority", authority)] if authority else _OPTIONS
        self._open: dict[str, tuple[Any, Methods]] = {}
        self._lock = threading.Lock()
        self.closed = False

    def methods(self, url: str) -> Methods:
        """Triton's gRPC methods at *url*; `InvalidRequest` when the client was closed."""
        if opened := self._open.get(url):
            return opened[1]
        with self._lock:
            if self.closed:
                raise closed(url)
            if url not in self._open:
                channel = self._channel(url)
                self._open[url] = channel, Methods(channel)
            return self._open[url][1]

    def take(self, url: str) -> Any:
        """The channel to *url*, for the caller to close; None where there is none."""
        with self._lock:
            channel, _ = self._open.pop(url, (None, None))
            return channel

    def after_fork(self) -> None:
        """This process is a forked child, which may not use the connections of its parent, nor end them: it keeps them.

        gRPC shuts down the socket of a channel that is freed, and both processes have the same one.
        """
        self._lock = threading.Lock()
        _of_the_parent.extend(self._open.values())
        self._open = {}

    def take_all(self) -> list[Any]:
        """Every channel, for the caller to close; from now on none is opened."""
        with self._lock:
            self.closed = True
            channels = [channel for channel, _ in self._open.values()]
            self._open.clear()
            return channels

    def _channel(self, url: str) -> Any:
        if not self._credentials.root:
            return self._channels.insecure_channel(url, options=self._options)
        credentials = grpc.ssl_channel_credentials(
            self._credentials.root, self._credentials.key, self._credentials.cert
        )
        return self._channels.secure_channel(url, credentials, options=self._options)


def closed(url: str) -> InvalidRequest:
    """The error of a client that was closed, where gRPC raises `ValueError`."""
    return InvalidRequest(f"this client of {url} is closed; make a new one")

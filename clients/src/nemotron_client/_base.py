"""What the clients share: their settings, their servers' names, and the limits of their requests."""

from __future__ import annotations

import abc
import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from nemotron_client.endpoints import Attempt, Balance
from nemotron_client.errors import ClientError
from nemotron_client.outgoing import Outgoing
from nemotron_client.refusals import of_silence, of_status
from nemotron_client.settings import (
    DEFAULT_KEEPALIVE_S,
    DEFAULT_MAX_RETRIES,
    DEFAULT_TIMEOUT_S,
    ClientSettings,
    Credentials,
    read_metadata,
    read_seconds,
    read_urls,
)

if TYPE_CHECKING:
    from typing_extensions import Self

ServersT = TypeVar("ServersT")


class BaseClient(abc.ABC, Generic[ServersT]):
    """What a client does without waiting; `ServersT` holds its connections to the servers."""

    def __init__(
        self,
        url: str | Sequence[str] | None = None,
        *,
        timeout_s: float | None = None,
        max_retries: int = DEFAULT_MAX_RETRIES,
        balance: Balance = "least_loaded",
        secret: str | None = None,
        root_ca: str | Path | None = None,
        client_cert: str | Path | None = None,
        client_key: str | Path | None = None,
        keepalive_s: float | None = None,
    ) -> None:
        """*url* is `host:port` of a gRPC endpoint, or several, or `dns:///host:port` for all servers behind a name.

        An IPv6 address has brackets, `[::1]:8001`; `unix:/run/it.sock` is a socket in the file system.

        *timeout_s* is the time one request may take, its whole answer and all attempts included.
        *max_retries* is how often a request that was not answered yet is tried again, where that is safe.
        *balance* is `least_loaded` or `round_robin`, among several servers. *secret* is the server's, where it has one;
        *root_ca*, the authority that signed the server's certificate, turns TLS on; *client_cert* and *client_key* are
        for a server that asks for them; all three are PEM files.

        *keepalive_s* is how often a server is asked whether it is ready, running requests or none, which keeps its
        connection from being idle; each of several is asked every 2 s at least. Where one says nothing, for as long
        again (between 1 and 20 s; of several twice for 1 s), its connection is closed: requests without a token are
        tried again as *max_retries* says, and answers that were begun raise `StreamBroken`.

        What is left out is read from `NEMOTRON_URL` (default 127.0.0.1:8001; commas between several),
        `NEMOTRON_TIMEOUT_S` (600), `NEMOTRON_KEEPALIVE_S` (30), `NEMOTRON_SECRET`, `NEMOTRON_ROOT_CA`,
        `NEMOTRON_CLIENT_CERT` and `NEMOTRON_CLIENT_KEY`. Nothing is connected before the first request.

        Raises `InvalidRequest` for what cannot be used.
        """
        urls, name = read_urls(url)
        self._settings = ClientSettings(
            urls=urls,
            name=name,
            balance=balance,
            timeout_s=read_seconds("timeout_s", timeout_s, DEFAULT_TIMEOUT_S),
            max_retries=max_retries,
            metadata=read_metadata(secret),
            credentials=Credentials.read(root_ca, client_cert, client_key),
            keepalive_s=read_seconds("keepalive_s", keepalive_s, DEFAULT_KEEPALIVE_S),
        )
        self._servers = self._reach(self._settings)

    @property
    def url(self) -> str:
        """The servers as they were given: an address, several with commas, or a name."""
        return self._settings.where

    @property
    def has_several_servers(self) -> bool:
        """Whether there is, or may be, more than one server."""
        return self._settings.several

    def with_options(self, *, timeout_s: float | None = None, max_retries: int | None = None) -> Self:
        """A client with other limits, over the same connections: to close one closes both."""
        client = copy.copy(self)
        client._settings = self._settings.with_options(timeout_s, max_retries)
        return client

    @staticmethod
    @abc.abstractmethod
    def _reach(settings: ClientSettings) -> ServersT:
        """The servers that *settings* name; nothing is connected yet."""

    def _error(self, error: Any, request: Outgoing, attempt: Attempt, *, started: bool) -> ClientError:
        """The error of an *attempt* that gRPC ended with a `grpc.RpcError`; *started* is whether a response came."""
        if attempt.broken_off:
            return of_silence(attempt.url, started=started)
        return of_status(error, attempt.url, request.limits.timeout_s, started=started)

    def _explain(self, error: ClientError) -> None:
        """Have *error* say why its server could not be reached, where that can be found; that takes a second or two."""
        from nemotron_client.diagnosis import why_unreachable

        if why := why_unreachable(error.unreached, self._settings.credentials, self._settings.authority):
            error.args = (f"{error.unreached} is not available: {why}",)

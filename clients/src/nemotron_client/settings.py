"""The settings of a client: its arguments, and where they are left out the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

from nemotron_client import wire
from nemotron_client.endpoints import Balance
from nemotron_client.errors import InvalidRequest

DEFAULT_URL = "127.0.0.1:8001"
DEFAULT_TIMEOUT_S = 600.0
DEFAULT_MAX_RETRIES = 2
DEFAULT_KEEPALIVE_S = 30.0
# Thirty years; gRPC takes much longer ones for times that have passed.
LONGEST_TIMEOUT_S = 1e9
_DNS = "dns:///"
# Of a socket in the file system.
UNIX = "unix:"
_URL = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+(?:%\w+)?\]|[^\s:/\[\]]+):(?P<port>\d{1,5})")


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """PEM texts: the authority that signed the server's certificate, and the client's own certificate and key."""

    root: bytes | None = None
    cert: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)

    @classmethod
    def read(
        cls, root_ca: str | Path | None, client_cert: str | Path | None, client_key: str | Path | None
    ) -> Credentials:
        """The contents of these files, or of those that the environment names."""
        credentials = cls(
            root=_pem("root_ca", root_ca),
            cert=_pem("client_cert", client_cert),
            key=_pem("client_key", client_key),
        )
        if (credentials.cert is None) != (credentials.key is None):
            raise InvalidRequest(
                "a client certificate and its key go together; give client_cert and client_key",
                field="client_key" if credentials.cert else "client_cert",
            )
        if credentials.cert and not credentials.root:
            raise InvalidRequest(
                "a client certificate goes with TLS; give root_ca, the authority that signed the server's certificate",
                field="root_ca",
            )
        return credentials


@dataclass(frozen=True, kw_only=True)
class ClientSettings:
    """The settings of a client; `InvalidRequest` names the one that cannot be used.

    `urls` are of servers, unless there is a DNS `name` that stands for them.
    """

    urls: tuple[str, ...]
    name: str | None
    balance: Balance
    timeout_s: float
    max_retries: int
    metadata: tuple[tuple[str, str], ...] = field(repr=False)
    credentials: Credentials
    keepalive_s: float = DEFAULT_KEEPALIVE_S

    def __post_init__(self) -> None:
        if self.balance not in get_args(Balance):
            raise InvalidRequest(
                f"balance is {self.balance!r}; it is {' or '.join(get_args(Balance))}", field="balance"
            )
        check_timeout_s(self.timeout_s)
        check_timeout_s(self.keepalive_s, "keepalive_s")
        retries = self.max_retries
        if isinstance(retries, bool) or not isinstance(retries, int) or not 0 <= retries <= 100:
            raise InvalidRequest(
                f"max_retries is {retries!r}; it must be a whole number between 0 and 100", field="max_retries"
            )

    @property
    def several(self) -> bool:
        """Whether there can be more than one server, and their health has to be watched."""
        return self.name is not None or len(self.urls) > 1

    @property
    def where(self) -> str:
        """What the user calls the server, for messages."""
        return self.name or ", ".join(self.urls)

    @property
    def authority(self) -> str | None:
        """The host that certificates must name, where servers are addressed by number."""
        return self.name and split_address(self.name)[0]

    def with_options(self, timeout_s: float | None, max_retries: int | None) -> ClientSettings:
        """These settings with other limits, where they are not None."""
        if timeout_s is None and max_retries is None:
            return self
        return replace(
            self,
            timeout_s=self.timeout_s if timeout_s is None else timeout_s,
            max_retries=self.max_retries if max_retries is None else max_retries,
        )

    def with_metadata(self, metadata: tuple[tuple[str, str], ...]) -> ClientSettings:
        """These settings with more of it."""
        return replace(self, metadata=(*self.metadata, *metadata)) if metadata else self


def check_timeout_s(timeout_s: float, name: str = "timeout_s") -> None:
    """Raise `InvalidRequest`, with the setting's *name*, for what is not a positive number of seconds."""
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, (int, float)) or not 0 < timeout_s <= LONGEST_TIMEOUT_S:
        raise InvalidRequest(
            f"{name} is {timeout_s!r:.40}; it must be a number of seconds, up to {LONGEST_TIMEOUT_S:g}", field=name
        )


def split_address(url: str) -> tuple[str, int]:
    """Host and port of `host:port`; a numerical IPv6 host has brackets there."""
    host, _, port = url.rpartition(":")
    return host.strip("[]"), int(port)


def read_urls(url: str | Sequence[str] | None) -> tuple[tuple[str, ...], str | None]:
    """The address of each server once, from *url* or the environment; or none, and the name that stands for them."""
    if url is None:
        url = os.environ.get("NEMOTRON_URL") or DEFAULT_URL
    parts = url.split(",") if isinstance(url, str) else url
    if not isinstance(parts, Sequence) or not all(isinstance(part, str) for part in parts):
        raise InvalidRequest(f"url is {url!r:.100}; give host:port of a server, or a list of them", field="url")
    urls = tuple(dict.fromkeys(part.strip() for part in parts))
    if not urls:
        raise InvalidRequest("url is an empty list; give host:port of a server", field="url")
    urls = tuple(dict.fromkeys(_address(part) for part in urls))
    for part in urls:
        if part.startswith(_DNS) and len(urls) > 1:
            raise InvalidRequest(
                f"{part} stands for all servers behind a name, and goes with no other url", field="url"
            )
    return ((), urls[0].removeprefix(_DNS)) if urls[0].startswith(_DNS) else (urls, None)


def _address(part: str) -> str:
    if part.startswith(UNIX):
        # gRPC takes a path after one slash or after three.
        path = part.removeprefix(UNIX)
        if not path.startswith("/") or (path.startswith("//") and not path.startswith("///")):
            raise InvalidRequest(
                f"url is {part!r}; give {UNIX} and the whole path of a socket, such as {UNIX}/run/it.sock", field="url"
            )
        return UNIX + "/" + path.lstrip("/")
    if scheme := re.match(r"https?://(?P<host>\[[^\]]*\]|[^:/]*)", part):
        tls = ", and root_ca for TLS" if part.startswith("https") else ""
        raise InvalidRequest(
            f"url is {part!r}; give host:port without a scheme, of gRPC: {scheme['host']}:8001{tls}", field="url"
        )
    match = _URL.fullmatch(part.removeprefix(_DNS))
    if match is None or not 0 < int(match["port"]) < 65536:
        raise InvalidRequest(
            f"url is {part!r}; give host:port without a scheme, such as {DEFAULT_URL} or [::1]:8001, "
            f"{_DNS}host:port for all the servers behind a name, or {UNIX}/path of a socket",
            field="url",
        )
    return part


def read_seconds(name: str, value_s: float | None, default_s: float) -> float:
    """*value_s* of the setting *name*, or that of the environment, or the default."""
    if value_s is not None:
        return value_s
    variable = _variable(name)
    text = os.environ.get(variable)
    try:
        return float(text) if text else default_s
    except ValueError:
        raise InvalidRequest(f"{variable} is {text!r}; it must be a number of seconds", field=name) from None


def read_metadata(secret: str | None) -> tuple[tuple[str, str], ...]:
    """The gRPC metadata of every request, with *secret*, or that of the environment, in it."""
    secret = secret or os.environ.get("NEMOTRON_SECRET")
    if not secret:
        return ()
    if not re.fullmatch(r"[!-~]+", secret):
        raise InvalidRequest(
            "the secret holds characters that are not visible ASCII; no server can have it", field="secret"
        )
    return ((f"triton-grpc-protocol-{wire.SECRET_HEADER}", secret),)


def _variable(name: str) -> str:
    """What the environment calls the setting *name*."""
    return f"NEMOTRON_{name.upper()}"


def _pem(name: str, file: str | Path | None) -> bytes | None:
    if not (path := file or os.environ.get(_variable(name))):
        return None
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise InvalidRequest(f"cannot read {path}: {error.strerror}", field=name) from error
    # gRPC would say so on stderr, and then that the server is not available.
    if b"-----BEGIN " not in text:
        raise InvalidRequest(f"{path} is not a PEM file", field=name)
    return text

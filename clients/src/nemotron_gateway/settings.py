"""How a gateway is reached and what it allows, checked before it starts."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from nemotron_gateway.errors import SettingError

_LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")
_ORIGIN = re.compile(r"https?://[^/\s]+")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that a gateway is told, its servers apart.

    Without keys everybody may call, which needs `no_auth` where *host* is not loopback. `cors_origins` are the web
    pages that may call; `allowed_hosts` the names by which they may, where not any is. A body may have `max_body_bytes`
    and take `body_timeout_s`; the headers before it `header_timeout_s`. A stream that is silent gets a comment every
    `keep_alive_s`. A gateway that is stopped lets answers run for `drain_s`.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    has_keys: bool = False
    no_auth: bool = False
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    served_model_names: tuple[str, ...] = ()
    any_model: bool = False
    strict: bool = False
    max_body_bytes: int = 4 << 20
    max_requests: int = 4096
    header_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    keep_alive_s: float = 15.0
    drain_s: float = 30.0

    def __post_init__(self) -> None:
        """Raise `SettingError` for what is not safe, or cannot be."""
        if not (self.is_loopback or self.has_keys or self.no_auth):
            raise SettingError(
                f"on {self.host} everybody who reaches this machine could use the model; give --api-key-file, or "
                "--no-auth to `nemotron gateway` where something else keeps strangers out"
            )
        for origin in self.cors_origins:
            if not _ORIGIN.fullmatch(origin):
                raise SettingError(f"--cors-origin is {origin!r}; give scheme, host and port, as https://example.com")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False

    @property
    def hosts(self) -> frozenset[str] | None:
        """The names that the header Host may have, without a port; None for any.

        Else a web page whose own name is made to lead to loopback could read answers (DNS rebinding).
        """
        if not (self.is_loopback or self.allowed_hosts):
            return None
        own = (*_LOOPBACK_HOSTS, self.host) if self.is_loopback else ()
        return frozenset(name.lower() for name in (*own, *self.allowed_hosts))

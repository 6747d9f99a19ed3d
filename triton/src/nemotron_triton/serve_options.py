"""Where a server listens, who may call it, and how long to wait for it, as tritonserver's arguments."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field, replace
from pathlib import Path

from nemotron_triton.addresses import join, resolve
from nemotron_triton.callers import Callers
from nemotron_triton.connections import Connections
from nemotron_triton.serving.authentication import FORWARDED
from nemotron_triton.serving.settings import Settings
from nemotron_triton.tls import Tls

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """How to serve a bundle. `host` is gRPC's; HTTP and metrics, which have no TLS, listen on loopback by default.

    Without `callers` everybody may call. With `allow_reload` the server takes a new bundle while it runs, without
    `text_models` it serves `nemotron` alone. A server that stops is not ready, takes requests for `drain_delay_ms` yet,
    and then gives running answers `drain_ms` at most.
    """

    host: str = LOOPBACK
    http_port: int = 8000
    http_host: str | None = None
    grpc_port: int = 8001
    metrics_port: int = 8002
    metrics_host: str | None = None
    tls: Tls | None = None
    callers: Callers | None = None
    allow_reload: bool = False
    text_models: bool = True
    settings: Settings = field(default_factory=Settings)
    connections: Connections = field(default_factory=Connections)
    ready_timeout_s: float = 600.0
    drain_delay_ms: int = 0
    drain_ms: int = 30_000
    exit_timeout_s: int = 10

    @property
    def ports(self) -> dict[str, int]:
        """The ports by the option that sets each."""
        return {"--http-port": self.http_port, "--grpc-port": self.grpc_port, "--metrics-port": self.metrics_port}

    @property
    def hosts(self) -> dict[str, str]:
        """The address of each of `ports`."""
        # Only None is no address: an empty one is refused, because the system takes it for every address.
        return {
            "--http-port": LOOPBACK if self.http_host is None else self.http_host,
            "--grpc-port": self.host,
            "--metrics-port": LOOPBACK if self.metrics_host is None else self.metrics_host,
        }

    @property
    def http_url(self) -> str:
        """HTTP as this machine reaches it, also where the server listens on every address."""
        return f"http://{join(_reached(self.hosts['--http-port']), self.http_port)}"

    @property
    def metrics_url(self) -> str:
        """The metrics as this machine reaches them."""
        return f"http://{join(_reached(self.hosts['--metrics-port']), self.metrics_port)}/metrics"

    @property
    def grpc_url(self) -> str:
        """The gRPC endpoint as this machine reaches it."""
        return join(_reached(self.host), self.grpc_port)

    def resolved(self) -> ServeOptions:
        """The same with numbers for the names of hosts; `ServerError` where it cannot listen on one of the ports."""
        numbers = {option: resolve(self.hosts[option], port, option) for option, port in self.ports.items()}
        return replace(
            self,
            host=numbers["--grpc-port"],
            http_host=numbers["--http-port"],
            metrics_host=numbers["--metrics-port"],
        )

    def arguments(self, repository: Path, shm_prefix: str) -> list[str]:
        """Tritonserver's arguments, without those of model control and the hidden ones."""
        return [
            f"--model-repository={repository}",
            f"--http-address={_for_libevent(self.hosts['--http-port'])}",
            f"--http-port={self.http_port}",
            f"--grpc-address={f'[{self.host}]' if ':' in self.host else self.host}",
            f"--grpc-port={self.grpc_port}",
            f"--metrics-address={_for_libevent(self.hosts['--metrics-port'])}",
            f"--metrics-port={self.metrics_port}",
            f"--exit-timeout-secs={self.exit_timeout_s}",
            "--disable-auto-complete-config",
            "--allow-gpu-metrics=false",
            # The headers that a model gets, as parameters of the request: the caller's trace (W3C), name and secret.
            f"--grpc-header-forward-pattern={FORWARDED}",
            f"--http-header-forward-pattern={FORWARDED}",
            f"--backend-config=python,shm-region-prefix-name={shm_prefix}",
            *self.connections.arguments(),
            *(self.tls.arguments() if self.tls else []),
        ]


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches *host*."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _reached(host: str) -> str:
    return {"0.0.0.0": LOOPBACK, "::": "::1"}.get(host, host)  # noqa: S104 - compared, not listened on


def _for_libevent(host: str) -> str:
    """*host* as tritonserver's HTTP server takes it."""
    return f"ipv6:{host}" if ":" in host else host

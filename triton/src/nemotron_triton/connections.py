"""How the server keeps its gRPC connections, as tritonserver's arguments: pings both ways, and an age to end at."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

_DAY_MS = 24 * 3600 * 1000


def _ms(default: int, low: int, about: str) -> Any:
    return dataclasses.field(default=default, metadata={"low": low, "high": _DAY_MS, "about": about})


@dataclass(frozen=True, kw_only=True)
class Connections:
    """Times of a gRPC connection; each field's metadata has its bounds and what it is about."""

    grpc_keepalive_time_ms: int = _ms(30_000, 1000, "silence after which the server pings a client")
    grpc_keepalive_timeout_ms: int = _ms(20_000, 1, "time in which it must answer, or the connection is closed")
    grpc_min_ping_interval_ms: int = _ms(
        1000, 0, "shortest time between the pings of a client; on one that pings more often the server hangs up"
    )
    grpc_max_connection_age_ms: int = _ms(
        300_000, 0, "age at which a connection takes no new requests, so that its client makes another; 0 is no limit"
    )
    grpc_max_connection_age_grace_ms: int = _ms(
        0, 0, "time that the requests on such a connection get before they are cut off; 0 is no limit"
    )

    def arguments(self) -> list[str]:
        """Tritonserver's arguments."""
        return [
            f"--grpc-keepalive-time={self.grpc_keepalive_time_ms}",
            f"--grpc-keepalive-timeout={self.grpc_keepalive_timeout_ms}",
            # Also while a request waits, or none runs: it is then that a connection is forgotten on the way.
            "--grpc-keepalive-permit-without-calls=1",
            "--grpc-http2-max-pings-without-data=0",
            f"--grpc-http2-min-recv-ping-interval-without-data={self.grpc_min_ping_interval_ms}",
            # tritonserver takes 0 for its default, which is no limit.
            f"--grpc-max-connection-age={self.grpc_max_connection_age_ms}",
            f"--grpc-max-connection-age-grace={self.grpc_max_connection_age_grace_ms}",
        ]

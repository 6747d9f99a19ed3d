"""Typed gRPC client of the `nemotron` Triton model.

Importing this package is cheap: gRPC is loaded when `Client` is first asked for, so that the server's adapters can
share `nemotron_client.wire` and `nemotron_client.events`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nemotron_client.errors import (
    ClientError,
    DeadlineExceeded,
    RequestRejected,
    ServerUnavailable,
    StreamBroken,
)
from nemotron_client.events import ContentDelta, Event, Finish, Problem, ReasoningDelta, Reply, ToolCall, Usage

if TYPE_CHECKING:
    from nemotron_client.client import Client

__all__ = [
    "Client",
    "ClientError",
    "ContentDelta",
    "DeadlineExceeded",
    "Event",
    "Finish",
    "Problem",
    "ReasoningDelta",
    "Reply",
    "RequestRejected",
    "ServerUnavailable",
    "StreamBroken",
    "ToolCall",
    "Usage",
]


def __getattr__(name: str) -> Any:
    if name == "Client":
        from nemotron_client.client import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Typed gRPC client of the `nemotron` Triton model.

Importing this package is cheap: gRPC is loaded when `Client` or `AsyncClient` is first asked for, so that the server's
adapters can share `nemotron_client.wire` and `nemotron_client.events`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nemotron_client.errors import (
    AccessDenied,
    ClientError,
    DeadlineExceeded,
    InvalidArguments,
    InvalidRequest,
    RequestRejected,
    ServerUnavailable,
    StreamBroken,
    ToolError,
    ToolFailed,
    TooManyTurns,
    UnknownTool,
)
from nemotron_client.events import (
    ContentDelta,
    Event,
    Finish,
    Problem,
    ReasoningDelta,
    Timings,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from nemotron_client.messages import (
    AssistantMessage,
    Message,
    MessageLike,
    SystemMessage,
    ToolMessage,
    UserMessage,
)
from nemotron_client.options import ChatOptions, GenerateOptions
from nemotron_client.reply import Reply
from nemotron_client.run import Run, RunEvent
from nemotron_client.status import EndpointHealth, Health, Model, Prompt
from nemotron_client.streams import AsyncStream, Stream
from nemotron_client.tools import Tool, ToolLike, ToolResult

if TYPE_CHECKING:
    from nemotron_client.async_client import AsyncClient
    from nemotron_client.client import Client

__all__ = [
    "AccessDenied",
    "AssistantMessage",
    "AsyncClient",
    "AsyncStream",
    "ChatOptions",
    "Client",
    "ClientError",
    "ContentDelta",
    "DeadlineExceeded",
    "EndpointHealth",
    "Event",
    "Finish",
    "GenerateOptions",
    "Health",
    "InvalidArguments",
    "InvalidRequest",
    "Message",
    "MessageLike",
    "Model",
    "Problem",
    "Prompt",
    "ReasoningDelta",
    "Reply",
    "RequestRejected",
    "Run",
    "RunEvent",
    "ServerUnavailable",
    "Stream",
    "StreamBroken",
    "SystemMessage",
    "Timings",
    "TooManyTurns",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolError",
    "ToolFailed",
    "ToolLike",
    "ToolMessage",
    "ToolResult",
    "UnknownTool",
    "Usage",
    "UserMessage",
]

_LATE = {"AsyncClient": "nemotron_client.async_client", "Client": "nemotron_client.client"}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = client = getattr(importlib.import_module(_LATE[name]), name)
    return client


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATE})

"""Typed gRPC client of the `nemotron` Triton model.

Importing it loads none of its modules: they are imported when one of its names is first used, so that the server's
adapters share `nemotron_client.wire` and `nemotron_client.events` at no further cost.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nemotron_client.async_client import AsyncClient
    from nemotron_client.client import Client
    from nemotron_client.errors import (
        AccessDenied,
        ClientError,
        DeadlineExceeded,
        InvalidArguments,
        InvalidRequest,
        Refusal,
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
        Logprobs,
        Problem,
        ReasoningDelta,
        Timings,
        TokenLogprob,
        ToolCall,
        ToolCallDelta,
        TopLogprob,
        Usage,
    )
    from nemotron_client.json_text import Json
    from nemotron_client.messages import (
        AssistantMessage,
        Message,
        MessageLike,
        SystemMessage,
        ToolMessage,
        UserMessage,
    )
    from nemotron_client.options import ChatOptions, GenerateOptions, RenderOptions
    from nemotron_client.reply import Reply
    from nemotron_client.run import Run, RunEvent
    from nemotron_client.status import Description, EndpointHealth, Health, Model, Prompt
    from nemotron_client.streams import AsyncStream, Stream
    from nemotron_client.tools import Tool, ToolLike, ToolResult

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
    "Description",
    "EndpointHealth",
    "Event",
    "Finish",
    "GenerateOptions",
    "Health",
    "InvalidArguments",
    "InvalidRequest",
    "Json",
    "Logprobs",
    "Message",
    "MessageLike",
    "Model",
    "Problem",
    "Prompt",
    "ReasoningDelta",
    "Refusal",
    "RenderOptions",
    "Reply",
    "RequestRejected",
    "Run",
    "RunEvent",
    "ServerUnavailable",
    "Stream",
    "StreamBroken",
    "SystemMessage",
    "Timings",
    "TokenLogprob",
    "TooManyTurns",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolError",
    "ToolFailed",
    "ToolLike",
    "ToolMessage",
    "ToolResult",
    "TopLogprob",
    "UnknownTool",
    "Usage",
    "UserMessage",
]

# The modules that define these names, light ones first.
_LATE = (
    "errors",
    "events",
    "json_text",
    "messages",
    "options",
    "status",
    "streams",
    "reply",
    "tools",
    "run",
    "client",
    "async_client",
)

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        modules = (importlib.import_module(f"{__name__}.{module}") for module in _LATE)
        globals()[name] = value = next(getattr(module, name) for module in modules if hasattr(module, name))
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

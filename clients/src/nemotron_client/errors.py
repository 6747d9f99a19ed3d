"""What a call can raise.

ClientError
├── Refusal             the request is wrong: fix the call
│   ├── InvalidRequest    it was not sent, for it cannot be
│   └── RequestRejected   the server answered no
│       └── AccessDenied    it wants another secret, or another certificate
├── ServerUnavailable   nothing answered, or it takes no request now: safe to retry
├── DeadlineExceeded    it answered too late: retry with a longer timeout_s
├── StreamBroken        the answer stopped in the middle: what came before is incomplete
└── ToolError           `run` cannot go on
    ├── UnknownTool       the model called a function that it was not given
    ├── InvalidArguments  the arguments do not fit the function's schema
    ├── ToolFailed        the function raised
    └── TooManyTurns      the model calls functions on and on
"""

from __future__ import annotations

from typing import Literal, TypeAlias

RefusalCode: TypeAlias = Literal[
    "", "invalid_value", "out_of_range", "too_large", "context_length_exceeded", "unsupported"
]


class ClientError(Exception):
    """Base of every error this package raises on purpose.

    `status` is gRPC's name for it, where the server gave one; `request_id` is the request's in the server's log, empty
    where none was sent; `retries` counts how often the client tried again before it gave up. `unreached` is the address
    of the server where nothing came from it.
    """

    status: str = ""
    request_id: str = ""
    retries: int = 0
    unreached: str = ""


class Refusal(ClientError):
    """The request is wrong: do not retry it unchanged.

    `field` is the option or the argument that is wrong, with the place in it (`max_tokens`, `messages[1].content`),
    empty where it is none alone. `value` and `limit` are the numbers of what was too much or too little, and of what it
    may be at most or at least. `code` is one of these, and empty where access was denied:

    invalid_value            none of the others
    out_of_range             a number that is too large or too small
    too_large                too many bytes, characters or entries
    context_length_exceeded  prompt and answer have no room in the model's context; `limit` is that for `field`
    unsupported              the model's engine cannot do it
    """

    def __init__(
        self,
        message: str,
        *,
        field: str = "",
        code: RefusalCode = "invalid_value",
        value: float | None = None,
        limit: float | None = None,
    ) -> None:
        super().__init__(message)
        self.field = field
        self.code = code
        self.value = value
        self.limit = limit


class InvalidRequest(Refusal):
    """The call cannot be sent as it is: fix it."""


class ServerUnavailable(ClientError):
    """Nothing answered, or the server has no room now or is stopping: safe to retry.

    `stopping` is whether the server said that it is stopping.
    """

    stopping: bool = False


class DeadlineExceeded(ClientError):
    """The answer was not complete in time: retry with a longer `timeout_s`."""


class RequestRejected(Refusal):
    """The server refused the request; the message is the server's: do not retry unchanged."""


class AccessDenied(RequestRejected):
    """The server wants another secret, or another client certificate."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="")


class StreamBroken(ClientError):
    """The answer stopped in the middle; what came before is incomplete."""


class ToolError(ClientError):
    """What the model wants to call cannot be called, or failed; `tool` is the name that the model used."""

    def __init__(self, message: str, *, tool: str = "") -> None:
        super().__init__(message)
        self.tool = tool


class UnknownTool(ToolError):
    """The model called a function that it was not given."""


class InvalidArguments(ToolError):
    """The arguments of a call do not fit the function's JSON Schema."""


class ToolFailed(ToolError):
    """The function raised an exception, which is the `__cause__` of this one."""


class TooManyTurns(ToolError):
    """The model still calls functions after as many answers as it may give."""

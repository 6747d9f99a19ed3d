"""What a request says of itself beside its values: its name, the trace it is part of, and for whom it asks."""

from __future__ import annotations

import re
import uuid
from typing import Any

from nemotron_client import wire
from nemotron_client.errors import InvalidRequest
from nemotron_client.options import GenerateOptions

TRACE_HEADER = "traceparent"
_REQUEST_ID = re.compile(r"[!-~]{1,128}")
# Of W3C's Trace Context, level 1; later versions than 00 may have more behind it.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]{1,200})?")
_CALLER = re.compile(r"[!-~]{1,64}")


def is_traceparent(text: str) -> bool:
    """Whether *text* is a header of W3C Trace Context; one that is not counts as left out there."""
    return _TRACEPARENT.fullmatch(text) is not None


def request_id(options: GenerateOptions) -> str:
    """The request's id: that of *options*, or a new one."""
    if (given := options.get("request_id")) is None:
        return uuid.uuid4().hex
    return _checked("request_id", given, _REQUEST_ID, "1 to 128 visible ASCII characters")


def metadata(options: GenerateOptions) -> tuple[tuple[str, str], ...]:
    """The gRPC metadata that *options* ask for; `InvalidRequest` for what no header can hold, or no server takes."""
    headers = []
    if (trace := options.get("traceparent")) is not None:
        headers.append((TRACE_HEADER, _checked("traceparent", trace, _TRACEPARENT, "a header of W3C Trace Context's")))
    if (caller := options.get("caller")) is not None:
        headers.append((wire.CALLER_HEADER, _checked("caller", caller, _CALLER, "1 to 64 visible ASCII characters")))
    return tuple(headers)


def _checked(option: str, value: Any, pattern: re.Pattern[str], meant: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise InvalidRequest(f"{option} is {value!r:.100}; it must be {meant}", field=option)
    return value

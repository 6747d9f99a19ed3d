"""The client's errors, of gRPC statuses and of the messages that servers send inside a stream.

Messages, because the metadata that makes tritonserver send statuses instead (`triton_grpc_error`) crashes versions
before 26.04, one bad request after some hundred. The `nemotron` model begins its messages with the status it means;
what has none is tritonserver's own.
"""

from __future__ import annotations

from typing import Any

from nemotron_client import wire
from nemotron_client.errors import (
    AccessDenied,
    ClientError,
    DeadlineExceeded,
    RequestRejected,
    ServerUnavailable,
    StreamBroken,
)
from nemotron_client.rejection import rejection

# Every status of gRPC but OK. What is unavailable after the first response is broken: it is not safe to ask again.
BY_STATUS: dict[str, type[ClientError]] = {
    "ABORTED": StreamBroken,
    "ALREADY_EXISTS": RequestRejected,
    "CANCELLED": StreamBroken,
    "DATA_LOSS": StreamBroken,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "FAILED_PRECONDITION": RequestRejected,
    "INTERNAL": StreamBroken,
    "INVALID_ARGUMENT": RequestRejected,
    "NOT_FOUND": RequestRejected,
    "OUT_OF_RANGE": RequestRejected,
    "PERMISSION_DENIED": AccessDenied,
    "RESOURCE_EXHAUSTED": ServerUnavailable,
    "UNAUTHENTICATED": AccessDenied,
    "UNAVAILABLE": ServerUnavailable,
    "UNIMPLEMENTED": RequestRejected,
    "UNKNOWN": StreamBroken,
}
# In the answer to a request without a secret, also that of tritonserver itself, which says UNAVAILABLE.
_RESTRICTED = "protocol is restricted"
# The limit of gRPC at the server, which another attempt exceeds too.
_TOO_LARGE = "message larger than max"
# What gRPC says of an answer over HTTP/2 that is none of gRPC.
_FROM_A_PROXY = ("Received http2 header with status", "Data frame with END_STREAM flag", "content-type")
# What tritonserver says of a model that it was started without.
_NO_PREPROCESSING = "unknown model: 'preprocessing' is not found"
# What tritonserver says while it loads a model.
_LOADING = ("has no available versions", "is not ready")
# And while it stops, and when the process of the model has died.
_NOT_SERVING = (*_LOADING, "is exiting", "is not healthy", "Stub process")


def of_message(message: str, url: str, *, started: bool) -> ClientError:
    """The error for *message*, inside a stream of *url*; *started* is whether a response came before it."""
    status, _, text = message.partition(": ")
    if _RESTRICTED in text:
        return _denied(url, status)
    if status not in BY_STATUS:
        text = message
        status = "UNAVAILABLE" if any(part in message for part in _NOT_SERVING) else "INVALID_ARGUMENT"
        if any(part in message for part in _LOADING):
            text = f"the server is loading its model, or could not; {message}"
    messages = {
        StreamBroken: f"{url} broke off the answer: {text}",
        ServerUnavailable: f"{url} takes no request now: {text}",
        DeadlineExceeded: f"{url}: {text}",
    }
    error = _error(status, text, messages, started=started)
    if isinstance(error, ServerUnavailable):
        error.stopping = text.startswith(wire.STOPPING)
    return error


def of_silence(url: str, *, started: bool) -> ClientError:
    """The error of a request on *url* that was broken off because the server went silent."""
    if started:
        return StreamBroken(f"{url} went silent in the middle of the answer")
    return ServerUnavailable(f"{url} went silent: its machine, or the network between, hangs")


def of_status(error: Any, url: str, timeout_s: float, *, started: bool) -> ClientError:
    """The error for a `grpc.RpcError`; *timeout_s* is the time that the request had."""
    status, text = error.code().name, error.details() or "no details"
    if _RESTRICTED in text:
        return _denied(url, status)
    if _NO_PREPROCESSING in text:
        text = f"{url} has no model preprocessing, which renders prompts; start it without --no-text-models"
    elif not started and any(part in text for part in _FROM_A_PROXY):
        text = f"{url} is a web server or a proxy that passes no gRPC on; it answered: {text}"
        kind = BY_STATUS.get(status, RequestRejected)
        return _named((RequestRejected if kind is StreamBroken else kind)(text), status)
    messages = {
        StreamBroken: f"{url} broke off the answer: ({status}) {text}",
        ServerUnavailable: f"{url} is not available: {text}; is it running? start it with `nemotron serve BUNDLE`",
        DeadlineExceeded: f"{url} did not finish within {timeout_s:g} s",
    }
    described = _error(status, text, messages, started=started)
    if isinstance(described, ServerUnavailable) and status == "UNAVAILABLE":
        described.unreached = url
    return described


def _error(status: str, text: str, messages: dict[Any, str], *, started: bool) -> ClientError:
    """What *status* means; *messages* are those of some kinds, all others repeat the server's *text*."""
    kind = BY_STATUS.get(status, StreamBroken)
    if kind is ServerUnavailable and _TOO_LARGE in text:
        kind = RequestRejected
    elif kind is ServerUnavailable and started:
        kind = StreamBroken
    if kind is RequestRejected:
        return _named(rejection(text), status)
    return _named(kind(messages.get(kind, text)), status)


def _denied(url: str, status: str) -> ClientError:
    text = f"{url}: the secret is missing or wrong; give secret, --secret-file or NEMOTRON_SECRET"
    return _named(AccessDenied(text), status)


def _named(error: ClientError, status: str) -> ClientError:
    error.status = status
    return error

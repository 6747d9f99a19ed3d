"""The one place where what went wrong becomes one of our errors: a message inside a stream, or a status that ended it.

Messages, because the metadata that makes tritonserver send statuses instead (`triton_grpc_error`) crashes versions
before 26.04, one bad request after some hundred. The `nemotron` model begins its messages with the status it means;
what has none is tritonserver's own.
"""

from __future__ import annotations

from typing import Any

import grpc

from nemotron_client import wire
from nemotron_client.errors import ClientError, DeadlineExceeded, RequestRejected, ServerUnavailable, StreamBroken

# What tritonserver says, as UNAVAILABLE, to who does not send its secret.
_RESTRICTED = "protocol is restricted"
# What it says while it starts and stops, and when the process of the model has died.
_NOT_SERVING = ("has no available versions", "is not ready", "is exiting")
_DEAD = ("is not healthy", "Stub process")
_REJECTED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.OUT_OF_RANGE,
    # In practice a message over gRPC's limit, which the next attempt is too.
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}


def of_message(message: str, url: str, *, started: bool) -> ClientError:
    """The error that *message*, inside a stream of *url*, tells of; *started* is whether a response came before it."""
    status, _, text = message.partition(": ")
    if status not in wire.STATUSES:
        text = message
        status = "INVALID_ARGUMENT"
        if any(each in message for each in _NOT_SERVING):
            status = "UNAVAILABLE"
        elif any(each in message for each in _DEAD):
            status = "INTERNAL"
    if status == "INVALID_ARGUMENT":
        return RequestRejected(text)
    if status == "DEADLINE_EXCEEDED":
        return DeadlineExceeded(f"{url}: {text}")
    if status == "UNAVAILABLE" and not started:
        return ServerUnavailable(f"{url} takes no request now: {text}")
    return StreamBroken(f"{url} broke off the answer: {text}")


def of_status(error: Any, url: str, timeout_s: float, *, started: bool) -> ClientError:
    """The error that a `grpc.RpcError` stands for; *timeout_s* is the time the request had."""
    code, details = error.code(), error.details() or "no details"
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded(f"{url} did not finish within {timeout_s:g} s")
    if code in _REJECTED or _RESTRICTED in details:
        return RequestRejected(details)
    if code != grpc.StatusCode.UNAVAILABLE or started:
        return StreamBroken(f"{url} broke off the answer ({code.name}): {details}")
    return ServerUnavailable(f"{url} is not available: {details}; is it running? start it with `nemotron serve BUNDLE`")

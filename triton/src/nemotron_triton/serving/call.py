"""One request while it is being answered: its way back to the client, and the ways in which it can end early."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Mapping
from typing import Any

from nemotron_client import wire
from nemotron_triton.errors import (
    ClientGoneError,
    DeadlineError,
    OverloadedError,
    RequestError,
    ServingError,
)
from nemotron_triton.serving.record import Outcome, RequestRecord

_INPUTS = {tensor.name: tensor for tensor in wire.INPUTS}
INTERNAL = "internal error; the server's log has the details"
_MAX_ERROR_CHARACTERS = 2000
# How an error ends a request, and the name of Triton's code for it; the first that fits.
_ENDINGS: tuple[tuple[type[ServingError], Outcome, str], ...] = (
    (RequestError, "invalid", "INVALID_ARG"),
    (OverloadedError, "rejected", "UNAVAILABLE"),
    (DeadlineError, "deadline", "CANCELLED"),
    (ClientGoneError, "cancelled", "CANCELLED"),
)
_INTERNAL_ENDING: tuple[Outcome, str] = ("failed", "INTERNAL")


class Call:
    """A request and its response sender. A FINAL goes out exactly once, whatever happens."""

    def __init__(self, request: Any, pb_utils: Any) -> None:
        """Takes over Triton's *request*, whose tensors are read later."""
        self.record = RequestRecord(request_id=request.request_id())
        self.timeout_ms = request.timeout() / 1000
        self.task: asyncio.Task[None] | None = None
        self.why: ServingError | None = None
        self._request = request
        self._pb = pb_utils
        self._sender = request.get_response_sender()
        # tritonserver must not be asked about a request that it was told is over.
        self._lock = threading.Lock()
        self._over = False

    def values(self) -> Mapping[str, Any]:
        """The values of its tensors, by name; `RequestError` names one that cannot be read."""
        request, self._request = self._request, None
        if parameters := request.parameters():
            traceparent = json.loads(parameters).get("traceparent", "")
            self.record.traceparent = traceparent if isinstance(traceparent, str) else ""
        try:
            return {given.name(): wire.read(_INPUTS[given.name()], given.as_numpy()) for given in request.inputs()}
        except ValueError as error:
            raise RequestError(str(error)) from error

    def stop(self, why: ServingError) -> None:
        """End it early because of *why*; on the event loop. Does nothing when it has ended or is ending."""
        if self.task and not self.why and not self.task.done():
            self.why = why
            self.task.cancel()

    def send(self, response: Mapping[wire.Tensor, Any], *, final: bool) -> None:
        """Send one response."""
        tensors = [self._pb.Tensor(tensor.name, wire.array(tensor, value)) for tensor, value in response.items()]
        self._send(self._pb.InferenceResponse(output_tensors=tensors), final=final)
        self.record.responses += 1

    def fail(self, error: ServingError | None) -> None:
        """Answer with *error*, or with a bare internal one; on any thread. Does nothing when it is over."""
        outcome, code = next(
            ((outcome, code) for kind, outcome, code in _ENDINGS if isinstance(error, kind)), _INTERNAL_ENDING
        )
        if not self._over:
            self.record.outcome = outcome
            self.record.error = str(error or INTERNAL)
            failure = triton_error(self._pb, self.record.error, getattr(self._pb.TritonError, code))
            self._send(self._pb.InferenceResponse(output_tensors=[], error=failure), final=True)

    def is_abandoned(self) -> bool:
        """Whether its client has gone away; asks tritonserver, so not on the event loop."""
        with self._lock:
            return not self._over and bool(self._sender.is_cancelled())

    def _send(self, response: Any, *, final: bool) -> None:
        with self._lock:
            self._over = final
            self._sender.send(response, flags=self._pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL if final else 0)


def triton_error(pb_utils: Any, message: str, code: int) -> Any:
    """An error that gRPC can carry: valid UTF-8, and short enough for a status."""
    return pb_utils.TritonError(message.encode("utf-8", "backslashreplace").decode()[:_MAX_ERROR_CHARACTERS], code)

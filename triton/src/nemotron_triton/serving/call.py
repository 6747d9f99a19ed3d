"""One request while it is being answered: its way back to the client, and the ways in which it can end early."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from dataclasses import dataclass
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
from nemotron_triton.serving.responses import Response
from nemotron_triton.serving.values import Values, byte_count

_INPUTS = {tensor.name: tensor for tensor in wire.INPUTS}
INTERNAL = "internal error; the server's log has the details"
# gRPC writes a byte of a message that is not ASCII as three, and clients take 8 KiB of such headers.
_MAX_ERROR_BYTES = 2000
_MAX_ID_CHARACTERS = 256
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Ending:
    """How an error ends a request: for the record, in gRPC's words, and as the nearest of Triton's codes."""

    outcome: Outcome
    status: str
    code: str


# The first that fits; what nobody foresaw is INTERNAL too.
_ENDINGS: tuple[tuple[type[ServingError], _Ending], ...] = (
    (RequestError, _Ending("invalid", "INVALID_ARGUMENT", "INVALID_ARG")),
    (OverloadedError, _Ending("rejected", "UNAVAILABLE", "UNAVAILABLE")),
    (DeadlineError, _Ending("deadline", "DEADLINE_EXCEEDED", "CANCELLED")),
    (ClientGoneError, _Ending("cancelled", "CANCELLED", "CANCELLED")),
)
_INTERNAL_ENDING = _Ending("failed", "INTERNAL", "INTERNAL")


class Call:
    """A request and its response sender. A FINAL goes out exactly once, whatever happens."""

    def __init__(self, sender: Any, pb_utils: Any) -> None:
        """Answers through Triton's response *sender*."""
        self.record = RequestRecord(request_id="")
        self.timeout_ms = 0.0
        self.size_bytes = 0
        # How many of its answers are complete, and whether the last response was sent.
        self.complete_answers = 0
        self.finished = False
        self.task: asyncio.Task[None] | None = None
        self.why: ServingError | None = None
        self._pb = pb_utils
        self._sender = sender
        # tritonserver must not be asked about a request that it was told is over.
        self._final = threading.Lock()

    def identify(self, request: Any) -> None:
        """Read what does not depend on its tensors."""
        self.timeout_ms = request.timeout() / 1000
        try:
            self.record.request_id = request.request_id()[:_MAX_ID_CHARACTERS]
            traceparent = json.loads(request.parameters() or "{}").get("traceparent", "")
        except ValueError as error:
            raise RequestError("the request's id, or its parameters, are not UTF-8") from error
        self.record.traceparent = traceparent if isinstance(traceparent, str) else ""

    def read(self, request: Any) -> Values:
        """The values of its tensors; `RequestError` names one that cannot be read."""
        tensors = ((_INPUTS[given.name()], given) for given in request.inputs())
        try:
            values = {tensor: wire.read(tensor, given.as_numpy()) for tensor, given in tensors}
        except ValueError as error:
            raise RequestError(str(error)) from error
        for value in values.values():
            texts = value if isinstance(value, tuple) else (value,)
            self.size_bytes += sum(byte_count(text) for text in texts if isinstance(text, str))
        return values

    def stop(self, why: ServingError) -> None:
        """End it early because of *why*; on the event loop. Does nothing when it has ended or is ending."""
        if self.task and not self.why and not self.task.done():
            self.why = why
            self.task.cancel()

    def send(self, response: Response, *, final: bool) -> None:
        """Send one response."""
        tensors = [self._pb.Tensor(tensor.name, wire.array(tensor, value)) for tensor, value in response.items()]
        self._send(self._pb.InferenceResponse(output_tensors=tensors), final=final)
        self.record.responses += 1
        if final:
            self.record.outcome = "ok"

    def end(self, error: ServingError | None) -> None:
        """Answer with *error*, or with a bare internal one, unless the last response was sent; on any thread."""
        if self.finished:
            return
        ending = next((ending for kind, ending in _ENDINGS if isinstance(error, kind)), _INTERNAL_ENDING)
        self.record.outcome = ending.outcome
        self.record.error = str(error or INTERNAL)
        message = f"{ending.status}: {self.record.error}"
        failure = triton_error(self._pb, message, getattr(self._pb.TritonError, ending.code))
        self._send(self._pb.InferenceResponse(output_tensors=[], error=failure), final=True)

    def is_abandoned(self) -> bool:
        """Whether its client is known to have gone away; asks tritonserver, so not on the event loop."""
        with self._final:
            try:
                return not self.finished and bool(self._sender.is_cancelled())
            except Exception:
                # Whoever asks has the other requests to ask about.
                _log.exception("tritonserver does not say whether request %r is cancelled", self.record.request_id)
                return False

    def _send(self, response: Any, *, final: bool) -> None:
        if not final:
            self._sender.send(response)
            return
        with self._final:
            self._sender.send(response, flags=self._pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            self.finished = True


def triton_error(pb_utils: Any, message: str, code: int) -> Any:
    """An error that gRPC can carry: valid UTF-8, and short enough for a status."""
    encoded = message.encode("utf-8", "backslashreplace")[:_MAX_ERROR_BYTES]
    return pb_utils.TritonError(encoded.decode(errors="ignore"), code)

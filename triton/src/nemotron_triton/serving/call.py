"""One request while it is being answered: what it sends to the client, its time limits, and how it can end early."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine
from typing import Any

from nemotron_client import wire
from nemotron_triton.errors import (
    AccessError,
    CallerLimitError,
    ClientGoneError,
    DeadlineError,
    OverloadedError,
    RequestError,
    ServingError,
)
from nemotron_triton.serving.authentication import Authentication, forwarded_headers
from nemotron_triton.serving.record import Outcome, RequestRecord
from nemotron_triton.serving.responses import Response
from nemotron_triton.serving.settings import Settings
from nemotron_triton.serving.values import Values, byte_count

_INPUTS = {tensor.name: tensor for tensor in wire.INPUTS}
INTERNAL = "internal error; the server's log has the details"
# gRPC writes a byte of a message that is not ASCII as three, and clients take 8 KiB of such headers.
_MAX_ERROR_BYTES = 2000
_MAX_ID_CHARACTERS = 256
_log = logging.getLogger(__name__)
# How an error ends a request, the first kind that fits: its outcome, gRPC's status, and the nearest of Triton's codes.
_ENDINGS: dict[type, tuple[Outcome, str, str]] = {
    RequestError: ("invalid", "INVALID_ARGUMENT", "INVALID_ARG"),
    AccessError: ("denied", "UNAUTHENTICATED", "INVALID_ARG"),
    CallerLimitError: ("throttled", "RESOURCE_EXHAUSTED", "UNAVAILABLE"),
    OverloadedError: ("rejected", "UNAVAILABLE", "UNAVAILABLE"),
    DeadlineError: ("deadline", "DEADLINE_EXCEEDED", "CANCELLED"),
    ClientGoneError: ("cancelled", "CANCELLED", "CANCELLED"),
    object: ("failed", "INTERNAL", "INTERNAL"),
}


class Call:
    """A request and Triton's response *sender* for it. Its FINAL response goes out exactly once, whatever happens.

    `complete_answers` is how many of its answers were sent whole; `why` is what ended it early.
    """

    def __init__(self, sender: Any, pb_utils: Any) -> None:
        self.record = RequestRecord(request_id="")
        self.size_bytes = 0
        self.complete_answers = 0
        self.why: ServingError | None = None
        self._finished = False
        self._timeout_ms = 0.0
        self._task: asyncio.Task[None] | None = None
        self._timers: tuple[asyncio.TimerHandle, ...] = ()
        self._pb = pb_utils
        self._sender = sender
        # tritonserver must not be asked about a request after its FINAL response.
        self._final = threading.Lock()

    def identify(self, request: Any, authentication: Authentication) -> None:
        """Read the id, the time limit, the caller and the trace of the request, but not its tensors.

        Raises `AccessError` for a caller who is not known, and `RequestError`.
        """
        self._timeout_ms = request.timeout() / 1000
        try:
            self.record.request_id = request.request_id()[:_MAX_ID_CHARACTERS]
        except ValueError as error:
            raise RequestError("the request's id is not UTF-8") from error
        headers = forwarded_headers(request)
        self.record.traceparent = headers.get("traceparent", "")
        self.record.caller = authentication.caller(headers)

    def read(self, request: Any) -> Values:
        """The values of its tensors; `RequestError` names one that cannot be read."""
        inputs = ((_INPUTS[tensor.name()], tensor.as_numpy) for tensor in request.inputs())
        try:
            values = {tensor: wire.read(tensor, as_numpy()) for tensor, as_numpy in inputs}
        except ValueError as error:
            raise RequestError(str(error)) from error
        for value in values.values():
            texts = value if isinstance(value, tuple) else (value,)
            self.size_bytes += sum(byte_count(text) for text in texts if isinstance(text, str))
        return values

    def asks_what_is_served(self, request: Any) -> bool:
        """Whether it does, and nothing else; `RequestError` where the tensor for that cannot be read."""
        inputs = request.inputs()
        asked = len(inputs) == 1 and inputs[0].name() == wire.DESCRIBE.name
        return asked and bool(self.read(request)[wire.DESCRIBE])

    def run(self, answer: Coroutine[Any, Any, None], settings: Settings) -> asyncio.Task[None]:
        """Start *answer* on the event loop, and the timers that stop it when it waits or takes too long."""
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(answer)
        queue_ms, limit_ms, whose = settings.max_queue_ms, float(settings.max_request_ms), "the server's"
        if 0 < self._timeout_ms < limit_ms:
            limit_ms, whose = self._timeout_ms, "the request's"
        late = DeadlineError(f"the answer was not complete after {limit_ms:g} ms, {whose} time limit")

        def stop_waiting() -> None:
            # Of several answers to one request, some may wait while others are on their way.
            if self.record.started_s is None:
                self.stop(OverloadedError(f"the request waited {queue_ms} ms and its turn has not come; retry later"))

        self._timers = (
            loop.call_later(limit_ms / 1000, self.stop, late),
            loop.call_later(queue_ms / 1000, stop_waiting),
        )
        return self._task

    def stop(self, why: ServingError) -> None:
        """End it early because of *why*; on the event loop. Does nothing when it has ended or is ending."""
        if self._task and not self.why and not self._task.done():
            self.why = why
            self._task.cancel()

    def send(self, response: Response, *, final: bool) -> None:
        """Send one response."""
        tensors = [self._pb.Tensor(tensor.name, wire.array(tensor, value)) for tensor, value in response.items()]
        self._send(self._pb.InferenceResponse(output_tensors=tensors), final=final)
        self.record.responses += 1
        if final:
            self.record.outcome = "ok"

    def end(self, error: ServingError | None) -> None:
        """Answer with *error*, or with a bare internal one, unless the last response was sent.

        On any thread before `run`, on the event loop after it.
        """
        for timer in self._timers:
            timer.cancel()
        if self._finished:
            return
        self.record.outcome, status, code = next(end for kind, end in _ENDINGS.items() if isinstance(error, kind))
        self.record.error = str(error or INTERNAL)
        failure = triton_error(self._pb, f"{status}: {self.record.error}", getattr(self._pb.TritonError, code))
        self._send(self._pb.InferenceResponse(output_tensors=[], error=failure), final=True)

    def is_abandoned(self) -> bool:
        """Whether its client is known to have gone away; a round trip to tritonserver, so not on the event loop."""
        with self._final:
            try:
                return not self._finished and bool(self._sender.is_cancelled())
            except Exception:
                # The watcher has the other requests to look after.
                _log.exception("tritonserver does not say whether request %r is cancelled", self.record.request_id)
                return False

    def _send(self, response: Any, *, final: bool) -> None:
        if not final:
            self._sender.send(response)
            return
        with self._final:
            self._sender.send(response, flags=self._pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            self._finished = True


def triton_error(pb_utils: Any, message: str, code: int) -> Any:
    """An error that gRPC can carry: valid UTF-8, and short enough for a status."""
    encoded = message.encode("utf-8", "backslashreplace")[:_MAX_ERROR_BYTES]
    return pb_utils.TritonError(encoded.decode(errors="ignore"), code)

"""The `nemotron` Triton model: tensors in, events out, every request on one event loop in a thread of its own.

`execute` only hands requests over. Whatever happens to a request, its response sender gets a FINAL: without one the
client would wait for ever. Triton's `pb_utils` module is a parameter, so that nothing here imports it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nemotron_client import wire
from nemotron_client.events import ContentDelta, Event, Finish, Problem, ReasoningDelta, ToolCall
from nemotron_triton.bundle import Bundle
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.engine.factory import start_engine
from nemotron_triton.errors import EngineError, RequestError, ServingError
from nemotron_triton.serving import guardian
from nemotron_triton.serving.answering import Answering, Cancelled
from nemotron_triton.serving.metrics import EngineMetrics, ProblemMetrics
from nemotron_triton.serving.request import read_request

# A client that went away is noticed within this time; each look costs a message to tritonserver.
CANCEL_POLL_S = 0.05
_INTERNAL = "internal error; the server's log has the details"
_log = logging.getLogger(__name__)


class Service:
    """One loaded bundle behind Triton's three calls: initialize, execute, finalize."""

    @classmethod
    def start(cls, args: dict[str, str], pb_utils: Any) -> Service:
        """What `initialize` does; failures become Triton's own exception with our one line in it."""
        try:
            return cls(Bundle.open(bundle_path(args)), pb_utils)
        except ServingError as error:
            raise pb_utils.TritonModelException(str(error)) from error

    def __init__(self, bundle: Bundle, pb_utils: Any) -> None:
        """Verify and load *bundle*, then start the event loop."""
        bundle.verify()
        codec = TokenCodec(bundle.tokenizer_path)
        self._engine = start_engine(bundle, codec)
        self._profile = bundle.profile
        self._answering = Answering(bundle.profile, bundle.chat_template, codec, self._engine)
        self._pb = pb_utils
        self._metrics = EngineMetrics(pb_utils)
        self._problem_metrics = ProblemMetrics(pb_utils)
        self._open: dict[str, Any] = {}
        self._closing = False
        self._numbers = itertools.count(1)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="nemotron-loop", daemon=True)
        self._thread.start()
        self._guardian = guardian.start()
        self._watcher = asyncio.run_coroutine_threadsafe(self._watch(), self._loop)

    def submit(self, request: Any) -> None:
        """Take over one Triton request; returns at once."""
        sender = request.get_response_sender()
        try:
            values = {
                tensor.name: wire.read(tensor, found.as_numpy())
                for tensor in wire.INPUTS
                if (found := self._pb.get_input_tensor_by_name(request, tensor.name)) is not None
            }
        except ValueError as error:
            self._fail(sender, str(error), self._pb.TritonError.INVALID_ARG)
            return
        except Exception:
            # Raised out of `execute` it would only be logged, and the client would wait for ever.
            _log.exception("request %r cannot be read", request.request_id())
            self._fail(sender, _INTERNAL, self._pb.TritonError.INTERNAL)
            return
        # A name of our own: callers may send the same id twice.
        request_id = f"{next(self._numbers)}-{request.request_id()}"
        asyncio.run_coroutine_threadsafe(self._respond(request_id, values, sender), self._loop)

    def close(self) -> None:
        """What `finalize` does; Triton calls it when no request is left."""
        guardian.stop(self._guardian)
        self._closing = True
        self._watcher.result(timeout=5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)
        self._engine.close()

    async def _respond(self, request_id: str, values: dict[str, Any], sender: Any) -> None:
        """Answer one request, with a FINAL in every case."""
        self._open[request_id] = sender
        codes = self._pb.TritonError
        try:
            await self._answer(request_id, values, sender)
        except RequestError as error:
            self._fail(sender, str(error), codes.INVALID_ARG)
        except Cancelled:
            self._fail(sender, "cancelled: the client went away", codes.CANCELLED)
        except EngineError as error:
            _log.error("request %s: %s", request_id, error)
            self._fail(sender, str(error), codes.INTERNAL)
        except Exception:
            _log.exception("request %s failed", request_id)
            self._fail(sender, _INTERNAL, codes.INTERNAL)
        finally:
            self._open.pop(request_id, None)

    async def _answer(self, request_id: str, values: dict[str, Any], sender: Any) -> None:
        # Off the event loop, as all work that grows with the prompt is: it must not hold up the streams of others.
        request = await asyncio.to_thread(read_request, values, self._profile)
        gathered: list[Event] = []
        async with contextlib.aclosing(self._answering.answer(request, request_id)) as answer:
            async for events in answer:
                gathered += events
                if isinstance(events[-1], Finish) and events[-1].problems:
                    self._note(request_id, events[-1].problems)
                if request.stream or isinstance(events[-1], Finish):
                    self._send(sender, gathered)
                    gathered = []

    def _note(self, request_id: str, problems: Sequence[Problem]) -> None:
        """Log and count what was wrong with an answer; codes and function names only, never its text."""
        _log.warning("request %s: %s", request_id, ", ".join(f"{each.code} {each.function!r}" for each in problems))
        self._problem_metrics.count(problems)

    def _send(self, sender: Any, events: Sequence[Event]) -> None:
        """Send *events*, in one response where the wire's order of fields allows it."""
        for response in _responses(events):
            last = wire.FINISH_REASON in response
            tensors = [self._pb.Tensor(tensor.name, wire.array(tensor, value)) for tensor, value in response.items()]
            flags = self._pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL if last else 0
            sender.send(self._pb.InferenceResponse(output_tensors=tensors), flags=flags)

    def _fail(self, sender: Any, message: str, code: int) -> None:
        response = self._pb.InferenceResponse(output_tensors=[], error=triton_error(self._pb, message, code))
        sender.send(response, flags=self._pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    async def _watch(self) -> None:
        """Cancel in the engine what was cancelled by its client, and keep the metrics current."""
        while not self._closing:
            for request_id, sender in list(self._open.items()):
                try:
                    if sender.is_cancelled():
                        self._engine.cancel(request_id)
                except Exception:
                    # One odd request must not end the watch over all others.
                    _log.exception("request %s can no longer be watched", request_id)
                    self._open.pop(request_id, None)
            self._metrics.update(self._engine.statistics())
            await asyncio.sleep(CANCEL_POLL_S)


def triton_error(pb_utils: Any, message: str, code: int) -> Any:
    """An error that gRPC can carry: valid UTF-8, and short enough for a status."""
    return pb_utils.TritonError(message.encode("utf-8", "backslashreplace").decode()[:2000], code)


def bundle_path(args: dict[str, str]) -> Path:
    """Where the bundle lies in a model repository, from the arguments Triton gives to any of its models."""
    return Path(args["model_repository"]).parent / wire.MODEL_NAME / "1" / "bundle"


def _responses(events: Sequence[Event]) -> list[dict[wire.Tensor, Any]]:
    """*events* as responses of tensor values; clients read reasoning, text, calls, finish of each in this order."""
    responses: list[dict[wire.Tensor, Any]] = []
    for _, group in itertools.groupby(_placed(events), key=lambda placed: placed[0]):
        events = [event for _, event in group]
        texts = [event.text for event in events if isinstance(event, ContentDelta)]
        thoughts = [event.text for event in events if isinstance(event, ReasoningDelta)]
        calls = [event.as_delta() for event in events if isinstance(event, ToolCall)]
        response: dict[wire.Tensor, Any] = {wire.TEXT_OUTPUT: "".join(texts)}
        if thoughts:
            response[wire.REASONING_OUTPUT] = "".join(thoughts)
        if calls:
            response[wire.TOOL_CALLS] = json.dumps(calls, ensure_ascii=False)
        if isinstance(events[-1], Finish):
            response |= _ending(events[-1])
        responses.append(response)
    return responses


def _placed(events: Sequence[Event]) -> Iterator[tuple[int, Event]]:
    """Each event with the number of the response it goes into: a new one where the order within one would be broken."""
    number, place = 0, -1
    for event in events:
        number += _ORDER[type(event)] < place
        place = _ORDER[type(event)]
        yield number, event


def _ending(finish: Finish) -> dict[wire.Tensor, Any]:
    problems = [asdict(problem) for problem in finish.problems]
    return {
        wire.FINISH_REASON: finish.reason,
        wire.NUM_INPUT_TOKENS: finish.usage.input_tokens,
        wire.NUM_OUTPUT_TOKENS: finish.usage.output_tokens,
        wire.NUM_REASONING_TOKENS: finish.usage.reasoning_tokens,
    } | ({wire.PROBLEMS: json.dumps(problems, ensure_ascii=False)} if problems else {})


_ORDER: dict[type[Event], int] = {ReasoningDelta: 0, ContentDelta: 1, ToolCall: 2, Finish: 3}

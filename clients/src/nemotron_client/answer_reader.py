"""The events of one answer from its responses, and whether it ended as an answer should."""

from __future__ import annotations

import json
import time
from typing import Any

from nemotron_client import wire
from nemotron_client.errors import ClientError, StreamBroken
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
from nemotron_client.protocol import unpacked
from nemotron_client.refusals import of_message

_REASONING, _TEXT, _CALLS = wire.REASONING_OUTPUT.name, wire.TEXT_OUTPUT.name, wire.TOOL_CALLS.name
_NO_TEXT = b"\0\0\0\0"


class AnswerReader:
    """Reads what one server sends to one request; a further attempt takes a new one.

    *begin_s* is when the call was made, by `time.monotonic`; *retries* how many attempts went before.
    """

    def __init__(self, url: str, request_id: str, *, begin_s: float, retries: int) -> None:
        self._url = url
        self._request_id = request_id
        self._begin_s = begin_s
        self._retries = retries
        self._first_event_s: float | None = None
        self._first_answer_s: float | None = None
        # What came so far of the arguments of each call; None once it was whole.
        self._calls: dict[int, list[ToolCallDelta] | None] = {}
        self._call_ids: set[str] = set()
        self.failure: ClientError | None = None
        self.started = False
        self.finished = False

    def read(self, message: Any) -> list[Event]:
        """The events in one `ModelStreamInferResponse`, in the order they were generated; `StreamBroken` if it is none.

        An error in it is kept for `end`: the stream is read on to its end, which is near, because to cancel a stream
        that just ends crashes tritonserver before 25.06 (CVE-2025-23322).
        """
        if message.error_message:
            self.failure = self.failure or of_message(message.error_message, self._url, started=self.started)
            return []
        self.started = True
        try:
            return self._events(message.infer_response)
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise StreamBroken(f"{self._url} sent a response that this client cannot read: {error!r:.300}") from error

    def end(self) -> None:
        """Called after the last response; raises what was wrong with the answer."""
        if self.failure:
            raise self.failure
        if not self.finished:
            raise StreamBroken(f"{self._url} ended the answer without a finish reason")

    def _events(self, response: Any) -> list[Event]:
        if self.finished:
            raise ValueError("a response behind the last one")
        # On the path of every token: only the tensors that a response has are looked at, and by their places, because
        # to iterate over a repeated field of protobuf costs as much as all else here.
        outputs, contents = response.outputs, response.raw_output_contents
        if (count := len(outputs)) != len(contents):
            raise ValueError(f"{count} tensors with {len(contents)} contents")
        reasoning = text = _NO_TEXT
        data: dict[str, bytes] = {}
        for place in range(count):
            name, raw = outputs[place].name, contents[place]
            if name == _TEXT:
                text = raw
            elif name == _REASONING:
                reasoning = raw
            else:
                data[name] = raw
        events: list[Event] = []
        if reasoning != _NO_TEXT:
            events.append(ReasoningDelta(unpacked(wire.REASONING_OUTPUT, reasoning)))
            if self._first_event_s is None:
                self._first_event_s = self._elapsed_s()
        if text != _NO_TEXT:
            events.append(ContentDelta(unpacked(wire.TEXT_OUTPUT, text)))
        if raw := data.get(_CALLS):
            for delta in json.loads(unpacked(wire.TOOL_CALLS, raw)):
                events.extend(self._call(delta))
        if self._first_answer_s is None and events and not isinstance(events[-1], ReasoningDelta):
            self._first_answer_s = self._elapsed_s()
            if self._first_event_s is None:
                self._first_event_s = self._first_answer_s
        if raw := data.get(wire.FINISH_REASON.name):
            events.extend(self._whole(index) for index, pieces in self._calls.items() if pieces)
            events.append(self._finish(unpacked(wire.FINISH_REASON, raw), data))
        return events

    def _call(self, delta: Any) -> list[Event]:
        """The piece of a call, and the call where this was its last piece: where its arguments are a JSON document."""
        function = delta["function"]
        piece = ToolCallDelta(
            index=delta["index"],
            arguments_json=function["arguments"],
            id=delta.get("id") or "",
            name=function.get("name") or "",
        )
        pieces = self._calls.setdefault(piece.index, [])
        if pieces is None:
            raise ValueError(f"more arguments for call {piece.index}, which was whole")
        pieces.append(piece)
        # Most calls come in one piece. Where they do not, an object ends with its brace; all else waits for the end.
        if len(pieces) > 1 and not piece.arguments_json.rstrip().endswith("}"):
            return [piece]
        try:
            return [piece, self._whole(piece.index)]
        except json.JSONDecodeError:
            return [piece]

    def _whole(self, index: int) -> ToolCall:
        """The call whose pieces have all come; `JSONDecodeError` when more are missing."""
        pieces = self._calls[index] or []
        arguments_json = "".join(piece.arguments_json for piece in pieces)
        json.loads(arguments_json)
        self._calls[index] = None
        call_id = pieces[0].id
        if not call_id or call_id in self._call_ids:
            raise ValueError(f"call {index} has the id {call_id!r}; each needs one of its own")
        self._call_ids.add(call_id)
        return ToolCall(index=index, id=call_id, name=pieces[0].name, arguments_json=arguments_json)

    def _finish(self, reason: str, data: dict[str, bytes]) -> Finish:
        self.finished = True
        # Not every engine tells, and a server from before the first release has no such tensor.
        cached = data.get(wire.NUM_CACHED_TOKENS.name)
        problems = json.loads(unpacked(wire.PROBLEMS, raw)) if (raw := data.get(wire.PROBLEMS.name)) else ()
        return Finish(
            reason=reason,
            usage=Usage(
                input_tokens=unpacked(wire.NUM_INPUT_TOKENS, data[wire.NUM_INPUT_TOKENS.name]),
                output_tokens=unpacked(wire.NUM_OUTPUT_TOKENS, data[wire.NUM_OUTPUT_TOKENS.name]),
                reasoning_tokens=unpacked(wire.NUM_REASONING_TOKENS, data[wire.NUM_REASONING_TOKENS.name]),
                cached_tokens=unpacked(wire.NUM_CACHED_TOKENS, cached) if cached else None,
            ),
            problems=tuple(Problem(**problem) for problem in problems),
            timings=Timings(
                first_event_s=self._first_event_s, first_answer_s=self._first_answer_s, total_s=self._elapsed_s()
            ),
            retries=self._retries,
            request_id=self._request_id,
        )

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._begin_s

"""The events of one of the answers to a request."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from nemotron_client import wire
from nemotron_client.call_reader import CallReader
from nemotron_client.events import (
    ContentDelta,
    Event,
    Finish,
    Logprobs,
    Problem,
    ReasoningDelta,
    Timings,
    TokenLogprob,
    ToolCallDelta,
    TopLogprob,
    Usage,
)
from nemotron_client.protocol import unpacked

NO_TEXT = b"\0\0\0\0"
_CALLS, _LOGPROBS, _FINISH = wire.TOOL_CALLS.name, wire.LOGPROBS.name, wire.FINISH_REASON.name


class ChoiceReader:
    """Reads the answer number *choice*. *begin_s* is when the call was made, *retries* how many attempts went before.

    `finished` is set by its finish reason, behind which there may be nothing.
    """

    def __init__(self, choice: int, request_id: str, *, begin_s: float, retries: int) -> None:
        self._choice = choice
        self._request_id = request_id
        self._begin_s = begin_s
        self._retries = retries
        self._first_event_s: float | None = None
        self._first_answer_s: float | None = None
        self._calls: dict[int, CallReader] = {}
        self._call_ids: set[str] = set()
        self.finished = False

    def read(self, reasoning: bytes, text: bytes, others: Mapping[str, bytes] | None) -> list[Event]:
        """The events in the tensors of one response, in the order they were generated; log probabilities come first.

        *others* are those that are no text. Raises `LookupError`, `TypeError` or `ValueError` for what is none.
        """
        # On the path of every token.
        if self.finished:
            raise ValueError("a response behind the last one")
        events: list[Event] = []
        if reasoning != NO_TEXT:
            events.append(ReasoningDelta(unpacked(wire.REASONING_OUTPUT, reasoning), self._choice))
            if self._first_event_s is None:
                self._first_event_s = self._elapsed_s()
        if text != NO_TEXT:
            events.append(ContentDelta(unpacked(wire.TEXT_OUTPUT, text), self._choice))
        if others and (raw := others.get(_CALLS)):
            for delta in json.loads(unpacked(wire.TOOL_CALLS, raw)):
                self._call(delta, events)
        if self._first_answer_s is None and events and not isinstance(events[-1], ReasoningDelta):
            self._first_answer_s = self._elapsed_s()
            if self._first_event_s is None:
                self._first_event_s = self._first_answer_s
        if others:
            if raw := others.get(_LOGPROBS):
                tokens = tuple(map(_token, json.loads(unpacked(wire.LOGPROBS, raw))))
                events.insert(0, Logprobs(tokens, self._choice))
            if raw := others.get(_FINISH):
                self._finish(unpacked(wire.FINISH_REASON, raw), others, events)
        return events

    def _call(self, delta: Any, events: list[Event]) -> None:
        """The piece of a call, and before it a call that it shows to be whole, or behind it its own."""
        function = delta["function"]
        piece = ToolCallDelta(
            index=delta["index"],
            arguments_json=function["arguments"],
            id=delta.get("id") or "",
            name=function.get("name") or "",
            choice=self._choice,
        )
        if (call := self._calls.get(piece.index)) is None:
            self._end_calls(events)
            call = self._calls[piece.index] = CallReader()
            if piece.id in self._call_ids:
                raise ValueError(f"call {piece.index} has the id {piece.id!r}; each needs one of its own")
            self._call_ids.add(piece.id)
        events.append(piece)
        if whole := call.add(piece):
            events.append(whole)

    def _end_calls(self, events: list[Event]) -> bool:
        """Add the calls that are known to be whole now that something else comes; whether all are."""
        events += [whole for call in self._calls.values() if (whole := call.end())]
        return all(call.whole for call in self._calls.values())

    def _finish(self, reason: str, others: Mapping[str, bytes], events: list[Event]) -> None:
        problems = json.loads(unpacked(wire.PROBLEMS, raw)) if (raw := others.get(wire.PROBLEMS.name)) else ()
        if not self._end_calls(events) and not problems:
            raise ValueError("the arguments of a call are no JSON, and no problem says so")
        self.finished = True
        # Not every engine tells, and a server from before the first release has no such tensor.
        cached = others.get(wire.NUM_CACHED_TOKENS.name)
        stop = others.get(wire.STOP_REASON.name)
        cut = others.get(wire.THINKING_CUT.name)
        finish = Finish(
            reason=reason,
            usage=Usage(
                input_tokens=unpacked(wire.NUM_INPUT_TOKENS, others[wire.NUM_INPUT_TOKENS.name]),
                output_tokens=unpacked(wire.NUM_OUTPUT_TOKENS, others[wire.NUM_OUTPUT_TOKENS.name]),
                reasoning_tokens=unpacked(wire.NUM_REASONING_TOKENS, others[wire.NUM_REASONING_TOKENS.name]),
                cached_tokens=unpacked(wire.NUM_CACHED_TOKENS, cached) if cached else None,
            ),
            problems=tuple(Problem(**problem) for problem in problems),
            stop_reason=json.loads(unpacked(wire.STOP_REASON, stop)) if stop else None,
            thinking_cut=unpacked(wire.THINKING_CUT, cut) if cut else False,
            choice=self._choice,
            timings=Timings(
                first_event_s=self._first_event_s, first_answer_s=self._first_answer_s, total_s=self._elapsed_s()
            ),
            retries=self._retries,
            request_id=self._request_id,
        )
        events.append(finish)

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._begin_s


def _token(token: Any) -> TokenLogprob:
    # A server from before the second release does not say the part.
    top = tuple([TopLogprob(top["token"], top["logprob"], bytes(top["bytes"])) for top in token["top_logprobs"]])
    return TokenLogprob(token["token"], token["logprob"], bytes(token["bytes"]), top, token.get("part", ""))

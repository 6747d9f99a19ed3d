"""One answer on its way to the client: its events sent as they come, or gathered and sent whole."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from nemotron_client import wire
from nemotron_client.events import ContentDelta, Event, Finish, ReasoningDelta, ToolCall, ToolCallDelta
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.serving.answering import Prepared, Step
from nemotron_triton.serving.call import Call
from nemotron_triton.serving.responses import Response, in_order, logprob_tensors, whole
from nemotron_triton.serving.token_parts import ScoredToken


class Delivery:
    """The answer number *index* to one request; the last of them to finish ends the request.

    `awaited` is whether its reader waits for the first of it; nobody waits for the parts of an answer that is sent
    whole.
    """

    def __init__(self, call: Call, prepared: Prepared, index: int, codec: TokenCodec) -> None:
        self._call = call
        self._request = prepared.request
        self._index = index
        self._codec = codec
        self.awaited = prepared.request.stream
        self._events: list[Event] = []
        self._tokens: list[ScoredToken] = []
        self._cum_logprob = 0.0

    def take(self, step: Step) -> None:
        """Send *step*, or keep it until the answer is whole."""
        self._note(step)
        if not self._request.include_reasoning:
            step = replace(step, events=[event for event in step.events if not isinstance(event, ReasoningDelta)])
            if not step.events:
                # What is hidden keeps nobody waiting.
                self.awaited = False
                return
        finished = bool(step.events) and isinstance(step.events[-1], Finish)
        if self._request.stream:
            events = step.events
            if self._request.stream_tool_calls:
                # All of a call is in its deltas.
                events = [event for event in events if not isinstance(event, ToolCall)]
            self._send(in_order(events), step.tokens, final=finished)
            return
        self._events += step.events
        self._tokens += step.tokens
        if finished:
            # Only here: the record of the answer does not hold its prompt.
            echo = [ContentDelta(self._request.text)] if self._request.echo else []
            self._send([whole([*echo, *self._events])], self._tokens, final=True)

    def _send(self, responses: list[Response], tokens: Sequence[ScoredToken], *, final: bool) -> None:
        if tokens:
            tensors = logprob_tensors(self._codec, tokens, self._cum_logprob)
            self._cum_logprob = tensors[wire.CUM_LOG_PROBS][0]
            responses[0] |= tensors
        self.awaited = False
        self._call.complete_answers += final
        last = final and self._call.complete_answers == self._request.choices
        for number, response in enumerate(responses, start=1):
            if self._request.choices > 1:
                response[wire.SEQUENCE_INDEX] = self._index
            self._call.send(response, final=last and number == len(responses))

    def _note(self, step: Step) -> None:
        record = self._call.record
        record.repairs += step.repairs
        for event in step.events:
            if record.first_answer_token_s is None and isinstance(event, ContentDelta | ToolCallDelta | ToolCall):
                record.first_answer_token_s = time.monotonic()
            if record.answer_text is not None and isinstance(event, ReasoningDelta | ContentDelta):
                record.answer_text += event.text
            if isinstance(event, ToolCall):
                record.tool_calls += 1
            elif isinstance(event, Finish):
                record.finish_reasons.append(event.reason)
                record.problems += event.problems
                record.output_tokens += event.usage.output_tokens
                record.reasoning_tokens += event.usage.reasoning_tokens

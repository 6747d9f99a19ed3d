"""Events as Triton responses: which tensors they become, in how many responses. Does not use Triton.

A client reads reasoning, text, calls, finish of one response in this order, so a stream begins a new response where
that order would be broken; a whole answer is one response.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, TypeAlias

from nemotron_client import wire
from nemotron_client.events import ContentDelta, Event, Finish, ReasoningDelta, ToolCall, ToolCallDelta
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.serving.token_parts import ScoredToken

Response: TypeAlias = dict[wire.Tensor, Any]

_ORDER: dict[type[Event], int] = {ReasoningDelta: 0, ContentDelta: 1, ToolCall: 2, ToolCallDelta: 2, Finish: 3}


def whole(events: Sequence[Event]) -> Response:
    """All of *events* in one response."""
    # The usual case, text that goes on, first: this runs for every response of every stream.
    if len(events) == 1 and isinstance(events[0], ContentDelta):
        return {wire.TEXT_OUTPUT: events[0].text}
    response: Response = {
        wire.TEXT_OUTPUT: "".join([event.text for event in events if isinstance(event, ContentDelta)])
    }
    if thoughts := "".join([event.text for event in events if isinstance(event, ReasoningDelta)]):
        response[wire.REASONING_OUTPUT] = thoughts
    if calls := [call_delta(event) for event in events if isinstance(event, ToolCall | ToolCallDelta)]:
        response[wire.TOOL_CALLS] = json.dumps(calls, ensure_ascii=False)
    if events and isinstance(finish := events[-1], Finish):
        response[wire.FINISH_REASON] = finish.reason
        response[wire.NUM_INPUT_TOKENS] = finish.usage.input_tokens
        response[wire.NUM_OUTPUT_TOKENS] = finish.usage.output_tokens
        response[wire.NUM_REASONING_TOKENS] = finish.usage.reasoning_tokens
        if finish.usage.cached_tokens is not None:
            response[wire.NUM_CACHED_TOKENS] = finish.usage.cached_tokens
        if finish.stop_reason is not None:
            response[wire.STOP_REASON] = json.dumps(finish.stop_reason, ensure_ascii=False)
        if finish.thinking_cut:
            response[wire.THINKING_CUT] = True
        if finish.problems:
            response[wire.PROBLEMS] = json.dumps([asdict(problem) for problem in finish.problems], ensure_ascii=False)
    return response


def call_delta(event: ToolCall | ToolCallDelta) -> dict[str, Any]:
    """A call, or a piece of one, in the shape of an OpenAI stream delta; id and name are in the first piece."""
    if isinstance(event, ToolCall):
        return event.as_delta()
    if not event.id:
        return {"index": event.index, "function": {"arguments": event.arguments_json}}
    function = {"name": event.name, "arguments": event.arguments_json}
    return {"index": event.index, "id": event.id, "type": "function", "function": function}


def in_order(events: Sequence[Event]) -> list[Response]:
    """*events* in as few responses as keep their order."""
    if len(events) < 2:
        return [whole(events)]
    groups: list[list[Event]] = []
    place = math.inf
    for event in events:
        if _ORDER[type(event)] < place:
            groups.append([])
        place = _ORDER[type(event)]
        groups[-1].append(event)
    return [whole(group) for group in groups]


def logprob_tensors(codec: TokenCodec, tokens: Sequence[ScoredToken], before: float) -> Response:
    """The tensors with the log probabilities of *tokens*; *before* is the sum of those that were sent already.

    One that the engine does not know is NaN, and null in the JSON, as is that of a token of probability 0.
    """
    values = [token.logprob.logprob for token in tokens]
    described = [
        {
            **_token(codec, token.id, token.logprob.logprob),
            "top_logprobs": [_token(codec, *top) for top in token.logprob.top],
            "part": token.part,
        }
        for token in tokens
    ]
    return {
        wire.OUTPUT_LOG_PROBS: [[math.nan if value is None else value for value in values]],
        wire.CUM_LOG_PROBS: [before + sum(value for value in values if value is not None)],
        wire.LOGPROBS: json.dumps(described, ensure_ascii=False),
    }


def _token(codec: TokenCodec, token_id: int, logprob: float | None) -> dict[str, Any]:
    raw = codec.bytes_of(token_id)
    # JSON has no infinity.
    finite = logprob if logprob is not None and math.isfinite(logprob) else None
    return {"token": raw.decode("utf-8", "replace"), "logprob": finite, "bytes": list(raw)}

"""What an answer is made of: the server's parser makes these events, the client yields them.

`choice` says which of several answers to a request (`n`) an event is of, from 0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias


@dataclass(frozen=True)
class ReasoningDelta:
    """The next piece of the model's thinking."""

    text: str
    choice: int = 0


@dataclass(frozen=True)
class ContentDelta:
    """The next piece of the answer."""

    text: str
    choice: int = 0


@dataclass(frozen=True, kw_only=True)
class ToolCallDelta:
    """The next piece of a call's arguments, as it arrives; `index` says of which call.

    The first piece of a call carries `id` and `name`. When the last one is there, the whole `ToolCall` follows.
    """

    index: int
    arguments_json: str
    id: str = ""
    name: str = ""
    choice: int = 0


@dataclass(frozen=True, kw_only=True)
class ToolCall:
    """A complete call: `index` counts the calls of one answer from 0, and `id` is unique.

    `arguments_json` is valid JSON as the model wrote it, so no number has been rounded; `arguments` is its value.
    """

    index: int
    id: str
    name: str
    arguments_json: str
    choice: int = 0

    @property
    def arguments(self) -> Any:
        """The arguments as a dict; another JSON value only where the `Finish` names `invalid_arguments`."""
        return json.loads(self.arguments_json)

    def as_openai(self) -> dict[str, Any]:
        """The call as an OpenAI message holds it; `arguments` is a JSON string there."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments_json}}

    def as_delta(self) -> dict[str, Any]:
        """The call as the wire carries it, in the shape of an OpenAI stream delta."""
        return {"index": self.index} | self.as_openai()

    @classmethod
    def from_delta(cls, delta: Mapping[str, Any]) -> ToolCall:
        """The reverse of `as_delta`; `KeyError`, `TypeError` or `ValueError` when *delta* is not one."""
        function = delta["function"]
        json.loads(function["arguments"])
        return cls(index=delta["index"], id=delta["id"], name=function["name"], arguments_json=function["arguments"])


@dataclass(frozen=True)
class TopLogprob:
    """One of the likeliest tokens at a place; see `TokenLogprob`."""

    token: str
    logprob: float | None
    bytes: bytes


@dataclass(frozen=True)
class TokenLogprob:
    """A token that was generated, its log probability (natural, of the model's distribution), and the likeliest ones.

    `logprob` is None for a token of probability 0, or where the engine does not tell. `token` has U+FFFD where its
    `bytes` are a part of a character. `part` is what it belongs to, tags included: `reasoning`, `content` or
    `tool_call`; empty where the server does not tell.
    """

    token: str
    logprob: float | None
    bytes: bytes
    top: tuple[TopLogprob, ...] = ()
    part: str = ""


@dataclass(frozen=True)
class Logprobs:
    """The log probabilities of the next tokens, where they are asked for: one for each, also those without text.

    They come before the events that the tokens made certain, and after those of the tokens before them.
    """

    tokens: tuple[TokenLogprob, ...]
    choice: int = 0


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that was wrong with the model's answer.

    truncated_tool_call      the token limit fell inside a call
    invalid_tool_call        call markup that cannot be read
    missing_name             a call without a usable function name
    unknown_function         the function is not among the request's tools; the call is passed on
    invalid_arguments        the arguments are no object, or break the schema; the call is passed on
    surplus_tool_call        one more call than `parallel_tool_calls: false` allows; it is left out
    tool_choice_unsatisfied  the call that `tool_choice` asked for did not come
    invalid_past_arguments   the arguments of a call among the request's messages are not an object; the prompt has them

    A call of the first three kinds is part of the answer's text; behind a good call it stands in `text` instead.
    """

    code: str
    function: str = ""
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Token counts; reasoning tokens are part of the output tokens.

    `cached_tokens` is the part of the input tokens that the server did not compute, because they were in its KV cache
    from an earlier request; None where its engine does not tell. It is no part of comparisons: the same answer may have
    another one.
    """

    input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cached_tokens: int | None = field(default=None, compare=False)

    @classmethod
    def together(cls, usages: Sequence[Usage]) -> Usage:
        """The usage of a request with several answers: its prompt once, and the tokens of every answer."""
        cached = [usage.cached_tokens for usage in usages if usage.cached_tokens is not None]
        return cls(
            input_tokens=usages[0].input_tokens,
            output_tokens=sum(usage.output_tokens for usage in usages),
            reasoning_tokens=sum(usage.reasoning_tokens for usage in usages),
            # The later ones find what the first has put there.
            cached_tokens=min(cached, default=None),
        )


@dataclass(frozen=True, kw_only=True)
class Timings:
    """How long an answer took as its client saw it, in seconds since the call, attempts that failed included.

    `first_event_s` is the time to the first token (TTFT); `first_answer_s` that to the first piece of the answer, or
    the first call, behind the thinking; None where none came.
    """

    first_event_s: float | None = None
    first_answer_s: float | None = None
    total_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Finish:
    """The end of an answer; `reason` is stop, length or tool_calls, `problems` is what was wrong with it.

    `stop_reason` is the stop word, or the id of the end token, that ended it, where the server tells. `thinking_cut` is
    whether a budget ended the thinking. The client adds its timings, how often it had to try again, and the request's
    id in the server's log.
    """

    reason: str
    usage: Usage
    problems: tuple[Problem, ...] = ()
    stop_reason: str | int | None = None
    thinking_cut: bool = False
    choice: int = 0
    timings: Timings = field(default=Timings(), compare=False)
    retries: int = field(default=0, compare=False)
    request_id: str = field(default="", compare=False)


Event: TypeAlias = ReasoningDelta | ContentDelta | ToolCallDelta | ToolCall | Logprobs | Finish

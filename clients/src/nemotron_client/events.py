"""What an answer is made of: the server's parser makes these events, the client yields them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True)
class ReasoningDelta:
    """The next piece of the model's thinking."""

    text: str


@dataclass(frozen=True)
class ContentDelta:
    """The next piece of the answer."""

    text: str


@dataclass(frozen=True, kw_only=True)
class ToolCall:
    """A complete call: `index` counts the calls of one answer from 0, and `id` is unique.

    `arguments_json` is valid JSON as the model wrote it, so no number has been rounded; `arguments` is its value.
    """

    index: int
    id: str
    name: str
    arguments_json: str

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


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that was wrong with the model's answer.

    truncated_tool_call      the token limit fell inside a call
    invalid_tool_call        call markup that cannot be read
    missing_name             a call without a usable function name
    unknown_function         the function is not among the request's tools; the call is passed on
    invalid_arguments        the arguments are not an object; the call is passed on
    surplus_tool_call        one more call than `parallel_tool_calls: false` allows; it is left out
    tool_choice_unsatisfied  the call that `tool_choice` asked for did not come

    A call of the first three kinds is part of the answer's text; behind a good call it stands in `text` instead.
    """

    code: str
    function: str = ""
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Token counts; reasoning tokens are part of the output tokens."""

    input_tokens: int
    output_tokens: int
    reasoning_tokens: int


@dataclass(frozen=True, kw_only=True)
class Finish:
    """The end of an answer; `reason` is stop, length or tool_calls, `problems` is what was wrong with it."""

    reason: str
    usage: Usage
    problems: tuple[Problem, ...] = ()


Event: TypeAlias = ReasoningDelta | ContentDelta | ToolCall | Finish


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A whole answer. `reasoning` and `content` are None where the model wrote none."""

    reasoning: str | None
    content: str | None
    tool_calls: tuple[ToolCall, ...]
    finish_reason: str
    usage: Usage
    problems: tuple[Problem, ...] = ()

    @classmethod
    def of(cls, events: Iterable[Event]) -> Reply:
        """The fold of a finished stream of events; `ValueError` if the stream holds no `Finish`."""
        reasoning: list[str] = []
        content: list[str] = []
        calls: list[ToolCall] = []
        finish: Finish | None = None
        for event in events:
            if isinstance(event, ReasoningDelta):
                reasoning.append(event.text)
            elif isinstance(event, ContentDelta):
                content.append(event.text)
            elif isinstance(event, ToolCall):
                calls.append(event)
            else:
                finish = event
        if finish is None:
            raise ValueError("these events are not a whole answer: there is no Finish among them")
        return cls(
            reasoning="".join(reasoning) or None,
            content="".join(content) or None,
            tool_calls=tuple(calls),
            finish_reason=finish.reason,
            usage=finish.usage,
            problems=finish.problems,
        )

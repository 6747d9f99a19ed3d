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
    """A complete call: `index` counts the calls of one answer from 0, `id` is unique, `arguments` is parsed JSON."""

    index: int
    id: str
    name: str
    arguments: Mapping[str, Any]

    def as_openai(self) -> dict[str, Any]:
        """The call as an OpenAI message holds it; `arguments` is a JSON string there."""
        arguments = json.dumps(self.arguments, ensure_ascii=False)
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": arguments}}

    def as_delta(self) -> dict[str, Any]:
        """The call as the wire carries it, in the shape of an OpenAI stream delta."""
        return {"index": self.index} | self.as_openai()

    @classmethod
    def from_delta(cls, delta: Mapping[str, Any]) -> ToolCall:
        """The reverse of `as_delta`; `KeyError`, `TypeError` or `ValueError` when *delta* is not one."""
        function = delta["function"]
        arguments = json.loads(function["arguments"])
        return cls(index=delta["index"], id=delta["id"], name=function["name"], arguments=arguments)


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Token counts; reasoning tokens are part of the output tokens."""

    input_tokens: int
    output_tokens: int
    reasoning_tokens: int


@dataclass(frozen=True, kw_only=True)
class Finish:
    """The end of an answer; `reason` is stop, length or tool_calls."""

    reason: str
    usage: Usage


Event: TypeAlias = ReasoningDelta | ContentDelta | ToolCall | Finish


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A whole answer. `reasoning` and `content` are None where the model wrote none."""

    reasoning: str | None
    content: str | None
    tool_calls: tuple[ToolCall, ...]
    finish_reason: str
    usage: Usage

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
        )

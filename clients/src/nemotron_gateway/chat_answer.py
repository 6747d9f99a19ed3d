"""A whole chat completion, put together from the same events as a stream: the two never say different things."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from nemotron_client import ContentDelta, Event, Finish, Logprobs, ReasoningDelta, ToolCallDelta, Usage
from nemotron_gateway.finish import finish_fields
from nemotron_gateway.logprobs import content_logprobs
from nemotron_gateway.usage import openai_usage


class ChatAnswer:
    """Takes the events of one request; `body` has what was written."""

    def __init__(self, completion_id: str, created: int, model: str, *, logprobs: bool) -> None:
        self._head = {"id": completion_id, "object": "chat.completion", "created": created, "model": model}
        self._logprobs = logprobs
        self._choices: dict[int, _Choice] = {}

    def add(self, events: Sequence[Event]) -> None:
        """Take the *events* of one response."""
        for event in events:
            if (choice := self._choices.get(event.choice)) is None:
                choice = self._choices[event.choice] = _Choice()
            choice.add(event)

    def body(self) -> dict[str, Any]:
        """The completion, when all events have come."""
        choices = [self._choice(index, self._choices[index]) for index in sorted(self._choices)]
        usages = [choice.finish.usage for choice in self._choices.values() if choice.finish]
        return {**self._head, "choices": choices, "usage": openai_usage(Usage.together(usages))}

    def _choice(self, index: int, choice: _Choice) -> dict[str, Any]:
        assert choice.finish
        return {
            "index": index,
            "message": choice.message(),
            "logprobs": {"content": choice.tokens, "refusal": None} if self._logprobs else None,
            **finish_fields(choice.finish),
        }


class _Choice:
    def __init__(self) -> None:
        self._reasoning: list[str] = []
        self._content: list[str] = []
        self._calls: dict[int, list[ToolCallDelta]] = {}
        self.tokens: list[dict[str, Any]] = []
        self.finish: Finish | None = None

    def add(self, event: Event) -> None:
        if isinstance(event, ContentDelta):
            self._content.append(event.text)
        elif isinstance(event, ReasoningDelta):
            self._reasoning.append(event.text)
        elif isinstance(event, ToolCallDelta):
            self._calls.setdefault(event.index, []).append(event)
        elif isinstance(event, Logprobs):
            self.tokens += content_logprobs(event)
        elif isinstance(event, Finish):
            self.finish = event

    def message(self) -> dict[str, Any]:
        content, reasoning = "".join(self._content), "".join(self._reasoning)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": content if content or not self._calls else None,
            "refusal": None,
        }
        if reasoning:
            message |= {"reasoning": reasoning, "reasoning_content": reasoning}
        if self._calls:
            message["tool_calls"] = [_call(self._calls[index]) for index in sorted(self._calls)]
        return message


def _call(pieces: Iterable[ToolCallDelta]) -> dict[str, Any]:
    first, *_ = pieces = list(pieces)
    function = {"name": first.name, "arguments": "".join(piece.arguments_json for piece in pieces)}
    return {"id": first.id, "type": "function", "function": function}

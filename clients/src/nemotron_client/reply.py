"""A whole answer, and how one is put together from events."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from nemotron_client.events import (
    ContentDelta,
    Event,
    Finish,
    Problem,
    ReasoningDelta,
    Timings,
    ToolCall,
    Usage,
)
from nemotron_client.messages import AssistantMessage


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A whole answer. `reasoning` and `content` are None where the model wrote none.

    Two replies are equal when the model said the same; timings, retries and the request's id do not count.
    """

    reasoning: str | None
    content: str | None
    tool_calls: tuple[ToolCall, ...]
    finish_reason: str
    usage: Usage
    problems: tuple[Problem, ...] = ()
    timings: Timings = field(default=Timings(), compare=False)
    retries: int = field(default=0, compare=False)
    request_id: str = field(default="", compare=False)

    @property
    def message(self) -> AssistantMessage:
        """The answer as a message to go on with, and its thinking with it where it is not done: where it made calls."""
        return AssistantMessage(self.content, self.tool_calls, self.reasoning if self.tool_calls else None)

    @classmethod
    def of(cls, events: Iterable[Event]) -> Reply:
        """The fold of a finished stream of events; `ValueError` if the stream holds no `Finish`."""
        parts = ReplyParts()
        for event in events:
            parts.add(event)
        return parts.reply()


class ReplyParts:
    """A reply in the making: events in, the `Reply` out."""

    def __init__(self) -> None:
        self._reasoning: list[str] = []
        self._content: list[str] = []
        self._calls: list[ToolCall] = []
        self._finish: Finish | None = None

    @property
    def finished(self) -> bool:
        """Whether the answer has ended."""
        return self._finish is not None

    def add(self, event: Event) -> None:
        """Take the next event."""
        if isinstance(event, ReasoningDelta):
            self._reasoning.append(event.text)
        elif isinstance(event, ContentDelta):
            self._content.append(event.text)
        elif isinstance(event, ToolCall):
            self._calls.append(event)
        elif isinstance(event, Finish):
            self._finish = event

    def reply(self) -> Reply:
        """The whole; `ValueError` before its end."""
        finish = self._finish
        if finish is None:
            raise ValueError("these events are not a whole answer: there is no Finish among them")
        return Reply(
            reasoning="".join(self._reasoning) or None,
            content="".join(self._content) or None,
            tool_calls=tuple(self._calls),
            finish_reason=finish.reason,
            usage=finish.usage,
            problems=finish.problems,
            timings=finish.timings,
            retries=finish.retries,
            request_id=finish.request_id,
        )

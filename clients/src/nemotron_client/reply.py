"""A whole answer, put together from its events."""

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
        events = tuple(events)
        finish = next((event for event in events if isinstance(event, Finish)), None)
        if finish is None:
            raise ValueError("these events are not a whole answer: there is no Finish among them")
        return cls(
            reasoning="".join(event.text for event in events if isinstance(event, ReasoningDelta)) or None,
            content="".join(event.text for event in events if isinstance(event, ContentDelta)) or None,
            tool_calls=tuple(event for event in events if isinstance(event, ToolCall)),
            finish_reason=finish.reason,
            usage=finish.usage,
            problems=finish.problems,
            timings=finish.timings,
            retries=finish.retries,
            request_id=finish.request_id,
        )

"""A whole answer, put together from its events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from nemotron_client.events import (
    ContentDelta,
    Event,
    Finish,
    Logprobs,
    Problem,
    ReasoningDelta,
    Timings,
    TokenLogprob,
    ToolCall,
    Usage,
)
from nemotron_client.messages import AssistantMessage


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A whole answer. `reasoning` and `content` are None where the model wrote none.

    `thinking_cut` is whether a budget (`max_thinking_tokens`, `reasoning_effort`) ended the thinking.

    `logprobs` are those of every token, where they were asked for. Of several answers (`n`), `choices` has them all;
    the reply itself is then the first one, but for its `usage`, in which the output tokens are those of all.

    Two replies are equal when the model said the same; timings, retries and the request's id do not count.
    """

    reasoning: str | None
    content: str | None
    tool_calls: tuple[ToolCall, ...]
    finish_reason: str
    usage: Usage
    problems: tuple[Problem, ...] = ()
    stop_reason: str | int | None = None
    thinking_cut: bool = False
    logprobs: tuple[TokenLogprob, ...] = ()
    timings: Timings = field(default=Timings(), compare=False)
    retries: int = field(default=0, compare=False)
    request_id: str = field(default="", compare=False)
    _choices: tuple[Reply, ...] = field(default=(), repr=False)

    @property
    def choices(self) -> tuple[Reply, ...]:
        """Each of the answers, with a `usage` of its own; one where no more were asked for."""
        return self._choices or (self,)

    @property
    def message(self) -> AssistantMessage:
        """The answer as a message to go on with, and its thinking with it where it is not done: where it made calls."""
        return AssistantMessage(self.content, self.tool_calls, self.reasoning if self.tool_calls else None)

    @classmethod
    def of(cls, events: Iterable[Event]) -> Reply:
        """The fold of a finished stream of events; `ValueError` if the stream holds no `Finish`."""
        events = tuple(events)
        if not any(isinstance(event, Finish) for event in events):
            raise ValueError("these events are not a whole answer: there is no Finish among them")
        choices = sorted({event.choice for event in events})
        if len(choices) == 1:
            return cls._one(events)
        replies = [cls._one([event for event in events if event.choice == choice]) for choice in choices]
        return replace(replies[0], usage=Usage.together([reply.usage for reply in replies]), _choices=tuple(replies))

    @classmethod
    def _one(cls, events: Sequence[Event]) -> Reply:
        finish = next((event for event in events if isinstance(event, Finish)), None)
        if finish is None:
            raise ValueError(f"answer {events[0].choice} is not whole: there is no Finish in it")
        return cls(
            reasoning="".join([event.text for event in events if isinstance(event, ReasoningDelta)]) or None,
            content="".join([event.text for event in events if isinstance(event, ContentDelta)]) or None,
            tool_calls=tuple([event for event in events if isinstance(event, ToolCall)]),
            finish_reason=finish.reason,
            usage=finish.usage,
            problems=finish.problems,
            stop_reason=finish.stop_reason,
            thinking_cut=finish.thinking_cut,
            logprobs=tuple([token for event in events if isinstance(event, Logprobs) for token in event.tokens]),
            timings=finish.timings,
            retries=finish.retries,
            request_id=finish.request_id,
        )

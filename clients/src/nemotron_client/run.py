"""A conversation in which the model's calls were made for it, put together from its events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from nemotron_client.events import Event, Finish
from nemotron_client.messages import MessageLike
from nemotron_client.reply import Reply
from nemotron_client.tools import ToolResult

RunEvent: TypeAlias = Event | ToolResult


@dataclass(frozen=True, kw_only=True)
class Run:
    """A conversation whose calls were made: the model's `replies`, the functions' `results`, in order.

    `messages` is the whole conversation, as it goes on: with what was given before it and the answer at its end.
    """

    replies: tuple[Reply, ...]
    results: tuple[ToolResult, ...]
    messages: tuple[MessageLike, ...]

    @property
    def reply(self) -> Reply:
        """The model's last one."""
        return self.replies[-1]

    @property
    def content(self) -> str | None:
        """The answer."""
        return self.reply.content

    @classmethod
    def of(cls, events: Iterable[RunEvent], messages: Sequence[MessageLike]) -> Run:
        """The fold of a finished stream of events that began with *messages*."""
        parts = RunParts(messages)
        for event in events:
            parts.add(event)
        return parts.run()


class RunParts:
    """A run in the making: events in, the `Run` out. The conversation before them is *messages*."""

    def __init__(self, messages: Sequence[MessageLike]) -> None:
        self.messages = list(messages)
        self.replies: list[Reply] = []
        self._results: list[ToolResult] = []
        self._events: list[Event] = []

    def add(self, event: RunEvent) -> None:
        """Take the next event."""
        if isinstance(event, ToolResult):
            self._results.append(event)
            self.messages.append(event.as_message())
            return
        self._events.append(event)
        if isinstance(event, Finish):
            reply = Reply.of(self._events)
            self._events.clear()
            self.replies.append(reply)
            self.messages.append(reply.message)

    def run(self) -> Run:
        """The whole."""
        return Run(replies=tuple(self.replies), results=tuple(self._results), messages=tuple(self.messages))

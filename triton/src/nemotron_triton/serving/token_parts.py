"""What each token of an answer belongs to: its thinking, its text, or a call. Does not read text itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from nemotron_client.events import ContentDelta, Event, ToolCall, ToolCallDelta
from nemotron_triton.engine.stream import TokenLogprob

Part: TypeAlias = Literal["reasoning", "content", "tool_call"]

_PARTS: dict[type, Part] = {ContentDelta: "content", ToolCall: "tool_call", ToolCallDelta: "tool_call"}


@dataclass(frozen=True)
class ScoredToken:
    """A token with its log probability, and the part of the answer that it belongs to."""

    id: int
    logprob: TokenLogprob
    part: Part


class TokenParts:
    """Takes the tokens one by one, and returns them once it is certain what they belong to.

    A token that begins or ends within the thinking belongs to that. Any other belongs to the first event that comes
    with it or after it: what may be a call is text where it turns out to be none.
    """

    def __init__(self) -> None:
        self._held: list[tuple[int, TokenLogprob]] = []
        self._last: Part = "content"

    def add(
        self, token_id: int, logprob: TokenLogprob, events: Iterable[Event], *, thinking: bool
    ) -> list[ScoredToken]:
        """The tokens that are certain now; *events* came with this one, of the *thinking* or not."""
        self._held.append((token_id, logprob))
        if thinking:
            return self._settled("reasoning")
        return self.settle(events)

    def settle(self, events: Iterable[Event]) -> list[ScoredToken]:
        """The tokens that *events* make certain."""
        part = next((_PARTS[type(event)] for event in events if type(event) in _PARTS), None)
        if part is None:
            return []
        self._last = part
        return self._settled(part)

    def finish(self, events: Iterable[Event]) -> list[ScoredToken]:
        """The last tokens: the end of a call, or text that is not shown, behind the last *events*."""
        return [*self.settle(events), *self._settled(self._last)]

    def _settled(self, part: Part) -> list[ScoredToken]:
        held, self._held = self._held, []
        return [ScoredToken(token_id, logprob, part) for token_id, logprob in held]

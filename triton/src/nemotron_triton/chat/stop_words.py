"""Stop words: an answer's text ends before the first of them, wherever the deltas were cut.

They are looked for in the answer proper; thinking and the arguments of calls may contain them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nemotron_client.events import ContentDelta, Event, ToolCall


class StopWords:
    """Filters the events of one answer. `found` is set at the first stop word, `word`, after which no event passes.

    *words* are not empty; of two that overlap, the one that is complete first ends the text.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.found = False
        self.word: str | None = None
        self._words = tuple(words)
        self._longest = max(map(len, words), default=0)
        self._held = ""

    def filter(self, events: Sequence[Event]) -> list[Event]:
        """*events* without text that may be the beginning of a stop word."""
        if not self._words:
            return list(events)
        passed: list[Event] = []
        for event in events:
            if self.found:
                break
            if isinstance(event, ContentDelta):
                passed += self._text(event)
            elif isinstance(event, ToolCall):
                # A word does not continue behind a call.
                passed += [*self.finish(), event]
            else:
                passed.append(event)
        return passed

    def finish(self) -> list[Event]:
        """The text that was held back, once it can no longer become a stop word."""
        held, self._held = self._held, ""
        return [ContentDelta(held)] if held and not self.found else []

    def _text(self, event: ContentDelta) -> list[Event]:
        text = self._held + event.text
        matches = [(start + len(word), start, word) for word in self._words if (start := text.find(word)) >= 0]
        if matches:
            self.found = True
            _, start, self.word = min(matches)
            text = text[:start]
        else:
            # What may be the beginning of a stop word is held back.
            sizes = range(min(len(text), self._longest - 1), 0, -1)
            size = next((size for size in sizes if any(word.startswith(text[-size:]) for word in self._words)), 0)
            text, self._held = text[: len(text) - size], text[len(text) - size :]
        return [replace(event, text=text)] if text else []

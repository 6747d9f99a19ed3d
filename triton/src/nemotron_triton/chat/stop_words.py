"""Stop words in an answer's text: the text ends before the first of them, wherever the pieces of it were cut.

They are looked for in the answer proper; what a model thinks, and the arguments of its calls, may hold them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nemotron_client.events import ContentDelta, Event, ToolCall


class StopWords:
    """Watches the events of one answer; `found` once a stop word has come, and nothing follows then."""

    def __init__(self, words: Sequence[str]) -> None:
        """*words* are not empty; of two that overlap, the one that is whole first ends the text."""
        self.found = False
        self._words = tuple(words)
        self._longest = max(map(len, words), default=0)
        self._held = ""

    def filter(self, events: Sequence[Event]) -> list[Event]:
        """*events* without what may yet turn out to be the beginning of a stop word."""
        if not self._words:
            return list(events)
        passed: list[Event] = []
        for event in events:
            if self.found:
                break
            if isinstance(event, ContentDelta):
                passed += self._text(event)
            elif isinstance(event, ToolCall):
                # A word that was cut in two by a call is none.
                passed += [*self.finish(), event]
            else:
                passed.append(event)
        return passed

    def finish(self) -> list[Event]:
        """What was held back, once it can no longer become a stop word."""
        held, self._held = self._held, ""
        return [ContentDelta(held)] if held and not self.found else []

    def _text(self, event: ContentDelta) -> list[Event]:
        text = self._held + event.text
        found = [(start + len(word), start) for word in self._words if (start := text.find(word)) >= 0]
        if found:
            self.found = True
            text = text[: min(found)[1]]
        else:
            safe = len(text) - self._begun(text)
            text, self._held = text[:safe], text[safe:]
        return [replace(event, text=text)] if text else []

    def _begun(self, text: str) -> int:
        """How many characters at the end of *text* are the beginning of a stop word."""
        for size in range(min(len(text), self._longest - 1), 0, -1):
            end = text[-size:]
            if any(word.startswith(end) for word in self._words):
                return size
        return 0

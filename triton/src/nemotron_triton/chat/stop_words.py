"""Stop words: an answer's text ends before the first of them, wherever the deltas were cut.

They are looked for in the answer proper; thinking and the arguments of calls may contain them.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopWords:
    """Filters the text of one answer. `word` is set at the first stop word, behind which no text passes.

    *words* are not empty; of two that overlap, the one that is complete first ends the text.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.word: str | None = None
        self._words = tuple(words)
        self._longest = max(map(len, words), default=0)
        self._held = ""

    def take(self, text: str) -> str:
        """What passes, now that *text* came: all but what may be the beginning of a stop word."""
        if self.word is not None:
            return ""
        text = self._held + text
        matches = [(start + len(word), start, word) for word in self._words if (start := text.find(word)) >= 0]
        if matches:
            _, start, self.word = min(matches)
            self._held = ""
            return text[:start]
        sizes = range(min(len(text), self._longest - 1), 0, -1)
        size = next((size for size in sizes if any(word.startswith(text[-size:]) for word in self._words)), 0)
        self._held = text[len(text) - size :]
        return text[: len(text) - size]

    def release(self) -> str:
        """The text that was held back, where no stop word goes on: at a call, and at the end."""
        held, self._held = self._held, ""
        return held

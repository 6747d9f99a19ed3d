"""The text of an answer on its way in and out: end tokens are removed, and whitespace next to markers.

What a marker is, and where one stands, is `answer`'s business.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

from nemotron_triton.chat.fences import Fences
from nemotron_triton.chat.source import tags_of
from nemotron_triton.chat.stop_words import StopWords

_BLANK_LINES = re.compile(r"^\s*[\r\n]")


class VisibleText:
    """Emits text without the whitespace next to markers: trailing whitespace is held until its successor is known.

    *at_marker* says that the text begins at one. `fences` has the code fences in it. Stop words see it with its
    whitespace, but for what stands before its first character.
    """

    def __init__(self, emit: Callable[[str], object], stop_words: StopWords | None = None, *, at_marker: bool) -> None:
        self.fences = Fences()
        self._emit = emit
        self._stop_words = stop_words
        self._blanks: list[str] = []
        self._begun = False
        self._at_marker = at_marker

    def write(self, text: str) -> None:
        """Append *text*, of which nothing is emitted behind a stop word."""
        self.fences.write(text)
        if not self._begun:
            if not text.strip():
                if text:
                    self._blanks.append(text)
                return
            text = "".join([*self._blanks, text])
            if self._at_marker:
                text = _BLANK_LINES.sub("", text, count=1)
            self._begun, self._blanks = True, []
        if self._stop_words:
            text = self._stop_words.take(text)
        self._write(text)

    def marker(self) -> None:
        """Note a marker here. Whitespace between two pieces of the text is kept, whatever stood between them."""
        self._release()
        self._at_marker = True
        if not self._begun:
            self._blanks = []

    def finish(self) -> None:
        """Emit what was held, after the last text."""
        self._release()
        if self._blanks and not self._at_marker:
            self._emit("".join(self._blanks))

    def _write(self, text: str) -> None:
        stopped = self._stop_words is not None and self._stop_words.word is not None
        visible = text if stopped else text.rstrip()
        if visible or (stopped and self._blanks):
            self._emit("".join([*self._blanks, visible]))
            self._at_marker, self._blanks = False, []
            text = text[len(visible) :]
        if text:
            self._blanks.append(text)

    def _release(self) -> None:
        if self._stop_words and (held := self._stop_words.release()):
            self._write(held)


@functools.cache
def _end_pieces(tokens: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join([*map(re.escape, tags_of(*tokens).tags), r"\s+"]))


class EndTokens:
    """Removes end tokens, and whitespace among them, from the end of a text; elsewhere they are text."""

    def __init__(self, tokens: tuple[str, ...]) -> None:
        self._tags = tags_of(*tokens)
        self._piece = _end_pieces(tokens)
        self._ends: list[str] = []
        self._begun = ""

    def feed(self, text: str) -> str:
        """What of the text, now that *text* came, is in front of its end whatever follows."""
        if "<" not in text and not self._begun and not self._ends:
            return text
        text, out, at = self._begun + text, [], 0
        kept = len(text) - self._tags.begun(text)
        self._begun = text[kept:]
        while at < kept:
            match = self._piece.match(text, at, kept) if self._ends else self._tags.pattern.search(text, at, kept)
            if match:
                out.append(text[at : match.start()])
                self._ends.append(match[0])
                at = match.end()
            elif self._ends:
                out += self._ends
                self._ends = []
            else:
                out.append(text[at:kept])
                at = kept
        return "".join(out)

    def finish(self) -> str:
        """What was held, and is no end token after all."""
        return "".join([*self._ends, self._begun]) if self._begun else ""

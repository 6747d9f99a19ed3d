"""Text that arrives in pieces, for parsers written as generators that yield where they need more of it.

A parser calls these methods with `yield from`; each returns as soon as its result is certain, however the text is cut.
Every character is looked at a bounded number of times, and only a possible beginning of a tag is held back.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Generator
from typing import TypeAlias, TypeVar

T = TypeVar("T")
# A piece of parser: yields to wait for text, returns its result.
Wait: TypeAlias = Generator[None, None, T]

BLANKS = re.compile(r"\s+")


class Tags:
    """A set of fixed strings to look for; where one begins another, the longer wins.

    For `until`, a tag's first character occurs only once in it.
    """

    def __init__(self, *tags: str) -> None:
        self.tags = sorted(tags, key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, self.tags)) or "(?!)")
        self.longest = max(map(len, tags), default=0)
        self._firsts = {tag[0] for tag in tags if len(tag) > 1}

    def begun(self, text: str, at: int = 0) -> int:
        """How many characters at the end of *text*, from *at* on, could be the beginning of a tag."""
        size = len(text)
        at = max(at, size - self.longest + 1)
        start = -1
        for first in self._firsts:
            start = max(start, text.rfind(first, at))
        return size - start if start >= 0 and self.could_become(text[start:]) else 0

    def could_become(self, text: str) -> bool:
        """Whether *text* is the beginning of a tag, and shorter than it."""
        size = len(text)
        for tag in self.tags:  # noqa: SIM110 - a generator costs more than the tags
            if size < len(tag) and tag.startswith(text):
                return True
        return False


@functools.cache
def tags_of(*tags: str) -> Tags:
    """The same for the same *tags*: those of profiles and formats, which are few, once and not in every answer."""
    return Tags(*tags)


class Source:
    """One text, read from its beginning to its end.

    `position` counts the characters that were read. `sure_from` is where a reader may look ahead again: up to there it
    did, found nothing, and gave the text back.
    """

    def __init__(self) -> None:
        self.ended = False
        self.cut = False
        self.sure_from = 0
        self._text = ""
        self._at = 0
        self._before = 0
        self._log: list[str] | None = None
        self._complete = False
        self._limit: Tags | None = None
        self._behind = ""

    @property
    def position(self) -> int:
        """How many characters were read."""
        return self._before + self._at

    def feed(self, text: str) -> None:
        """Append *text*."""
        if self._limit:
            text = self._within(self._limit, text)
        # For every piece of every answer.
        at, before = self._at, self._text
        self._text = before[at:] + text if at < len(before) else text
        self._before += at
        self._at = 0

    def end(self, *, cut: bool = False) -> None:
        """Mark the end of the text; *cut* says that it was cut off, and did not end by itself."""
        self._complete, self.cut = True, cut
        if self._limit:
            self.feed("")
        else:
            self.ended = True

    def limit(self, tags: Tags) -> None:
        """Read on as if the text ended before the first of *tags*, until `unlimit`."""
        self._limit, self._behind, self._text = tags, self._text[self._at :], self._text[: self._at]
        self.ended = False
        self.feed("")

    def unlimit(self) -> None:
        """Read on to the end of the text."""
        behind, self._limit, self._behind = self._behind, None, ""
        self.ended = self._complete
        self.feed(behind)

    def unread(self, text: str) -> None:
        """Give back *text*, which was read last."""
        size = len(text)
        if self._at >= size:
            self._at -= size
        else:
            self._before += self._at - size
            self._text = text + self._text[self._at :]
            self._at = 0
        while self._log and size > 0:
            piece = self._log.pop()
            if len(piece) > size:
                self._log.append(piece[:-size])
            size -= len(piece)

    def _within(self, limit: Tags, text: str) -> str:
        """What of *text*, behind what waits already, stands before the *limit*; the rest waits."""
        text = self._behind + text
        match = None if self.ended else limit.pattern.search(text)
        held = len(text) if self.ended else 0 if self._complete else limit.begun(text)
        end = match.start() if match else len(text) - held
        self._behind = text[end:]
        self.ended = self.ended or self._complete or match is not None
        return text[:end]

    def mark(self) -> None:
        """Remember what is read from here on, for `since_mark`."""
        self._log = []

    def since_mark(self) -> str:
        """What was read since the mark, which is removed."""
        read, self._log = "".join(self._log or ()), None
        return read

    def until(self, tags: Tags, out: Callable[[str], object], most: int | None = None) -> Wait[str]:
        """Hand the text before the next tag to *out*, in pieces, and return the tag, read; "" at the end.

        When more than *most* characters come before it, *most* of them are handed out, and "" is returned.
        """
        while True:
            match = tags.pattern.search(self._text, self._at)
            held = 0 if match or self.ended else tags.begun(self._text, self._at)
            end = match.start() if match else len(self._text) - held
            if end > self._at:
                if most is not None:
                    if end - self._at > most:
                        out(self._take(self._at + most))
                        return ""
                    most -= end - self._at
                out(self._take(end))
            if match:
                return self._take(match.end())
            if self.ended:
                return ""
            yield

    def up_to(self, ends: Tags, most: int) -> Wait[tuple[str, str]]:
        """The text before the first of *ends*, and that, both read; when none comes, at most *most* characters and "".

        *ends* are single characters.
        """
        while True:
            if match := ends.pattern.search(self._text, self._at, self._at + most + 1):
                return self._take(match.start()), self._take(match.end())
            if self.ended or len(self._text) - self._at > most:
                return self._take(min(len(self._text), self._at + most)), ""
            yield

    def see(self, tags: Tags) -> Wait[str]:
        """The longest tag that stands right here, unread; "" when there is none."""
        while True:
            here = self._text[self._at : self._at + tags.longest]
            if self.ended or not tags.could_become(here):
                return next((tag for tag in tags.tags if here.startswith(tag)), "")
            yield

    def accept(self, tags: Tags) -> Wait[str]:
        """As `see`, and reads it."""
        tag = yield from self.see(tags)
        return self._take(self._at + len(tag))

    def broken_off(self, tags: Tags) -> None:
        """Read the beginning of a tag in the middle of which the text has ended."""
        if self.ended and tags.could_become(self._text[self._at : self._at + tags.longest]):
            self._take(len(self._text))

    def peek(self) -> Wait[str]:
        """The next character, unread; "" at the end."""
        while self._at == len(self._text) and not self.ended:
            yield
        return self._text[self._at : self._at + 1]

    def one(self) -> Wait[str]:
        """The next character, read; "" at the end."""
        while self._at == len(self._text) and not self.ended:
            yield
        return self._take(min(self._at + 1, len(self._text)))

    def run(self, pattern: re.Pattern[str]) -> Wait[str]:
        """Read the characters here that *pattern*, a repeated class, matches."""
        pieces = []
        while True:
            if match := pattern.match(self._text, self._at):
                pieces.append(self._take(match.end()))
            if self._at < len(self._text) or self.ended:
                return "".join(pieces)
            yield

    def _take(self, end: int) -> str:
        taken = self._text[self._at : end]
        self._at = end
        if self._log is not None:
            self._log.append(taken)
        return taken

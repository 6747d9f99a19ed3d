"""The value of a parameter in XML-like markup: where it ends, when it may hold such markup itself.

A closer ends a value only in front of further structure or of the end, and only when it closes nothing that the value
opened: a whole example of a call is data. Openers that are never closed are a mention, so they do not count.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from nemotron_triton.chat.names import longest_name, tidy
from nemotron_triton.chat.source import BLANKS, Source, Tags, Wait

FUNCTION, PARAMETER, CALL = "<function=", "<parameter=", "<tool_call>"
END_PARAMETER, END_FUNCTION, END_CALL = "</parameter>", "</function>", "</tool_call>"
NAME_ENDS = Tags(">", "\n")
_OPENER = {END_PARAMETER: PARAMETER, END_FUNCTION: FUNCTION, END_CALL: CALL}
_TAGS = Tags(*_OPENER, *_OPENER.values())
# A closer ends a value only in front of one of these, or of the end; elsewhere it is part of the value.
_FOLLOWERS = {
    END_PARAMETER: (PARAMETER, END_FUNCTION, END_CALL, CALL, FUNCTION),
    END_FUNCTION: (END_CALL, CALL, FUNCTION),
    END_CALL: (CALL,),
}
_FOLLOWERS_OR_SAME = {closer: Tags(closer, *followers) for closer, followers in _FOLLOWERS.items()}
_SAME = {closer: Tags(closer) for closer in _OPENER}
# How many blanks may stand between an opener and the same one again.
_MAX_LAYOUT = 16


@dataclass(frozen=True)
class End:
    """How a value ended: it is the first *size* pieces, and *tag* came, "" for its own closer.

    *next_key* is that of the next parameter, if this began.
    """

    size: int
    tag: str = ""
    next_key: str = ""


class Value:
    """Reads the value of the parameter *key*, whose opener was read last.

    A parameter on a new line ends a value without a closer only if it is *declared*, and not among the *known* ones.
    `pieces` is the text that was read; the first `sure` of them are in the value however it goes on, None stands for
    all.
    """

    def __init__(self, source: Source, key: str, declared: Collection[str], known: Collection[str]) -> None:
        self.pieces: list[str] = []
        self.sure: int | None = None
        self.ended_by = self.next_key = ""
        self._source = source
        self._key = key
        self._declared = declared
        self._known = known
        # Where the text was looked through already, no closer belongs to an opener in the value.
        self._balanced = source.position >= source.sure_from
        self._open = {PARAMETER: 0, FUNCTION: 0, CALL: 0}
        # Where the value ends if its openers are a mention; the pieces behind that; whether a function was open.
        self._mention: tuple[End, int, bool] | None = None
        self._closed_at_end = False

    def read(self) -> Wait[str | None]:
        """The text of the value; None when it has no end."""
        end = yield from self._end()
        if end is None:
            return None
        self.sure = end.size
        self.ended_by, self.next_key = end.tag, end.next_key
        return without_newlines("".join(self.pieces[: end.size]))

    def _end(self) -> Wait[End | None]:
        source, pieces = self._source, self.pieces
        while tag := (yield from source.until(_TAGS, pieces.append)):
            if tag in _OPENER:
                end = yield from self._closer(tag)
            elif tag == PARAMETER:
                end = yield from self._parameter()
            else:
                pieces.append(tag)
                self._open[tag] += 1
                continue
            if end:
                return self._without_mention(end)
        left_open = any(self._open.values()) or self._closed_at_end
        return self._back() if self._mention and left_open and not source.cut else None

    def _closer(self, closer: str) -> Wait[End | None]:
        source, opener, read = self._source, _OPENER[closer], [closer]
        read.append((yield from source.run(BLANKS)))
        while (follower := (yield from source.see(_FOLLOWERS_OR_SAME[closer]))) == closer:
            # Twice: it is noise, or the first one is that of an example.
            read.append((yield from source.accept(_SAME[closer])))
            read.append((yield from source.run(BLANKS)))
        at_end = not follower and (yield from source.peek()) == ""
        ends = follower or (at_end and not (source.cut and closer != END_PARAMETER))
        closers = len(read) // 2
        nested = min(closers, self._open[opener]) if self._balanced else 0
        self._open[opener] -= nested
        size = len(self.pieces)
        self.pieces += read
        if not ends:
            return None
        end = End(size + 2 * nested, "" if closer == END_PARAMETER else closer)
        if nested < closers:
            return end
        self._note_mention(End(size, end.tag))
        self._closed_at_end = at_end
        return None

    def _parameter(self) -> Wait[End | None]:
        pieces = self.pieces
        text, stop = yield from self._source.up_to(NAME_ENDS, longest_name(self._declared))
        key = tidy(text)
        if key == self._key and stop and is_layout("".join(pieces[: _MAX_LAYOUT + 1])):
            pieces.clear()  # the opener twice
            return None
        end = End(len(pieces), PARAMETER, key)
        at_line_start = (pieces[-1] if pieces else "\n").endswith("\n")
        pieces += [PARAMETER, text, stop]
        new = stop and at_line_start and key in self._declared and key not in self._known
        if new and not (self._balanced and self._open[FUNCTION]):
            return end
        self._open[PARAMETER] += 1
        if new:
            self._note_mention(end)
        return None

    def _note_mention(self, end: End) -> None:
        """Note where the value ends if nothing in it is an example."""
        if self._mention is None:
            self._mention = end, len(self.pieces), bool(self._open[FUNCTION])
            self.sure = end.size

    def _without_mention(self, end: End) -> End:
        """*end*, or the earlier one, when the value's own closer did not come because an opener in it was a mention."""
        if self._mention is None or not end.tag:
            return end
        _, _, in_example = self._mention
        whole = in_example and end.tag == END_FUNCTION and not any(self._open.values())
        return end if whole else self._back()

    def _back(self) -> End:
        """Give back what was read behind the place where the value ends without examples."""
        assert self._mention is not None
        end, behind, _ = self._mention
        self._source.sure_from = self._source.position
        self._source.unread("".join(self.pieces[behind:]))
        return end


def is_layout(text: str) -> bool:
    """Whether *text*, at the beginning of a value, may be blanks between an opener and the same one again."""
    return len(text) <= _MAX_LAYOUT and not text.strip()


def without_newlines(text: str) -> str:
    """*text* without the line break on each side, which belongs to the markup."""
    text = text.removeprefix("\r\n" if text.startswith("\r\n") else "\n")
    return text.removesuffix("\r\n" if text.endswith("\r\n") else "\n")

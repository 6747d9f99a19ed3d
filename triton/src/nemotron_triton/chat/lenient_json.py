"""JSON objects as models write them, read while they arrive and repaired where that changes no value.

Repaired are a missing or surplus bracket or brace, a trailing comma, single quotes, Python's constants, true and false
in other cases, line breaks inside strings and backslashes that begin no escape, but not a string without end or a word
that is no value. Valid text is returned unchanged, so that no
number or escape is spelled differently.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

from nemotron_triton.chat.source import BLANKS, Source, Tags, Wait
from nemotron_triton.chat.written import Written

_CONSTANTS = {"none": "null"} | {word: word for word in ("true", "false", "null")}
# Objects in one that may be the arguments of a call: each is looked at with all text before it.
_MAX_TRIES = 8
_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")
_ESCAPES = '"\\/bfnrt'
# Half of a character beyond the first 65,536, which needs its other half; and what stands for one alone.
_HALF = re.compile(r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_HALF_SIZE = len("\\ud83d")
_PAIR = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_NO_CHARACTER = "\\ufffd"
# A longer word is no JSON, nor is what follows it.
_MAX_WORD = 256
_CLOSES = {"{": "}", "[": "]"}
_OPENS = {"}": "{", "]": "["}
_CONTROL = re.compile(r"[\x00-\x1f]")
_ENDS = {quote: Tags(quote, "\\") for quote in "\"'"}
Begin: TypeAlias = Callable[[str], Written | None]
# What stands between the keys and values of an object.
_BETWEEN = re.compile(r"[ \t\r\n,:]*")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class ReadText:
    """JSON text, None when it cannot be repaired, and what ended it.

    That is its closer, `{` (the next object began), a tag, or "" (the end of the source). `repaired` says that the text
    differs from the source.
    """

    text: str | None
    ended_by: str
    repaired: bool = False


def structure(*closers: str) -> Tags:
    """The tags for `read_container`, in a text that any of *closers* ends."""
    return Tags('"', "'", "{", "}", "[", "]", ",", ":", *closers)


def read_container(source: Source, tags: Tags, opener: str = "{", begin: Begin | None = None) -> Wait[ReadText]:
    """Read the object or array whose *opener* (its bracket, perhaps with more) was read last.

    An object that a token limit cut off is not completed. *begin* takes the text before the object and before each one
    directly in it, and says where to write that one.
    """
    out, read, stack, plain = [opener], [opener], [opener[0]], list[str]()
    comma, last = False, opener[-1]
    written, written_depth = begin("") if begin else None, 1
    tries = 0
    if written:
        written.json = out

    def shut() -> None:
        """Add the closer of the last bracket."""
        if written and len(stack) == written_depth and written.end is None:
            written.end = len(out)
        out.append(_CLOSES[stack.pop()])

    def close(until: str) -> None:
        """Add the closers of all brackets inside the last *until*; of all brackets for ""."""
        while stack and stack[-1] != until:
            shut()

    def ended(by: str) -> ReadText:
        text = "".join(out)
        return ReadText(text, by, repaired=text != "".join(read))

    while True:
        stop = yield from source.until(tags, plain.append, _MAX_WORD)
        if not stop and not "".join(plain).strip():
            plain.append((yield from source.run(BLANKS)))
            stop = yield from source.until(tags, plain.append, _MAX_WORD)
        word = "".join(plain)
        plain.clear()
        read += [word, stop]
        blank = not word.strip()
        if stop == stack[-1] == "{" and blank:
            if len(out) == 1 and last == "{":
                last = ""
                continue  # one too many
            if last in (",", "}", "]"):
                close("")
                return ended("{")
        if comma and (not blank or stop in ('"', "'", "{", "[")):
            out.append(",")
        comma, last = stop == ",", stop
        out.append(word if blank else _value(word))
        if stop == "'" and not blank:
            out.append(stop)  # an apostrophe
        elif stop in _ENDS:
            if not (yield from _read_string(source, stop, out, read)):
                return ReadText(None, "")
        elif stop in _CLOSES:
            if begin and stop == "{" and len(stack) == 1 and not written and tries < _MAX_TRIES:
                tries += 1
                if written := begin("".join(out)):
                    written.json, written.start, written_depth = out, len(out), 2
            stack.append(stop)
            out.append(stop)
        elif stop == ":":
            out.append(stop)
        elif stop in _OPENS and _OPENS[stop] in stack:
            close(_OPENS[stop])
            shut()
            if not stack:
                return ended(stop)
        elif stop == "]":
            # The list around this object ends, so its braces are missing.
            close("")
            return ended(stop)
        elif stop not in (",", "}"):
            close("")
            return ReadText(None, stop) if source.cut else ended(stop)


def skip_string(source: Source, read: list[str]) -> Wait[bool]:
    """Read a string, whose quote comes next, to *read*. False when it has no end."""
    quote = yield from source.one()
    read.append(quote)
    return (yield from _read_string(source, quote, [], read))


def _read_string(source: Source, quote: str, out: list[str], read: list[str]) -> Wait[bool]:
    """Read to the closing *quote*: JSON goes to *out*, the source's text to *read*. False when the source ends."""
    half = ""  # of a pair of escapes

    def end_half() -> None:
        nonlocal half
        if half:
            out.append(_NO_CHARACTER)
            half = ""

    def add(text: str) -> None:
        end_half()
        read.append(text)
        text = text.replace('"', '\\"') if quote == "'" else text
        out.append(_CONTROL.sub(_escaped_control, text))

    out.append('"')
    while True:
        stop = yield from source.until(_ENDS[quote], add)
        read.append(stop)
        if stop == quote:
            end_half()
            out.append('"')
            return True
        char = yield from source.one()
        if not char:
            return False
        read.append(char)
        escape = f"\\{char}" if char in _ESCAPES else (yield from _escape(source, char, read))
        if half and _PAIR.fullmatch(half + escape):
            out.append(half + escape)
            half = ""
            continue
        end_half()
        if len(escape) == _HALF_SIZE and _HALF.fullmatch(escape):
            half = escape
        else:
            out.append(escape)


def _escape(source: Source, char: str, read: list[str]) -> Wait[str]:
    """An escape that is not two characters, whose second one is *char*. A backslash that begins none is one."""
    digits = ""
    while char == "u" and len(digits) < 4 and (yield from source.peek()) in _HEX_DIGITS:
        digits += yield from source.one()
    read.append(digits)
    if len(digits) == 4:
        return f"\\u{digits}"
    return char if char == "'" else "\\\\" + _CONTROL.sub(_escaped_control, char + digits)


def _escaped_control(match: re.Match[str]) -> str:
    return json.dumps(match[0])[1:-1]


def _value(word: str) -> str:
    """A *word* of an object, with blanks around it, as JSON has it."""
    bare = word.strip()
    return word.replace(bare, _CONSTANTS.get(bare.lower(), bare))


def repaired(text: str, opener: str) -> str | None:
    """*text* as valid JSON, when it is one object (*opener* `{`) or array (`[`) with at most whitespace around it."""
    text = text.strip()
    if not text.startswith(opener):
        return None
    source = Source()
    source.feed(text[1:])
    source.end()
    read = finish(read_container(source, structure(), opener))
    rest = finish(source.peek())
    return None if rest or read.ended_by == "{" or read.text is None or loads(read.text) is None else read.text


def finish(parser: Wait[Any]) -> Any:
    """The result of a parser whose source has ended."""
    try:
        next(parser)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("a parser waited for more after the end")


def loads(text: str) -> Any:
    """The value of strictly valid JSON; None for invalid text, and for null."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def members(text: str) -> dict[str, str] | None:
    """The members of a JSON object, each value as its own text; None when *text* is not strict JSON of an object.

    Of members with the same name the first one counts.
    """
    if not isinstance(loads(text), dict):
        return None
    fields: dict[str, str] = {}
    at = _skip(text, 1)
    while text[at] != "}":
        key, at = _DECODER.raw_decode(text, at)
        start = _skip(text, at)
        _, end = _DECODER.raw_decode(text, start)
        fields.setdefault(key, text[start:end])
        at = _skip(text, end)
    return fields


def _skip(text: str, at: int) -> int:
    match = _BETWEEN.match(text, at)
    return match.end() if match else at


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")

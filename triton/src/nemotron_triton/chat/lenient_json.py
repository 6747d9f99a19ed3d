"""JSON objects as models write them, read while they arrive and set right where that is safe.

Safe is what changes no value: a missing or surplus bracket or brace, a trailing comma, single quotes, Python's
constants, a line break inside a string. A string that never ends, or a word that is no value, is not repaired.
Text that was valid comes out unchanged, so that no number or escape is spelled anew.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from nemotron_triton.chat.source import Source, Tags, Wait

_CONSTANTS = {"True": "true", "False": "false", "None": "null"}
_CLOSES = {"{": "}", "[": "]"}
_OPENS = {"}": "{", "]": "["}
_CONTROL = re.compile(r"[\x00-\x1f]")
_ENDS = {quote: Tags(quote, "\\") for quote in "\"'"}
_SPACE = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True)
class ReadText:
    """JSON text, None when it cannot be right, and what ended it.

    That is its closer, `{` (the next object began), a tag, or "" (the end of everything). `repaired` says that the text
    is not what was read.
    """

    text: str | None
    ended_by: str
    repaired: bool = False


def structure(*closers: str) -> Tags:
    """What `read_container` has to look for, outside of strings, in a text that any of *closers* ends."""
    return Tags('"', "'", "{", "}", "[", "]", ",", ":", *closers)


def read_container(source: Source, tags: Tags, opener: str = "{") -> Wait[ReadText]:
    """Read the object or array of which *opener*, its bracket and perhaps more, was read last.

    What a token limit cut off is not completed.
    """
    out, read, stack, plain = [opener], [opener], [opener[0]], list[str]()
    comma, last = False, opener[-1]

    def close(until: str) -> None:
        """Supply the brackets that are missing before the closer of an *until*; all of them for ""."""
        while stack and stack[-1] != until:
            out.append(_CLOSES[stack.pop()])

    def ended(by: str) -> ReadText:
        text = "".join(out)
        return ReadText(text, by, repaired=text != "".join(read))

    while True:
        stop = yield from source.until(tags, plain.append)
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
        out.append(word if blank else word.replace(word.strip(), _CONSTANTS.get(word.strip(), word.strip())))
        if stop in _ENDS:
            if not (yield from _read_string(source, stop, out, read)):
                return ReadText(None, "")
        elif stop in _CLOSES:
            stack.append(stop)
            out.append(stop)
        elif stop == ":":
            out.append(stop)
        elif stop in _OPENS and _OPENS[stop] in stack:
            close(_OPENS[stop])
            stack.pop()
            out.append(stop)
            if not stack:
                return ended(stop)
        elif stop == "]":
            # The list around this object ends, so its braces are missing.
            close("")
            return ended(stop)
        elif stop not in (",", "}"):
            close("")
            return ReadText(None, stop) if source.cut else ended(stop)


def _read_string(source: Source, quote: str, out: list[str], read: list[str]) -> Wait[bool]:
    """Read to the closing *quote*, writing JSON to *out* and what stands there to *read*; False when the text ends."""

    def add(text: str) -> None:
        read.append(text)
        text = text.replace('"', '\\"') if quote == "'" else text
        out.append(_CONTROL.sub(lambda found: json.dumps(found[0])[1:-1], text))

    out.append('"')
    while True:
        stop = yield from source.until(_ENDS[quote], add)
        read.append(stop)
        if stop == quote:
            out.append('"')
            return True
        escaped = yield from source.one()
        if not escaped:
            return False
        read.append(escaped)
        out.append("'" if escaped == "'" else "\\" + escaped)


def repaired(text: str, opener: str) -> str | None:
    """*text* as valid JSON, when it is one object (*opener* `{`) or array (`[`) with at most blanks around it."""
    text = text.strip()
    if not text.startswith(opener):
        return None
    source = Source()
    source.feed(text[1:])
    source.end()
    found = finish(read_container(source, structure(), opener))
    rest = finish(source.peek())
    return None if rest or found.ended_by == "{" or found.text is None or loads(found.text) is None else found.text


def finish(parser: Wait[Any]) -> Any:
    """The result of a parser whose source has ended."""
    try:
        next(parser)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("a parser waited for more after the end")


def loads(text: str) -> Any:
    """The value of strictly valid JSON; None for all else, and for null."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def members(text: str) -> dict[str, str] | None:
    """The members of an object, each value as the very text that stands for it; None when *text* is not strict JSON."""
    decoder = json.JSONDecoder(parse_constant=_refuse)
    found: dict[str, str] = {}
    try:
        at = _skip(text, 1)
        while text[at] != "}":
            key, at = decoder.raw_decode(text, at)
            at = _skip(text, at)
            if not isinstance(key, str) or text[at] != ":":
                return None
            start = _skip(text, at + 1)
            _, end = decoder.raw_decode(text, start)
            found[key] = text[start:end]
            at = _skip(text, end)
            if text[at] == ",":
                at = _skip(text, at + 1)
                if text[at] == "}":
                    return None
            elif text[at] != "}":
                return None
        return found if _skip(text, at + 1) == len(text) else None
    except (ValueError, IndexError, RecursionError):
        return None


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")

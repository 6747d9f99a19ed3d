"""A matcher of grammars in GBNF, as far as ours use it: for tests that have no engine to ask."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TypeAlias

# A part of a rule: a test of one character, the name of a rule, alternatives, or a part to be repeated.
Part: TypeAlias = "Callable[[str], bool] | str | tuple[tuple[Part, ...], ...] | Repeat"
Stack: TypeAlias = "tuple[Part, Stack] | None"
_TOKEN = re.compile(r'\s*("(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|[\w-]+|\{\d+,?\d*\}|[()|*+?])')
_ESCAPE = re.compile(r"\\u([0-9a-f]{4})|\\U([0-9a-f]{8})|\\(.)")
_CHAR = r"\\u[0-9a-f]{4}|\\U[0-9a-f]{8}|\\.|[^\\]"
_RANGE = re.compile(f"({_CHAR})(?:-({_CHAR}))?")
_LETTERS = {"n": "\n", "r": "\r", "t": "\t"}


class Repeat:
    """A part from `least` to `most` times."""

    def __init__(self, part: Part, least: int, most: int | None) -> None:
        self.part, self.least, self.most = part, least, most
        self._fewer: Repeat | None = None

    def fewer(self) -> Repeat:
        """The part once less, the same object each time."""
        if self.most is None and not self.least:
            return self
        if self._fewer is None:
            self._fewer = Repeat(self.part, max(self.least - 1, 0), None if self.most is None else self.most - 1)
        return self._fewer


class Grammar:
    """A grammar whose first rule is `root`."""

    def __init__(self, text: str) -> None:
        lines = (line.split(" ::= ", 1) for line in text.splitlines() if line)
        self._rules = {name: _alternatives(_Tokens(_TOKEN.findall(body))) for name, body in lines}

    def reads(self, text: str) -> int:
        """How many characters of *text* an answer may begin with; one more where the answer may end there."""
        stacks = self._ready({("root", None)})
        for place, char in enumerate(text):
            stacks = self._ready({stack[1] for stack in stacks if stack and callable(stack[0]) and stack[0](char)})
            if not stacks:
                return place
        return len(text) + (None in stacks)

    def accepts(self, text: str) -> bool:
        """Whether *text* is a whole answer."""
        return self.reads(text) > len(text)

    def _ready(self, stacks: set[Stack]) -> set[Stack]:
        """The *stacks* with a test of a character on top, or nothing."""
        seen, waiting, ready = set(stacks), list(stacks), set()
        while waiting:
            stack = waiting.pop()
            if stack is None or callable(stack[0]):
                ready.add(stack)
                continue
            for following in self._expanded(*stack):
                if following not in seen:
                    seen.add(following)
                    waiting.append(following)
        return ready

    def _expanded(self, part: Part, rest: Stack) -> Iterator[Stack]:
        if isinstance(part, Repeat):
            if part.least == 0:
                yield rest
            if part.most != 0:
                yield (part.part, (part.fewer(), rest))
            return
        assert not callable(part)
        for sequence in self._rules[part] if isinstance(part, str) else part:
            stack = rest
            for inner in reversed(sequence):
                stack = (inner, stack)
            yield stack


class _Tokens:
    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens

    def peek(self) -> str:
        return self._tokens[0] if self._tokens else ""

    def next(self) -> str:
        return self._tokens.pop(0)


def _alternatives(tokens: _Tokens) -> tuple[tuple[Part, ...], ...]:
    found = [_sequence(tokens)]
    while tokens.peek() == "|":
        tokens.next()
        found.append(_sequence(tokens))
    return tuple(found)


def _sequence(tokens: _Tokens) -> tuple[Part, ...]:
    parts: list[Part] = []
    while tokens.peek() not in ("", "|", ")"):
        text = tokens.next()
        part: Part = text
        if text == "(":
            part = _alternatives(tokens)
            assert tokens.next() == ")"
        elif text.startswith('"'):
            part = (tuple(_one_of({char}) for char in _unescaped(text[1:-1])),)
        elif text.startswith("["):
            part = _class(text[1:-1])
        counts = tokens.peek()
        if counts in ("*", "+", "?") or counts.startswith("{"):
            tokens.next()
            least, comma, most = {"*": "0,", "+": "1,", "?": "0,1"}.get(counts, counts[1:-1]).partition(",")
            part = Repeat(part, int(least), int(most) if most else None if comma else int(least))
        parts.append(part)
    return tuple(parts)


def _one_of(chars: set[str]) -> Callable[[str], bool]:
    return lambda char: char in chars


def _class(text: str) -> Callable[[str], bool]:
    negated = text.startswith("^")
    ranges = [(_unescaped(a), _unescaped(b or a)) for a, b in _RANGE.findall(text[negated:])]
    return lambda char: any(first <= char <= last for first, last in ranges) != negated


def _unescaped(text: str) -> str:
    def char(match: re.Match[str]) -> str:
        code = match[1] or match[2]
        return chr(int(code, 16)) if code else _LETTERS.get(match[3], match[3])

    return _ESCAPE.sub(char, text)

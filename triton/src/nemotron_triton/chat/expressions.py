"""Regular expressions of ECMAScript, as the keyword `pattern` has them, as automata.

A text matches where the expression is found anywhere in it, unless anchored. Classes are ASCII only, because dialects
differ beyond. What no automaton can follow is refused: assertions but for `^` and `$`, and references back.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from typing import NoReturn

from nemotron_triton.chat.regular import (
    ANY,
    ASCII,
    Automaton,
    Budget,
    Characters,
    State,
    among,
    characters,
    common,
    without,
)

_DIGIT = characters([(48, 57)])
_WORD = characters([(48, 57), (65, 90), (95, 95), (97, 122)])
_SPACE = among(" \t\n\r\f\v")
SPACES_BEYOND_ASCII = characters([(0x85, 0x85), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029),
                                  (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF)])  # fmt: skip
_CLASSES = {
    "d": _DIGIT, "w": _WORD, "s": _SPACE,
    "D": common(ASCII, without(_DIGIT)), "W": common(ASCII, without(_WORD)),
    "S": without(characters([*_SPACE, *SPACES_BEYOND_ASCII, (0x1C, 0x1F)])),
}  # fmt: skip
_DOT = without(characters([*among("\n\r"), (0x2028, 0x2029)]))
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v", "0": "\0"}
_HEX_DIGITS = {"x": 2, "u": 4}
# A character that two escapes spell.
_PAIR = re.compile(r"\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})", re.IGNORECASE)
_MAX_DEPTH = 40
_AT_START, _AT_END = "^", "$"
_MATCHED = frozenset({-1})


class NotFollowedError(ValueError):
    """An expression that is none, or that no automaton follows; the message says what of it."""


class Expression(Automaton):
    """The texts in which the expression *text* is found. Raises `NotFollowedError`, or `TooComplexError`."""

    def __init__(self, text: str, budget: Budget) -> None:
        # Of each node: its moves by a character, and those without one, which may hold at the start or end only.
        self._moves: list[list[tuple[Characters, int]]] = []
        self._free: list[list[tuple[str, int]]] = []
        self._budget = budget
        self._known: dict[State, list[tuple[Characters, State]]] = {}
        begin = self._node()
        self._moves[begin].append((ANY, begin))
        self._end = _Parser(text, self).parse(begin)
        self.start = self._closed([begin], _AT_START)
        self._accepts_nothing_read = self._end in self._reached([begin], _AT_START + _AT_END)

    def _node(self) -> int:
        self._budget.spend()
        self._moves.append([])
        self._free.append([])
        return len(self._moves) - 1

    def then(self, node: int, chars: Characters) -> int:
        """A new node, behind one of *chars* after *node*."""
        following = self._node()
        self._moves[node].append((chars, following))
        return following

    def skip(self, node: int, to: int | None = None, where: str = "") -> int:
        """The node *to*, by default a new one, which *node* leads to without a character, anywhere or only *where*."""
        following = self._node() if to is None else to
        self._free[node].append((where, following))
        return following

    def moves(self, state: State) -> Sequence[tuple[Characters, State]]:
        """See `Automaton`."""
        if state not in self._known:
            self._known[state] = self._computed(state)
        return self._known[state]

    def _computed(self, state: State) -> list[tuple[Characters, State]]:
        if state == _MATCHED:
            return [(ANY, _MATCHED)]
        moves = [move for node in state for move in self._moves[node]]
        # Where characters begin or cease to be among those of a move.
        changes: dict[int, set[int]] = {0: set(), ANY[0][1] + 1: set()}
        for number, (chars, _) in enumerate(moves):
            for border in (border for first, last in chars for border in (first, last + 1)):
                changes.setdefault(border, set()).symmetric_difference_update({number})
        borders = sorted(changes)
        # Of large states, each is as much work as several small ones.
        self._budget.spend(len(borders) * len(moves) // 16)
        targets: dict[State, list[tuple[int, int]]] = {}
        taken: set[int] = set()
        for first, border in itertools.pairwise(borders):
            taken ^= changes[first]
            if taken:
                to = {moves[number][1] for number in taken}
                targets.setdefault(self._closed(to, ""), []).append((first, border - 1))
        return [(characters(ranges), following) for following, ranges in targets.items()]

    def accepts(self, state: State) -> bool:
        """See `Automaton`."""
        if state == _MATCHED or (state == self.start and self._accepts_nothing_read):
            return True
        return self._end in self._reached(state, _AT_END)

    def _closed(self, nodes: Iterable[int], where: str) -> State:
        reached = self._reached(nodes, where)
        return _MATCHED if self._end in reached else frozenset(reached)

    def _reached(self, nodes: Iterable[int], where: str) -> set[int]:
        reached, waiting = set(nodes), list(nodes)
        while waiting:
            for place, node in self._free[waiting.pop()]:
                if node not in reached and (not place or place in where):
                    reached.add(node)
                    waiting.append(node)
        return reached


class _Parser:
    """Reads an expression once for each copy that its repetitions ask for, and adds it to the automaton."""

    def __init__(self, text: str, automaton: Expression) -> None:
        self._text, self._automaton = text, automaton
        self._at = 0
        self._depth = 0
        # Where a class begins: its characters, and where it ends.
        self._classes: dict[int, tuple[Characters, int]] = {}

    def parse(self, begin: int) -> int:
        end = self._alternatives(begin)
        if self._at < len(self._text):
            self._refuse("a bracket that was never opened")
        return end

    def _refuse(self, what: str) -> NoReturn:
        raise NotFollowedError(f"{what} at character {self._at + 1}")

    def _next(self, *tokens: str) -> str:
        for token in tokens:
            if self._text.startswith(token, self._at):
                self._at += len(token)
                return token
        return ""

    def _alternatives(self, begin: int) -> int:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            self._refuse("too many nested groups")
        end = self._automaton.skip(self._sequence(begin))
        while self._next("|"):
            self._automaton.skip(self._sequence(begin), end)
        self._depth -= 1
        return end

    def _sequence(self, node: int) -> int:
        # Not to share a node with an alternative that loops.
        node = self._automaton.skip(node)
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            node = self._repeated(node)
        return node

    def _repeated(self, node: int) -> int:
        begin_at = self._at
        first = self._automaton.skip(node)
        end = self._atom(first)
        after_atom = self._at
        least, most = self._counts()
        after = self._at
        if after == after_atom:
            return end
        ends = [first, end]
        if most is not None and most < least:
            self._refuse("a count whose least is more than its most")
        for _ in range(1, max(least, most or 0, 1)):
            self._at = begin_at
            ends.append(self._atom(self._automaton.skip(ends[-1])))
        self._at = after
        if most is None:
            # One more copy of the last, as often as wanted.
            loop = self._automaton.skip(ends[max(least, 1) - 1] if least else first)
            self._at = begin_at
            back = self._atom(loop)
            self._at = after
            self._automaton.skip(back, loop)
            out = self._automaton.skip(ends[least] if least else first)
            self._automaton.skip(back, out)
            return out
        out = self._automaton.skip(ends[least])
        for place in range(least + 1, most + 1):
            self._automaton.skip(ends[place], out)
        return out

    def _counts(self) -> tuple[int, int | None]:
        least, most = 1, 1  # type: int, int | None
        match self._next("*", "+", "?", "{"):
            case "*":
                least, most = 0, None
            case "+":
                least, most = 1, None
            case "?":
                least, most = 0, 1
            case "{":
                digits, closed, rest = self._text[self._at :].partition("}")
                low, comma, high = digits.partition(",")
                if not closed or not low.isdecimal() or not (high.isdecimal() or not high) or len(digits) > 9:
                    self._refuse("a brace that is no count")
                least = int(low)
                most = least if not comma else int(high) if high else None
                self._at = len(self._text) - len(rest)
            case _:
                return least, most
        self._next("?")
        return least, most

    def _atom(self, node: int) -> int:
        automaton = self._automaton
        match char := self._text[self._at]:
            case "^" | "$":
                self._at += 1
                return automaton.skip(node, where=char)
            case "(":
                if not self._next("(?:") and self._next("(?<", "(?P<"):
                    if self._text[self._at : self._at + 1] in ("=", "!"):
                        self._refuse("a look-behind")
                    self._at = self._text.find(">", self._at) + 1 or len(self._text)
                elif self._next("(?"):
                    self._refuse("a look-ahead or flag")
                else:
                    self._next("(")
                end = self._alternatives(node)
                if not self._next(")"):
                    self._refuse("a bracket that is never closed")
                return end
            case ".":
                self._at += 1
                return automaton.then(node, _DOT)
            case "[":
                return automaton.then(node, self._class())
            case "\\":
                return automaton.then(node, self._escape(inside=False))
            case "*" | "+" | "?":
                self._refuse("a repetition of nothing")
        self._at += 1
        return automaton.then(node, among(char))

    def _class(self) -> Characters:
        begin = self._at
        if begin not in self._classes:
            self._classes[begin] = self._read_class(), self._at
        chars, self._at = self._classes[begin]
        return chars

    def _read_class(self) -> Characters:
        negated = self._next("[^") != ""
        if not negated:
            self._next("[")
        ranges: list[tuple[int, int]] = []
        ascii_only = False
        while not self._next("]"):
            if self._at >= len(self._text):
                self._refuse("a class that is never closed")
            ascii_only |= self._text[self._at : self._at + 2] in ("\\w", "\\d", "\\s")
            first = self._member()
            single = len(first) == 1 and first[0][0] == first[0][1]
            if single and self._text[self._at : self._at + 1] == "-" and self._text[self._at + 1 : self._at + 2] != "]":
                self._at += 1
                last = self._member()
                if len(last) != 1 or last[0][0] != last[0][1] or last[0][0] < first[0][0]:
                    self._refuse("a range that is none")
                first = ((first[0][0], last[0][1]),)
            ranges += first
        chars = without(characters(ranges)) if negated else characters(ranges)
        return common(chars, ASCII) if negated and ascii_only else chars

    def _member(self) -> Characters:
        if self._at >= len(self._text):
            self._refuse("a class that is never closed")
        if self._text[self._at] == "\\":
            return self._escape(inside=True)
        self._at += 1
        return among(self._text[self._at - 1])

    def _escape(self, *, inside: bool) -> Characters:
        self._at += 1
        char = self._text[self._at : self._at + 1]
        self._at += 1
        if char in _CLASSES:
            return _CLASSES[char]
        if inside and char == "b":
            return among("\b")
        if char in _HEX_DIGITS:
            return self._code_point(_HEX_DIGITS[char])
        if char in _ESCAPED:
            return among(_ESCAPED[char])
        if not char or char.isalnum():
            self._refuse(f"\\{char}")
        return among(char)

    def _code_point(self, digits: int) -> Characters:
        if self._next("{"):
            text, _, _ = self._text[self._at : self._at + 8].partition("}")
            self._at += len(text) + 1
        elif pair := _PAIR.match(self._text, self._at - 2):
            self._at = pair.end()
            text = f"{0x10000 + (int(pair[1], 16) - 0xD800) * 0x400 + int(pair[2], 16) - 0xDC00:x}"
        else:
            text = self._text[self._at : self._at + digits]
            self._at += digits
        try:
            point = int(text, 16)
        except ValueError:
            self._refuse("an escape that is none")
        if point > ANY[0][1]:
            self._refuse("an escape that is none")
        return ((point, point),)

"""Regular languages as automata: sets of characters, how languages are combined, and the rules of a grammar for one.

An automaton is explored from its start, within a budget of states, so that no combination costs without bound.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

# Ranges of code points, both ends included, in order and without overlap.
Characters: TypeAlias = tuple[tuple[int, int], ...]
State: TypeAlias = Any
_LAST = 0x10FFFF
ANY: Characters = ((0, _LAST),)
ASCII: Characters = ((0, 0x7F),)
_DEAD = object()


class TooComplexError(ValueError):
    """An automaton has more states than the budget allows."""


@dataclass
class Budget:
    """How many states may still be made."""

    states: int

    def spend(self, states: int = 1) -> None:
        """Take *states* from it; `TooComplexError` when it is used up."""
        self.states -= states
        if self.states < 0:
            raise TooComplexError


def characters(ranges: Iterable[tuple[int, int]]) -> Characters:
    """*ranges* in any order as characters."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)


def among(text: str) -> Characters:
    """The characters of *text*."""
    return characters((ord(char), ord(char)) for char in text)


def without(chars: Characters) -> Characters:
    """All other characters."""
    firsts = [0, *(last + 1 for _, last in chars)]
    lasts = [*(first - 1 for first, _ in chars), _LAST]
    return tuple((first, last) for first, last in zip(firsts, lasts, strict=True) if first <= last)


def common(one: Characters, other: Characters) -> Characters:
    """The characters in both."""
    if one == ANY or other == ANY:
        return other if one == ANY else one
    found: list[tuple[int, int]] = []
    at, other_at = 0, 0
    while at < len(one) and other_at < len(other):
        (first, last), (other_first, other_last) = one[at], other[other_at]
        if first <= other_last and other_first <= last:
            found.append((max(first, other_first), min(last, other_last)))
        if last < other_last:
            at += 1
        else:
            other_at += 1
    return tuple(found)


class Automaton(ABC):
    """A deterministic automaton over characters; its states are any hashable values."""

    start: State

    @abstractmethod
    def moves(self, state: State) -> Iterable[tuple[Characters, State]]:
        """The characters that lead on from *state*, disjoint sets, and where they lead."""

    @abstractmethod
    def accepts(self, state: State) -> bool:
        """Whether a text may end in *state*."""

    def matches(self, text: str) -> bool:
        """Whether *text* is in the language."""
        state = self.start
        for point in map(ord, text):
            for chars, following in self.moves(state):
                if any(first <= point <= last for first, last in chars):
                    state = following
                    break
            else:
                return False
        return self.accepts(state)


class Both(Automaton):
    """The texts that are in two languages."""

    def __init__(self, one: Automaton, other: Automaton) -> None:
        self._one, self._other = one, other
        self.start = (one.start, other.start)

    def moves(self, state: State) -> Iterator[tuple[Characters, State]]:
        """See `Automaton`."""
        others = list(self._other.moves(state[1]))
        for chars, one in self._one.moves(state[0]):
            for other_chars, other in others:
                if both := common(chars, other_chars):
                    yield both, (one, other)

    def accepts(self, state: State) -> bool:
        """See `Automaton`."""
        return self._one.accepts(state[0]) and self._other.accepts(state[1])


class Not(Automaton):
    """The texts that are not in a language."""

    def __init__(self, inner: Automaton) -> None:
        self._inner = inner
        self.start = inner.start

    def moves(self, state: State) -> Iterator[tuple[Characters, State]]:
        """See `Automaton`."""
        moves = [] if state is None else list(self._inner.moves(state))
        yield from moves
        if others := without(characters(itertools.chain.from_iterable(chars for chars, _ in moves))):
            yield others, None

    def accepts(self, state: State) -> bool:
        """See `Automaton`."""
        return state is None or not self._inner.accepts(state)


class Length(Automaton):
    """The texts of *least* to *most* characters; None is any number."""

    def __init__(self, least: int, most: int | None) -> None:
        self._least, self._most = least, most
        self.start = 0

    def moves(self, state: State) -> Iterator[tuple[Characters, State]]:
        """See `Automaton`."""
        if self._most is None:
            yield ANY, min(state + 1, self._least)
        elif state < self._most:
            yield ANY, state + 1

    def accepts(self, state: State) -> bool:
        """See `Automaton`."""
        return bool(state >= self._least)


class Then(Automaton):
    """The texts of a language with *word* behind them, of which none goes on behind the first *word*."""

    def __init__(self, inner: Automaton, word: str) -> None:
        self._inner, self._word = inner, word
        # Of the inner language, and how much of the word has been read, for each way of reading the text.
        self.start = (inner.start, frozenset[int]())

    def moves(self, state: State) -> Iterator[tuple[Characters, State]]:
        """See `Automaton`."""
        inner, read = state
        if len(self._word) in read:
            return
        places = read if inner is _DEAD or not self._inner.accepts(inner) else read | {0}
        points = characters((ord(self._word[place]), ord(self._word[place])) for place in places)
        left = ANY
        for chars, following in () if inner is _DEAD else self._inner.moves(inner):
            left = common(left, without(chars))
            if rest := common(chars, without(points)):
                yield rest, (following, frozenset[int]())
            yield from self._read(common(chars, points), following, places)
        yield from self._read(common(left, points), _DEAD, places)

    def _read(self, chars: Characters, inner: State, places: Iterable[int]) -> Iterator[tuple[Characters, State]]:
        for point in (point for first, last in chars for point in range(first, last + 1)):
            after = frozenset(place + 1 for place in places if ord(self._word[place]) == point)
            if after or inner is not _DEAD:
                yield ((point, point),), (inner, after)

    def accepts(self, state: State) -> bool:
        """See `Automaton`."""
        return len(self._word) in state[1]


class Words(Automaton):
    """The texts that are one of *words*."""

    def __init__(self, words: Collection[str]) -> None:
        self._words = frozenset(words)
        self._after: dict[str, set[str]] = {}
        for word in words:
            for end in range(len(word)):
                self._after.setdefault(word[:end], set()).add(word[end])
        self.start = ""

    def moves(self, state: State) -> Iterator[tuple[Characters, State]]:
        """See `Automaton`."""
        for char in sorted(self._after.get(state, ())):
            yield among(char), state + char

    def accepts(self, state: State) -> bool:
        """See `Automaton`."""
        return state in self._words


def all_of(languages: Iterable[Automaton]) -> Automaton:
    """The texts that are in each of *languages*, of which there is one at least."""
    first, *others = languages
    for other in others:
        first = Both(first, other)
    return first


def rules(
    automaton: Automaton, name: str, spelt: Callable[[Characters], str | None], budget: Budget
) -> list[str] | None:
    """The rules of a grammar for *automaton*, of which *name* is the first; None where no text is in the language.

    *spelt* is how the grammar writes one of some characters; None where it can write none of them.
    """
    moves: dict[Hashable, list[tuple[str, Hashable]]] = {}
    waiting: list[Hashable] = [automaton.start]
    while waiting:
        state = waiting.pop()
        if state in moves:
            continue
        budget.spend()
        targets: dict[Hashable, list[tuple[int, int]]] = {}
        for chars, following in automaton.moves(state):
            targets.setdefault(following, []).extend(chars)
        spellings = ((spelt(characters(ranges)), following) for following, ranges in targets.items())
        moves[state] = [(text, following) for text, following in spellings if text is not None]
        waiting += (following for _, following in moves[state])
    ends = {state for state in moves if automaton.accepts(state)}
    useful = _leading_to(ends, moves)
    if automaton.start not in useful:
        return None
    kept = {state: [(text, to) for text, to in moves[state] if to in useful] for state in useful}
    return _written(automaton.start, kept, ends, name)


def _leading_to(ends: set[Hashable], moves: dict[Hashable, list[tuple[str, Hashable]]]) -> dict[Hashable, None]:
    """The states from which one of *ends* can be reached, in the order of *moves*."""
    before: dict[Hashable, list[Hashable]] = {}
    for state, following in moves.items():
        for _, to in following:
            before.setdefault(to, []).append(state)
    found, waiting = set(ends), list(ends)
    while waiting:
        for state in before.get(waiting.pop(), ()):
            if state not in found:
                found.add(state)
                waiting.append(state)
    return {state: None for state in moves if state in found}


def _written(
    start: Hashable, moves: dict[Hashable, list[tuple[str, Hashable]]], ends: set[Hashable], name: str
) -> list[str]:
    """A rule for each state, but for those that one move enters and one leaves: they stand where they are entered."""
    entered: dict[Hashable, int] = {start: 2}
    for following in moves.values():
        for _, to in following:
            entered[to] = entered.get(to, 0) + 1

    def inline(state: Hashable) -> bool:
        return entered[state] == 1 and len(moves[state]) + (state in ends) == 1

    names = {start: name}
    for state in moves:
        if state not in names and not inline(state):
            names[state] = f"{name}-{len(names)}"
    lines = []
    for state, rule in names.items():
        # A loop is written as a repetition, which is cheaper than a rule that refers to itself.
        loops = "".join(f"{text}* " for text, to in moves[state] if to == state)
        alternatives = ['""'] if state in ends else []
        for text, to in moves[state]:
            if to == state:
                continue
            pieces = [text]
            while to not in names:
                if to in ends:
                    break
                ((text, to),) = moves[to]
                pieces.append(text)
            else:
                pieces.append(names[to])
            alternatives.append(" ".join(pieces))
        body = " | ".join(alternatives)
        lines.append(f"{rule} ::= {loops}({body})" if loops else f"{rule} ::= {body}")
    return lines

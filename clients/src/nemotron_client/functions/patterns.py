"""The regular expressions of schemas, matched in bounded time.

Python's own matcher tries one way after the other, which for some expressions takes years with thirty characters of a
model's choosing. This one follows all ways at once, as sets of the places where they may be, and counts its steps.
What cannot be matched so, such as references to what a group matched, is refused beforehand.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

# Python's reader of expressions has no public name; it makes Python's matcher, so both read them alike.
_READER: Any = importlib.import_module("re._parser" if sys.version_info >= (3, 11) else "sre_parse")
_WRITER: Any = importlib.import_module("re._compiler" if sys.version_info >= (3, 11) else "sre_compile")
_GROUPS = {"SUBPATTERN", "BRANCH", "MAX_REPEAT", "MIN_REPEAT", "ASSERT", "ASSERT_NOT"}
_REFUSED = {"GROUPREF", "GROUPREF_EXISTS", "ATOMIC_GROUP", "POSSESSIVE_REPEAT"}
_CHARACTER = {"LITERAL", "NOT_LITERAL", "IN", "ANY"}
# What going on costs, beside the places that it goes on from.
_COST = 8


class BadPattern(ValueError):
    """An expression that is none, or that cannot be matched in bounded time."""


class TooMuchWork(ValueError):
    """All steps were taken."""


class Steps:
    """How many steps may still be taken."""

    def __init__(self, left: int) -> None:
        """At first, *left*."""
        self._left = left

    def take(self, number: int) -> None:
        """Take *number* of them, and what each time costs, or raise `TooMuchWork`."""
        self._left -= number + _COST
        if self._left < 0:
            raise TooMuchWork("it takes too long to match")


# From the places where a match may have come to, those where it may be afterwards.
_Go: TypeAlias = Callable[[str, set[int], Steps], set[int]]


@functools.lru_cache(maxsize=256)
def pattern(expression: str) -> Callable[[str, Steps], bool]:
    """Whether *expression* is found anywhere in a text, as `re.search` has it; may be a `BadPattern`."""
    try:
        tree = _READER.parse(expression)
        go = _sequence(tree, tree.state, tree.state.flags)
    except (re.error, RecursionError, OverflowError) as error:
        raise BadPattern(f"it is no regular expression that Python can read: {error}") from error
    anchored = tree and str(tree[0][1]) == "AT_BEGINNING" and not tree.state.flags & re.MULTILINE
    return lambda text, steps: bool(go(text, {0} if anchored else set(range(len(text) + 1)), steps))


def _sequence(nodes: Sequence[Any], state: Any, flags: int) -> _Go:
    parts: list[_Go] = []
    for grouping, run in itertools.groupby(nodes, lambda node: node[0].name in _GROUPS | _REFUSED):
        if grouping:
            parts += [_group(node, state, flags) for node in run]
        else:
            parts.append(_characters(_WRITER.compile(_READER.SubPattern(state, list(run)), flags)))

    def go(text: str, places: set[int], steps: Steps) -> set[int]:
        for part in parts:
            places = part(text, places, steps)
        return places

    return go


def _characters(matcher: re.Pattern[str]) -> _Go:
    """One character after the other, each in its one way: Python's matcher has no choice."""

    def go(text: str, places: set[int], steps: Steps) -> set[int]:
        steps.take(len(places))
        return {found.end() for place in places if (found := matcher.match(text, place))}

    return go


def _group(node: Any, state: Any, flags: int) -> _Go:
    kind, detail = node[0].name, node[1]
    if kind == "SUBPATTERN":
        _, added, removed, inside = detail
        if added or removed:
            raise BadPattern("it has flags for a part of it, which JSON Schema knows nothing of")
        return _sequence(inside, state, flags)
    if kind == "BRANCH":
        return _branches([_sequence(each, state, flags) for each in detail[1]])
    if kind in ("MAX_REPEAT", "MIN_REPEAT"):
        least, most, inside = detail
        if len(inside) == 1 and inside[0][0].name in _CHARACTER:
            endless = (_READER.MAX_REPEAT, (0, _READER.MAXREPEAT, inside))
            return _run(_WRITER.compile(_READER.SubPattern(state, [endless]), flags), int(least), int(most))
        return _repeated(_sequence(inside, state, flags), int(least), int(most))
    if kind in ("ASSERT", "ASSERT_NOT"):
        direction, inside = detail
        width = inside.getwidth()[0] if direction < 0 else 0
        return _looking(_sequence(inside, state, flags), width, wanted=kind == "ASSERT")
    raise BadPattern(
        "it refers to a group, or has one that does not give back, which cannot be matched in bounded time"
    )


def _branches(ways: Sequence[_Go]) -> _Go:
    return lambda text, places, steps: set().union(*(way(text, places, steps) for way in ways))


def _run(matcher: re.Pattern[str], least: int, most: int) -> _Go:
    """One kind of character over and over; *matcher* goes as far as there are any."""

    def go(text: str, places: set[int], steps: Steps) -> set[int]:
        reached: set[int] = set()
        end = last = -1
        for place in sorted(places):
            if place > end and (found := matcher.match(text, place)):
                end = found.end()
            new = range(max(place + least, last + 1), min(place + most, end) + 1)
            steps.take(len(new))
            reached.update(new)
            last = max(last, new.stop - 1)
        return reached

    return go


def _repeated(once: _Go, least: int, most: int) -> _Go:
    def go(text: str, places: set[int], steps: Steps) -> set[int]:
        count = 0
        while count < least and places:
            steps.take(1)
            places, before, count = once(text, places, steps), places, count + 1
            if places == before:
                break
        reached, new = set(places), places
        while count < most and new:
            steps.take(len(new))
            new, count = once(text, new, steps) - reached, count + 1
            reached |= new
        return reached

    return go


def _looking(inside: _Go, width: int, *, wanted: bool) -> _Go:
    """What must be, or must not be, ahead of a place, or end there with *width* characters."""

    def go(text: str, places: set[int], steps: Steps) -> set[int]:
        starts = {place: {place - width} if place >= width else set() for place in places}
        return {place for place, start in starts.items() if bool(inside(text, start, steps)) == wanted}

    return go

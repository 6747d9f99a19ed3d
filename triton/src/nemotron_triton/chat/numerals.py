"""JSON numbers as automata: how they are written, and the bounds of their values.

Bounds are compared digit by digit, so numbers that they bound are written without an exponent.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Literal

from nemotron_triton.chat.regular import Automaton, Characters, State, among

_DIGITS: list[tuple[Characters, int]] = [(among(str(digit)), digit) for digit in range(10)]
_MINUS, _POINT, _EXPONENT, _SIGN = among("-"), among("."), among("eE"), among("+-")
# As many as no double rounds: two decimals that differ stay different, and in order.
_MAX_EXACT_DIGITS = 15
MAX_DIGITS = 20


class Spelling(Automaton):
    """JSON numbers of at most `MAX_DIGITS` digits: integers only, or with a fraction, or with an exponent too.

    An *exact* one has a fraction only where it has so few digits that a double holds them.
    """

    def __init__(self, *, integer: bool, exact: bool) -> None:
        self._integer = integer
        self._exact = exact
        self._digits = _MAX_EXACT_DIGITS if exact else MAX_DIGITS
        self.start = ("start", 0)

    def moves(self, state: State) -> Iterator[tuple[Characters, State]]:
        """See `Automaton`."""
        part, count = state
        if part == "start":
            yield _MINUS, ("sign", 0)
        if part in ("start", "sign"):
            for chars, digit in _DIGITS:
                # An integer has one spelling for zero.
                if digit or not (self._integer and part == "sign"):
                    yield chars, ("whole" if digit else "zero", 1)
        elif (part == "whole" and count < MAX_DIGITS) or (part == "point") or (
            part == "fraction" and count < self._digits
        ):  # fmt: skip
            for chars, _ in _DIGITS:
                yield chars, ("whole" if part == "whole" else "fraction", count + 1)
        if part in ("zero", "whole") and not self._integer and count < self._digits:
            yield _POINT, ("point", count)
        if part in ("zero", "whole", "fraction") and not self._integer and not self._exact and count < MAX_DIGITS - 1:
            yield _EXPONENT, ("exponent", 0)
        if part == "exponent" and count == 0:
            yield _SIGN, ("exponent", 1)
        if part in ("exponent", "exponent digit") and (part == "exponent" or count == 1):
            for chars, _ in _DIGITS:
                yield chars, ("exponent digit", 1 if part == "exponent" else 2)

    def accepts(self, state: State) -> bool:
        """See `Automaton`."""
        return state[0] in ("zero", "whole", "fraction", "exponent digit")


class Bound(Automaton):
    """The numbers, without exponents, that are at least or at most *limit*, or more or less than it."""

    def __init__(self, relation: Literal[">=", ">", "<=", "<"], limit: Decimal) -> None:
        self._signs = {">=": (0, 1), ">": (1,), "<=": (0, -1), "<": (-1,)}[relation]
        self._negative = limit < 0
        self._zero = limit == 0
        self._whole, _, fraction = format(abs(limit), "f").partition(".")
        self._fraction = fraction.rstrip("0")
        # Sign, part, digits read of the part, and how the digits read compare with as many of the limit.
        self.start = (1, "whole", 0, 0)

    def moves(self, state: State) -> Iterator[tuple[Characters, State]]:
        """See `Automaton`."""
        sign, part, count, compared = state
        if part == "whole" and not count and sign == 1:
            yield _MINUS, (-1, "whole", 0, 0)
        if part == "whole" and count:
            yield _POINT, (sign, "fraction", 0, self._compared_whole(count, compared))
        limit = self._whole if part == "whole" else self._fraction
        for chars, digit in _DIGITS:
            following = compared or _order(digit, int(limit[count]) if count < len(limit) else 0)
            if part == "whole" and count >= len(limit):
                yield chars, (sign, part, count, 1)
                continue
            # Past the digits of the limit, or once decided, more of them are alike.
            end = len(limit) + (part == "whole")
            after = end if part == "fraction" and following else min(count + 1, end)
            yield chars, (sign, part, after, following)

    def accepts(self, state: State) -> bool:
        """See `Automaton`."""
        sign, part, count, compared = state
        if part == "whole":
            compared, count = self._compared_whole(count, compared), 0
        if not compared and count < len(self._fraction):
            compared = -1
        if sign < 0 or self._negative:
            # Zero, with either sign, is compared as it is.
            same_side = (sign < 0) == self._negative or self._zero
            compared = sign * compared if same_side else sign
        return compared in self._signs

    def _compared_whole(self, count: int, compared: int) -> int:
        return -1 if count < len(self._whole) else compared


class MultipleOf(Automaton):
    """The numbers, without exponents, that are multiples of *step*, a positive one."""

    def __init__(self, step: Decimal) -> None:
        exponent = step.normalize().as_tuple().exponent
        self._places = max(0, -exponent) if isinstance(exponent, int) else 0
        self._step = int(step.scaleb(self._places))
        # The remainder so far, in units of the last place, and the places behind the point.
        self.start = (0, -1)

    def moves(self, state: State) -> Iterator[tuple[Characters, State]]:
        """See `Automaton`."""
        remainder, place = state
        if place < 0:
            yield _MINUS, state
            yield _POINT, (remainder, 0)
        for chars, digit in _DIGITS:
            if place < 0:
                yield chars, ((remainder * 10 + digit * 10**self._places) % self._step, place)
            elif place < self._places:
                yield chars, ((remainder + digit * 10 ** (self._places - place - 1)) % self._step, place + 1)
            elif not digit:
                yield chars, state

    def accepts(self, state: State) -> bool:
        """See `Automaton`."""
        return not state[0]


def _order(one: int, other: int) -> int:
    return (one > other) - (one < other)

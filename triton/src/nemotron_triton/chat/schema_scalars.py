"""The strings and numbers of a JSON schema as rules of a grammar: each keyword about them is an automaton.

Numbers that a keyword bounds have at most 20 digits, 15 where they have a fraction, and no exponent.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Literal, TypeAlias

from nemotron_triton.chat import gbnf
from nemotron_triton.chat.expressions import Expression, NotFollowedError
from nemotron_triton.chat.numerals import Bound, MultipleOf, Spelling
from nemotron_triton.chat.regular import (
    Automaton,
    Budget,
    Characters,
    Length,
    Not,
    Then,
    TooComplexError,
    Words,
    all_of,
    rules,
)
from nemotron_triton.chat.schema import IMPLIED
from nemotron_triton.chat.schema_parts import Plain, SchemaParts

MAX_COUNT = 2000
MAX_STATES, MAX_PARTS = 4000, 20_000
_BOUNDS: dict[str, Literal[">=", ">", "<=", "<"]] = {
    "minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<",
}  # fmt: skip
STRING_KEYWORDS, NUMBER_KEYWORDS = IMPLIED["string"], IMPLIED["number"]
# Text of more characters than these cannot be counted where tags must be watched for too: it has none.
_MAX_TEXT, _NO_TAG = 100, "[^<]"
_OF_ASCII = r"^[\x01-\x7f]*$"
_LARGEST = sys.float_info.max
QUOTE = '"\\""'
Spelt: TypeAlias = Callable[[Characters], str | None]


class Languages:
    """The languages of strings and numbers in one grammar: each is written once, within a budget for all of them."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.budget, self.parts_budget = Budget(MAX_STATES), Budget(MAX_PARTS)
        self._rules: dict[tuple[object, ...], str | None] = {}

    def rule(
        self, key: tuple[object, ...], build: Callable[[], Automaton], spelt: Callable[[Characters], str | None]
    ) -> str | None:
        """The rule for what *build* makes, which *key* identifies; None where no text is in it."""
        key = (spelt, *key)
        if key not in self._rules:
            name = f"text{len(self._rules)}"
            lines = rules(build(), name, spelt, self.budget)
            self.lines += lines or []
            self._rules[key] = name if lines else None
        return self._rules[key]


class Scalars:
    """The strings and numbers in the schema of *parts*; their rules are collected in *languages*."""

    def __init__(self, parts: SchemaParts, languages: Languages) -> None:
        self._parts = parts
        self._shared = languages
        self._budget = languages.budget

    def strings(self, plain: Plain) -> list[Automaton]:
        """The languages of the keywords about strings."""
        found: list[Automaton] = []
        if (pattern := plain.get("pattern")) is not None:
            try:
                found.append(Expression(pattern, self._budget))
            except NotFollowedError as error:
                self._parts.refuse("pattern", pattern, f"it has {error}")
            except TooComplexError:
                self._parts.refuse("pattern", pattern, "it is too complex")
        least, most = self.counts(plain, "minLength", "maxLength")
        if least or most is not None:
            found.append(Length(least, most))
        return found

    def string(self, plain: Plain, spelt: Spelt, never: str = "", tail: str = "") -> str | None:
        """A string, in quotes where it is *spelt* as JSON, that does not have the expression *never*; then *tail*."""
        quote = QUOTE if spelt is gbnf.in_string else ""
        least, most = self.counts(plain, "minLength", "maxLength")
        if most is not None and least > most:
            return None
        if quote and "pattern" not in plain:
            return "string" if not least and most is None else f"{quote} {gbnf.repeated('char', least, most)} {quote}"
        if not quote and "pattern" not in plain and (least if most is None else most) > _MAX_TEXT:
            plain_text = gbnf.repeated(_NO_TAG, least, most)
            return f"{plain_text} {gbnf.literal(tail)}"
        keyword = "pattern" if "pattern" in plain else "maxLength"

        def build() -> Automaton:
            found = all_of([*self.strings(plain), *([lacking(never)] if never else [])])
            return Then(found, tail) if tail else found

        text = self._language(keyword, plain, (plain.get("pattern"), least, most, never, tail), build, spelt)
        return text and f"{quote} {text} {quote}".strip()

    def _language(
        self,
        keyword: str,
        plain: Plain,
        key: tuple[object, ...],
        build: Callable[[], Automaton],
        spelt: Callable[[Characters], str | None],
    ) -> str | None:
        try:
            return self._shared.rule((keyword, *key), build, spelt)
        except TooComplexError:
            self._parts.refuse(keyword, plain.get(keyword), "with it the grammar of the calls becomes too large")

    def bounds(self, plain: Plain) -> list[Automaton]:
        """The languages of the keywords about numbers."""
        found: list[Automaton] = []
        for keyword, relation in _BOUNDS.items():
            if (limit := plain.get(keyword)) is not None:
                # JSON may have numbers that no double holds, which are infinite in Python.
                limit = math.copysign(_LARGEST, limit) if abs(limit) == math.inf else limit
                found.append(Bound(relation, Decimal(repr(limit))))
        step = plain.get("multipleOf")
        if step is not None:
            if not 0 < step < _LARGEST:
                self._parts.refuse("multipleOf", step, "it must be positive, and a number that a double holds")
            # A double has no exact tenths, so validators disagree about their multiples.
            if not float(step * 1024).is_integer():
                self._parts.refuse("multipleOf", step, "only those of whole numbers, halves, quarters, ... are exact")
            found.append(MultipleOf(Decimal(repr(step))))
        return found

    def number(self, plain: Plain, *, integer: bool) -> str | None:
        """A number."""
        bounds = self.bounds(plain)
        if not bounds:
            return "integer" if integer else "number"
        keyword = next(name for name in NUMBER_KEYWORDS if name in plain)
        key = (integer, *(repr(plain.get(name)) for name in NUMBER_KEYWORDS))
        spelling = Spelling(integer=integer, exact=True)
        return self._language(keyword, plain, key, lambda: all_of([spelling, *bounds]), gbnf.plain)

    def name(self, plain: Plain, names: Iterable[str], expression: str, spelt: Spelt) -> str | None:
        """The name of an additional property: none of *names*, and one that has *expression*.

        It is of ASCII where one of *names* is not, because XGrammar can exclude no characters beyond.
        """
        others = frozenset(names)

        def build() -> Automaton:
            parts = [expression, *([] if all(map(str.isascii, others)) else [_OF_ASCII])]
            found = [Expression(part, self._budget) for part in parts]
            return all_of([*found, Length(0, gbnf.MAX_NAME), Not(Words(others))])

        return self._language("additionalProperties", plain, (others, expression), build, spelt)

    def spend(self, about: object) -> None:
        """Count a part of the schema."""
        try:
            self._shared.parts_budget.spend()
        except TooComplexError:
            self._parts.refuse("the schema", about, "the grammar of the calls becomes too large")

    def is_free(self, name: str, plain: Plain) -> bool:
        """Whether every value of the type *name* fits, so that no string is mistaken for one that does not."""
        return name in ("null", "boolean") or (name in ("integer", "number") and not self.bounds(plain))

    def counts(self, plain: Plain, lower: str, upper: str) -> tuple[int, int | None]:
        """The least and the most, None without one, that two keywords about a number of things allow."""
        for keyword in (lower, upper):
            if plain.get(keyword, 0) > MAX_COUNT:
                self._parts.refuse(keyword, plain[keyword], f"at most {MAX_COUNT} can be counted")
        most = plain.get(upper)
        return math.ceil(max(0, plain.get(lower, 0))), None if most is None else math.floor(max(-1, most))


@functools.lru_cache(maxsize=64)
def lacking(expression: str) -> Automaton:
    """The texts that do not have *expression*, one of ours."""
    return Not(Expression(expression, Budget(MAX_STATES)))

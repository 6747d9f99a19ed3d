"""The rules of a grammar for values of a JSON schema: as JSON, or as the bare text between tags.

Followed are the keywords that docs/answers.md lists. Where a schema sets no bound, numbers have at most 20 digits, and
arrays and objects at most 256 members; references that lead back to themselves do so at most `MAX_RECURSION` times.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal, TypeAlias

from nemotron_triton.chat import gbnf, schema
from nemotron_triton.chat.expressions import Expression, NotFollowedError
from nemotron_triton.chat.numerals import Bound, MultipleOf, Spelling
from nemotron_triton.chat.regular import Automaton, Budget, Characters, Length, Not, TooComplexError, Words, all_of, rules
from nemotron_triton.chat.schema_parts import SchemaParts, types_of, values_of

MAX_RECURSION = 4
MAX_COUNT = 2000
MAX_STATES = 4000
_TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
# What a schema without a type is about.
_IMPLIED = {
    "object": ("properties", "required", "additionalProperties", "minProperties", "maxProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "string": ("pattern", "minLength", "maxLength"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}
_BOUNDS: dict[str, Literal[">=", ">", "<=", "<"]] = {
    "minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<",
}  # fmt: skip
# What the reader of a text takes for another type than a string, where the schema allows that type.
_READ_AS = {
    "null": r"^\s*(null|None)\s*$",
    "boolean": r"^\s*([tT]rue|[fF]alse)\s*$",
    "integer": r"^\s*[-+]?[0-9]+(\.0+)?\s*$",
    "number": r"^\s*[-+]?[0-9.]+([eE][-+]?[0-9]+)?\s*$",
    "array": r"^\s*\[",
    "object": r"^\s*\{",
}
# Text of more characters than these cannot be counted where tags must be watched for too: it has none.
_MAX_TEXT, _NO_TAG = 100, "[^<]"
_QUOTE = '"\\""'
Plain: TypeAlias = Mapping[str, Any]


class Languages:
    """The languages of strings and numbers in one grammar: each is written once, within a budget for all of them."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.budget = Budget(MAX_STATES)
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


class SchemaRules:
    """Collects the rules, whose names begin with *name*, for values in the parameters *root* of *function*.

    `lines` are the rules so far. Methods return a rule or an expression for it; None where no value fits. They raise
    `RequestError` for a keyword that cannot be followed.
    """

    def __init__(self, name: str, function: str, root: object, languages: Languages) -> None:
        self.lines: list[str] = []
        self._name = name
        self._parts = SchemaParts(function, root)
        self._root = root
        self._shared = languages
        self._budget = languages.budget
        # By the identity of a schema and how often it is inside itself; a schema is kept, for its identity not to recur.
        self._values: dict[tuple[int, int], tuple[object, str | None]] = {}
        self._open: list[int] = []
        self._numbers = itertools.count()

    @classmethod
    def of(cls, name: str, function: Mapping[str, Any], languages: Languages) -> SchemaRules:
        """For the parameters of *function*, an OpenAI object."""
        return cls(name, function["name"], function.get("parameters"), languages)

    def arguments(self) -> list[Plain]:
        """The plain schemas of which the arguments, an object, must fit one."""
        if not isinstance(self._root, Mapping):
            return [{}]
        plains = [plain for plain in self.parts(self._root) if "object" in (self._types(plain) or ["object"])]
        # What no property, nor any other keyword, tells of takes no arguments.
        return [{"properties": {}, **plain} if "additionalProperties" not in plain else plain for plain in plains]

    def one_of(self, found: Iterable[str | None]) -> str:
        """One of the expressions *found*; `RequestError` where there is none."""
        texts = list(dict.fromkeys(text for text in found if text is not None))
        if not texts:
            self._parts.refuse("the schema", self._root, "no arguments fit it")
        return gbnf.either(texts)

    def other_name(self, keyword: str, plain: Plain, names: Iterable[str], expression: str) -> str | None:
        """A text that *expression* matches and that is none of *names*."""

        def build() -> Automaton:
            return all_of([Expression(expression, self._budget), Not(Words(names))])

        names = frozenset(names)
        return self._language(keyword, plain, (names, expression), build, gbnf.plain)

    def rule(self, *alternatives: str) -> str:
        """The name of a new rule."""
        name = f"{self._name}-{next(self._numbers)}"
        self.lines.append(f"{name} ::= {' | '.join(alternatives)}")
        return name

    def parts(self, about: object) -> list[Plain]:
        """The plain schemas that *about*, a schema, is made of."""
        return self._parts.alternatives(about)

    def value(self, about: object) -> str | None:
        """JSON of a value that the schema *about* allows."""
        if about is True or about == {} or not isinstance(about, Mapping | bool):
            return "value"
        inside = self._open.count(id(about))
        key = (id(about), inside)
        if key not in self._values:
            if inside > MAX_RECURSION:
                return None
            self._spend(about)
            self._open.append(id(about))
            found = [text for plain in self.parts(about) for text in self._alternatives(plain)]
            self._open.pop()
            simple = len(found) == 1 and " " not in found[0]
            self._values[key] = about, None if not found else found[0] if simple else self.rule(*found)
        return self._values[key][1]

    def text(self, about: object, without: str, counted_without: str) -> str | None:
        """The bare text of a value that the schema *about* allows.

        No string has the expression *without*, or *counted_without* where it has a pattern or its length is limited.
        """
        plains = [(plain, self._types(plain) or ["string"]) for plain in self.parts(about)]
        free = {name for plain, types in plains if values_of(plain) is None for name in types if self._is_free(name, plain)}
        kinds = {name for _, types in plains for name in types} - free
        read = "|".join(["", *(_READ_AS[kind] for kind in _TYPES if kind in kinds and kind in _READ_AS)])
        found: list[str] = []
        for plain, types in plains:
            if (values := values_of(plain)) is not None:
                found += self._texts(self._fitting(plain, types, values), about, without)
                continue
            others = {**plain, "type": [name for name in types if name != "string"]}
            found += self._alternatives(others) if others["type"] else []
            if "string" in types:
                counted = any(keyword in plain for keyword in _IMPLIED["string"])
                if text := self._string(plain, gbnf.plain, (counted_without if counted else without) + read):
                    found.append(text)
        return gbnf.either(list(dict.fromkeys(found))) if found else None

    def _is_free(self, name: str, plain: Plain) -> bool:
        """Whether every value of the type *name* fits, so that no string is mistaken for one that does not."""
        return name in ("null", "boolean") or (name in ("integer", "number") and not self._bounds(plain))

    def _texts(self, values: Iterable[Any], about: object, without: str) -> Iterable[str]:
        allowed = _lacking(without)
        for value in values:
            text = value if isinstance(value, str) else gbnf.json_text(value)
            # Some texts are read as another value, such as "1" where a number is allowed too.
            if schema.as_json(text, about, self._root) == gbnf.json_text(value) and allowed.matches(text):
                yield gbnf.literal(text)

    def _types(self, plain: Plain) -> list[str] | None:
        names = types_of(plain)
        if names is not None:
            names = [schema.ALIASES.get(name, name) for name in names]
            return [name for name in _TYPES if name in names and not (name == "integer" and "number" in names)]
        implied = [name for name, keywords in _IMPLIED.items() if any(keyword in plain for keyword in keywords)]
        return implied or None

    def _alternatives(self, plain: Plain) -> list[str]:
        types = self._types(plain)
        if (values := values_of(plain)) is not None:
            return [gbnf.literal(gbnf.json_text(value)) for value in self._fitting(plain, types, values)]
        if types is None:
            return ["value"]
        found = (self._of_type(name, plain) for name in types)
        return [text for text in found if text is not None]

    def _of_type(self, name: str, plain: Plain) -> str | None:
        match name:
            case "null":
                return '"null"'
            case "boolean":
                return "boolean"
            case "string":
                return self._string(plain, gbnf.in_string)
            case "array":
                return self._array(plain)
            case "object":
                return self.object(plain)
        return self._number(plain, integer=name == "integer")

    def _fitting(self, plain: Plain, types: list[str] | None, values: Iterable[Any]) -> Iterable[Any]:
        """Those of *values* that the other keywords allow, as far as they are about types, strings and numbers."""
        for value in values:
            name = schema.TYPES.get(type(value), "array")
            number = name in ("integer", "number")
            integral = name == "integer" or (isinstance(value, float) and value.is_integer())
            fits = types is None or name in types or (number and "number" in types) or (integral and "integer" in types)
            if not fits:
                continue
            if isinstance(value, str):
                languages = self._languages(plain)
                fits = not languages or all_of(languages).matches(value)
            elif number:
                languages = self._bounds(plain)
                fits = not languages or all_of(languages).matches(format(Decimal(repr(value)), "f"))
            if fits:
                yield value

    # Strings.

    def _languages(self, plain: Plain) -> list[Automaton]:
        found: list[Automaton] = []
        if isinstance(pattern := plain.get("pattern"), str):
            try:
                found.append(Expression(pattern, self._budget))
            except NotFollowedError as error:
                self._parts.refuse("pattern", pattern, f"it has {error}")
            except TooComplexError:
                self._parts.refuse("pattern", pattern, "it is too complex")
        least, most = self._counts(plain, "minLength", "maxLength")
        if least or most is not None:
            found.append(Length(least, most))
        return found

    def _string(self, plain: Plain, spelt: Callable[[Characters], str | None], never: str = "") -> str | None:
        """A string, in quotes where it is *spelt* as JSON, that does not have the expression *never*."""
        quote = _QUOTE if spelt is gbnf.in_string else ""
        least, most = self._counts(plain, "minLength", "maxLength")
        if quote and "pattern" not in plain:
            if most is not None and least > most:
                return None
            return "string" if not least and most is None else f"{quote} {gbnf.repeated('char', least, most)} {quote}"
        if not quote and "pattern" not in plain and (most or least) > _MAX_TEXT:
            return gbnf.repeated(_NO_TAG, least, most) if most is None or least <= most else None
        keyword = "pattern" if "pattern" in plain else "maxLength"

        def build() -> Automaton:
            return all_of([*self._languages(plain), *([_lacking(never)] if never else [])])

        text = self._language(keyword, plain, (plain.get("pattern"), least, most, never), build, spelt)
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

    def _spend(self, about: Plain) -> None:
        try:
            self._budget.spend()
        except TooComplexError:
            self._parts.refuse("the schema", about, "the grammar of the calls becomes too large")

    # Numbers.

    def _bounds(self, plain: Plain) -> list[Automaton]:
        found: list[Automaton] = []
        for keyword, relation in _BOUNDS.items():
            limit = plain.get(keyword)
            if limit is None or limit in (math.inf, -math.inf):
                continue
            if isinstance(limit, bool) or not isinstance(limit, int | float) or limit != limit:
                self._parts.refuse(keyword, limit, "it must be a number")
            found.append(Bound(relation, Decimal(repr(limit))))
        step = plain.get("multipleOf")
        if step is not None:
            if isinstance(step, bool) or not isinstance(step, int | float) or not 0 < step < math.inf:
                self._parts.refuse("multipleOf", step, "it must be a positive number")
            # A double has no exact tenths, so validators disagree about their multiples.
            if not (step * 1024).is_integer() if isinstance(step, float) else False:
                self._parts.refuse("multipleOf", step, "only multiples of whole numbers, halves, quarters ... are exact")
            found.append(MultipleOf(Decimal(repr(step))))
        return found

    def _number(self, plain: Plain, *, integer: bool) -> str | None:
        bounds = self._bounds(plain)
        if not bounds:
            return "integer" if integer else "number"
        keyword = next(name for name in (*_BOUNDS, "multipleOf") if name in plain)
        key = (integer, *(repr(plain.get(name)) for name in (*_BOUNDS, "multipleOf")))
        spelling = Spelling(integer=integer, exact=True)
        return self._language(keyword, plain, key, lambda: all_of([spelling, *bounds]), gbnf.plain)

    # Arrays and objects.

    def _array(self, plain: Plain) -> str | None:
        least, limit = self._counts(plain, "minItems", "maxItems")
        most = max(least, gbnf.MAX_ITEMS) if limit is None else limit
        prefix = plain.get("prefixItems")
        texts: list[str] = []
        for about in prefix if isinstance(prefix, Sequence) else ():
            text = self.value(about)
            if text is None or len(texts) == most:
                most = min(most, len(texts))
                break
            texts.append(text)
        item = None if len(texts) == most else self.value(plain.get("items", True))
        if item is None:
            most = min(most, len(texts))
        if least > most:
            return None
        body = self.chain([(text, True) for text in texts], item, (least, most), gbnf.COMMA)
        return None if body is None else f'"[" ws {body} ws "]"'

    def object(self, plain: Plain) -> str | None:
        """JSON of an object that the plain schema allows."""
        members = self.members(plain, self.value)
        if members is None:
            return None
        pairs, extra, counts = members
        if not pairs and extra == "value" and counts == (0, None):
            return "object"
        texts = [(f"{gbnf.literal(gbnf.json_text(name))} {gbnf.COLON} {text}", needed) for name, text, needed in pairs]
        more = None
        if extra is not None:
            names = frozenset(name for name, _, _ in pairs)
            other = self._language("additionalProperties", plain, (names,), lambda: Not(Words(names)), gbnf.in_string)
            more = f'{_QUOTE} {other} {_QUOTE} {gbnf.COLON} {extra}' if names else f"string {gbnf.COLON} {extra}"
        body = self.chain(texts, more, counts, gbnf.COMMA)
        return None if body is None else f'"{{" ws {body} ws "}}"'

    def members(
        self, plain: Plain, value: Callable[[object], str | None]
    ) -> tuple[list[tuple[str, str, bool]], str | None, tuple[int, int | None]] | None:
        """The properties (name, *value*, whether required), the value of others if any, and how many there may be.

        None where a required one has no value.
        """
        required = plain.get("required")
        needed = dict.fromkeys(map(str, required)) if isinstance(required, list | tuple) else {}
        declared = schema.properties(plain)
        others = plain.get("additionalProperties", "properties" not in plain)
        about = {**declared, **{name: others for name in needed if name not in declared}}
        pairs = []
        for name, part in about.items():
            text = value(part) if part is not False else None
            if text is not None:
                pairs.append((name, text, name in needed))
            elif name in needed:
                return None
        extra = None if others is False else value(others)
        return pairs, extra, self._counts(plain, "minProperties", "maxProperties")

    def chain(
        self, texts: Sequence[tuple[str, bool]], extra: str | None, counts: tuple[int, int | None], separator: str
    ) -> str | None:
        """*texts* in their order, those that are not required left out or not, and then any number of *extra*."""
        least, limit = counts
        most = max(least, gbnf.MAX_ITEMS, len(texts)) if limit is None else limit
        # How many there are so far matters for the counts, and whether there are any, for the separator.
        cap = max(1 if separator else 0, least, 0 if limit is None and not least else min(most, len(texts) + 1))
        after: list[str | None] = [self._extras(extra, separator, least - n, most - n, first=n == 0) for n in range(cap + 1)]
        for text, needed in reversed(texts):
            before: list[str | None] = []
            for count in range(cap + 1):
                rest = after[min(count + 1, cap)]
                taken = None if rest is None or count + 1 > most else f"{separator if count else ''} {text} {rest}".strip()
                left = None if needed else after[count]
                if taken is None or left is None:
                    before.append(taken if left is None else left)
                else:
                    before.append(self.rule(taken, left or '""'))
            after = before
        return after[0]

    def _extras(self, extra: str | None, separator: str, least: int, most: int, *, first: bool) -> str | None:
        """From *least* to *most* of *extra*, each behind a separator but for the *first* of all."""
        least = max(least, 0)
        if least > most:
            return None
        if extra is None or most <= 0:
            return None if least else ""
        if not first:
            return gbnf.repeated(f"{separator} {extra}", least, most)
        some = f"{extra} {gbnf.repeated(f'{separator} {extra}', max(least - 1, 0), most - 1)}"
        return some if least else f"({some})?"

    def _counts(self, plain: Plain, lower: str, upper: str) -> tuple[int, int | None]:
        found: list[int | None] = []
        for keyword in (lower, upper):
            count = plain.get(keyword)
            if count is not None and (isinstance(count, bool) or not isinstance(count, int | float) or count != count):
                self._parts.refuse(keyword, count, "it must be a number")
            if count is not None and count > MAX_COUNT:
                self._parts.refuse(keyword, count, f"at most {MAX_COUNT} can be counted")
            found.append(None if count is None else math.ceil(count) if keyword == lower else math.floor(count))
        return max(found[0] or 0, 0), found[1]


@functools.lru_cache(maxsize=64)
def _lacking(expression: str) -> Automaton:
    """The texts that do not have *expression*, one of ours."""
    return Not(Expression(expression, Budget(MAX_STATES)))

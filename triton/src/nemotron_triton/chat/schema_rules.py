"""The rules of a grammar for values of a JSON schema: as JSON, or as the bare text between tags.

Followed are the keywords that docs/answers.md lists. Where a schema sets no bound, numbers have at most 20 digits, and
arrays and objects at most 256 members; references that lead back to themselves do so at most `MAX_RECURSION` times.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from nemotron_triton.chat import gbnf, schema
from nemotron_triton.chat.schema_parts import TYPES, Plain, SchemaParts, common_types, types_of, values_of
from nemotron_triton.chat.schema_scalars import (
    QUOTE,
    STRING_KEYWORDS,
    Languages,
    Scalars,
    lacking,
)
from nemotron_triton.chat.schema_values import SchemaValues

MAX_RECURSION = 4
# What is merged of references is another schema each time.
_MAX_DEPTH = 60
# What the reader of a text takes for another type than a string, where the schema allows that type.
_READ_AS = {
    "null": r"^\s*(null|None)\s*$",
    "boolean": r"^\s*([tT]rue|[fF]alse)\s*$",
    "integer": r"^\s*[-+]?[0-9]+(\.0+)?\s*$",
    "number": r"^\s*[-+]?[0-9.]+([eE][-+]?[0-9]+)?\s*$",
    "array": r"^\s*\[",
    "object": r"^\s*\{",
}


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
        self.scalars = Scalars(self._parts, languages)
        self._fitting = SchemaValues(self._parts, self.scalars).fitting
        # By the identity of a schema and how often it is inside itself. It is kept, for its identity not to recur.
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
            return [{"additionalProperties": True}]
        found: list[Plain] = []
        for plain in self.parts(self._root):
            types = self._types(plain) or ["object"]
            if (values := values_of(plain)) is not None:
                fitting = self._fitting(plain, types, values)
                found += (_exactly(value) for value in fitting if isinstance(value, Mapping))
            elif "object" in types:
                # What no property, nor any other keyword, tells of takes no arguments.
                found.append({"properties": {}, **plain} if "additionalProperties" not in plain else plain)
        return found

    def one_of(self, found: Iterable[str | None]) -> str:
        """One of the expressions *found*; `RequestError` where there is none."""
        texts = list(dict.fromkeys(text for text in found if text is not None))
        if not texts:
            self._parts.refuse("the schema", self._root, "no arguments fit it")
        return gbnf.either(texts)

    def rule(self, *alternatives: str) -> str:
        """The name of a new rule."""
        self.scalars.spend(self._root)
        name = f"{self._name}-{next(self._numbers)}"
        self.lines.append(f"{name} ::= {' | '.join(alternatives)}")
        return name

    def parts(self, about: object) -> list[Plain]:
        """The plain schemas that *about*, a schema, is made of."""
        return self._parts.alternatives(about)

    def value(self, about: object) -> str | None:
        """JSON of a value that the schema *about* allows."""
        if about is True or about == {}:
            return "value"
        inside = self._open.count(id(about))
        key = (id(about), inside)
        if key not in self._values:
            if inside > MAX_RECURSION:
                return None
            self.scalars.spend(about)
            if len(self._open) == _MAX_DEPTH:
                self._parts.refuse("the schema", about, f"it is more than {_MAX_DEPTH} levels deep")
            self._open.append(id(about))
            found = [text for plain in self.parts(about) for text in self._alternatives(plain)]
            self._open.pop()
            simple = len(found) == 1 and " " not in found[0]
            self._values[key] = about, None if not found else found[0] if simple else self.rule(*found)
        return self._values[key][1]

    def text(self, about: object, declared: object, without: str, counted_without: str, tail: str) -> str | None:
        """The bare text of a value that the schema *about* allows, and *tail* behind it.

        It is read as a value of *declared*, which may allow more. No string has the expression *without*, or
        *counted_without* where it has a pattern or its length is limited.
        """
        plains = [(plain, self._types(plain) or ["string"]) for plain in self.parts(about)]
        free = {
            name
            for plain, types in plains
            if values_of(plain) is None
            for name in types
            if self.scalars.is_free(name, plain)
        }
        if "number" in free:
            free.add("integer")
        readable = schema.type_names(declared, self._root)
        kinds = {*readable} - free
        read = "|".join(["", *(_READ_AS[kind] for kind in TYPES if kind in kinds and kind in _READ_AS)])
        found: list[str] = []
        for plain, types in plains:
            if (values := values_of(plain)) is not None:
                texts = self._texts(self._fitting(plain, self._types(plain), values), declared, without)
                found += (gbnf.literal(text + tail) for text in texts)
                continue
            others = {**plain, "type": [name for name in common_types(types, readable) if name != "string"]}
            if others["type"] and (alternatives := self._alternatives(others)):
                found.append(f"{gbnf.either(alternatives)} {gbnf.literal(tail)}")
            if "string" in types:
                never = counted_without if any(keyword in plain for keyword in STRING_KEYWORDS) else without
                if text := self.scalars.string(plain, gbnf.plain, never + read, tail):
                    found.append(text)
        return gbnf.either(list(dict.fromkeys(found))) if found else None

    def _texts(self, values: Iterable[Any], declared: object, without: str) -> Iterator[str]:
        """The bare texts of *values* that are read as these, where the schema is *declared*."""
        allowed = lacking(without)
        for value in values:
            text = value if isinstance(value, str) else gbnf.json_text(value)
            # Some texts are read as another value, such as "1" where a number is allowed too.
            read = json.loads(schema.as_json(text, declared, self._root))
            # A grammar is a text in C, which NUL would end.
            if schema.same(read, value) and allowed.matches(text) and "\0" not in text:
                yield text

    def _types(self, plain: Plain) -> list[str] | None:
        if names := types_of(plain):
            return [name for name in TYPES if name in names and not (name == "integer" and "number" in names)]
        return schema.implied_types(plain) or None

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
                return self.scalars.string(plain, gbnf.in_string)
            case "array":
                return self._array(plain)
            case "object":
                return self.object_of(plain)
        return self.scalars.number(plain, integer=name == "integer")

    def _array(self, plain: Plain) -> str | None:
        least, limit = self.scalars.counts(plain, "minItems", "maxItems")
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

    def object_of(self, plain: Plain) -> str | None:
        """JSON of an object that the plain schema allows."""
        members = self.members(plain, lambda _, about: self.value(about))
        if members is None:
            return None
        pairs, extra, counts = members
        if not pairs and extra == "value" and counts == (0, None):
            return "object"
        texts = [(f"{gbnf.literal(gbnf.json_text(name))} {gbnf.COLON} {text}", needed) for name, text, needed in pairs]
        more = None
        if extra is not None:
            names = [*schema.properties(plain), *(name for name, _, _ in pairs)]
            other = self.scalars.name(plain, names, "", gbnf.in_string)
            more = f"{QUOTE} {other} {QUOTE} {gbnf.COLON} {extra}" if names else f"name {gbnf.COLON} {extra}"
        body = self.chain(texts, more, counts, gbnf.COMMA)
        return None if body is None else f'"{{" ws {body} ws "}}"'

    def members(
        self, plain: Plain, value: Callable[[str | None, object], str | None]
    ) -> tuple[list[tuple[str, str, bool]], str | None, tuple[int, int | None]] | None:
        """The properties (name, *value*, whether required), the value of other ones, and how many there may be.

        None where a required one has no value. *value* is asked by name and schema, without a name for other ones.
        """
        required = plain.get("required")
        needed = dict.fromkeys(map(str, required)) if isinstance(required, list | tuple) else {}
        declared = schema.properties(plain)
        others = plain.get("additionalProperties", "properties" not in plain)
        texts = {name: value(name, part) for name, part in declared.items()}
        extra = None if others is False else value(None, others)
        texts |= {name: value(name, plain.get("additionalProperties", True)) for name in needed if name not in declared}
        pairs = []
        for name, text in texts.items():
            if text is not None:
                pairs.append((name, text, name in needed))
            elif name in needed:
                return None
        return pairs, extra, self.scalars.counts(plain, "minProperties", "maxProperties")

    def chain(
        self, texts: Sequence[tuple[str, bool]], extra: str | None, counts: tuple[int, int | None], separator: str
    ) -> str | None:
        """*texts* in their order, those that are not required left out or not, and then any number of *extra*."""
        least, limit = counts
        most = max(least, gbnf.MAX_ITEMS, len(texts)) if limit is None else limit
        # How many there are so far matters for the counts, and whether there are any, for the separator.
        cap = max(1 if separator else 0, least, 0 if limit is None and not least else min(most, len(texts) + 1))
        after: list[str | None] = [
            self._extras(extra, separator, least - n, most - n, first=n == 0) for n in range(cap + 1)
        ]
        for text, needed in reversed(texts):
            before: list[str | None] = []
            for count in range(cap + 1):
                rest = after[min(count + 1, cap)]
                fits = rest is not None and count < most
                taken = f"{separator if count else ''} {text} {rest}".strip() if fits else None
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


def _exactly(value: Mapping[str, Any]) -> Plain:
    """The schema of the object *value* alone."""
    properties = {name: {"const": item} for name, item in value.items()}
    return {"properties": properties, "required": list(value), "additionalProperties": False}

"""Which values, such as those of `const` and `enum`, the other keywords of a JSON schema allow."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

from nemotron_triton.chat import schema
from nemotron_triton.chat.schema_parts import Plain, SchemaParts, types_of, values_of
from nemotron_triton.chat.schema_scalars import Scalars


class SchemaValues:
    """Values and the schema of *parts*; *scalars* are its strings and numbers."""

    def __init__(self, parts: SchemaParts, scalars: Scalars) -> None:
        self._parts = parts
        self._scalars = scalars

    def fitting(self, plain: Plain, types: list[str] | None, values: Iterable[Any]) -> Iterator[Any]:
        """Those of *values* that are of one of *types*, any for None, and fit the other keywords of *plain*."""
        strings, bounds = self._scalars.strings(plain), self._scalars.bounds(plain)
        for value in values:
            names = _type_names(value)
            if types is not None and not names & set(types):
                continue
            if isinstance(value, str):
                fits = all(language.matches(value) for language in strings)
            elif "number" in names:
                number = Decimal(repr(value))
                fits = number.is_finite() and all(language.matches(format(number, "f")) for language in bounds)
            elif isinstance(value, list):
                fits = self._list_fits(plain, value)
            elif isinstance(value, dict):
                fits = self._object_fits(plain, value)
            else:
                fits = True
            if fits:
                yield value

    def _fits(self, about: object, value: object) -> bool:
        """Whether the schema *about* allows *value*."""
        for plain in self._parts.alternatives(about):
            values = values_of(plain)
            listed = values is None or any(schema.same(value, other) for other in values)
            if listed and any(True for _ in self.fitting(plain, types_of(plain) or None, [value])):
                return True
        return False

    def _list_fits(self, plain: Plain, items: list[Any]) -> bool:
        least, most = self._scalars.counts(plain, "minItems", "maxItems")
        if not least <= len(items) <= (math.inf if most is None else most):
            return False
        prefix = plain.get("prefixItems", ())
        abouts = [*prefix[: len(items)], *[plain.get("items", True)] * (len(items) - len(prefix))]
        return all(map(self._fits, abouts, items))

    def _object_fits(self, plain: Plain, members: dict[str, Any]) -> bool:
        least, most = self._scalars.counts(plain, "minProperties", "maxProperties")
        if not least <= len(members) <= (math.inf if most is None else most):
            return False
        others = plain.get("additionalProperties", True)
        abouts = (plain.get("properties", {}).get(name, others) for name in members)
        return set(plain.get("required", ())) <= members.keys() and all(map(self._fits, abouts, members.values()))


def _type_names(value: object) -> set[str]:
    name = schema.TYPES.get(type(value), "array")
    if name == "integer" or (isinstance(value, float) and value.is_integer()):
        return {"integer", "number"}
    return {name}

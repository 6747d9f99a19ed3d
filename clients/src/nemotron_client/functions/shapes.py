"""What a parameter is on both sides: the JSON Schema that the model reads, and what makes its value of the JSON.

Readers get JSON that fits the schema. They check again, because a union has to know which of its members it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from nemotron_client.functions.json_values import shortened, shown

# What was read before, by definition and by the JSON's identity: unions in unions would read it over and over.
Known: TypeAlias = dict[tuple[str, int], Any]
Read: TypeAlias = Callable[[Any, Known], Any]


class NoSchema(TypeError):
    """A hint that JSON has nothing for."""


class Misfit(ValueError):
    """JSON that does not fit: `path` leads to it, and `problem` says why, as in `is 5; it must be text`."""

    def __init__(self, problem: str, path: tuple[str | int, ...] = ()) -> None:
        super().__init__(problem, path)
        self.problem = problem
        self.path = path

    def __str__(self) -> str:
        steps = [
            f".{step}" if isinstance(step, str) and step.isidentifier() else f"[{shown(step)}]" for step in self.path
        ]
        return f"{shortened(''.join(steps).lstrip('.'), 200) or 'the object of arguments'} {self.problem}"


@dataclass(frozen=True)
class Shape:
    """A JSON Schema, and the reader of what fits it."""

    schema: dict[str, Any]
    read: Read

    def described(self, text: str) -> Shape:
        """The same, with a *text* for the model where it has none."""
        return (
            Shape(self.schema | {"description": text}, self.read) if text and "description" not in self.schema else self
        )


@dataclass(frozen=True)
class Member:
    """What an object may hold, or must."""

    name: str
    shape: Shape
    required: bool


ANYTHING = Shape({}, lambda value, _: value)


def scalar(make: Callable[[Any], Any], **schema: Any) -> Shape:
    """What *make* makes of a value; its `ValueError` says why it does not."""

    def read(value: Any, _: Known) -> Any:
        try:
            return make(value)
        except (ValueError, ArithmeticError) as error:
            raise Misfit(f"is {shown(value)}: {shortened(str(error)) or type(error).__name__}") from error

    return Shape(schema, read)


def array(item: Shape, make: Callable[[list[Any]], Any], **schema: Any) -> Shape:
    """As many of *item* as there are."""

    def read(value: Any, known: Known) -> Any:
        values = enumerate(_checked(value, list, "an array"))
        return _built(make, [_inside(index, item, element, known) for index, element in values], value)

    return Shape({"type": "array"} | ({"items": item.schema} if item.schema else {}) | schema, read)


def row(items: Sequence[Shape]) -> Shape:
    """A tuple of just these *items*."""

    def read(value: Any, known: Known) -> Any:
        if len(_checked(value, list, "an array")) != len(items):
            raise Misfit(f"is {shown(value)}; it must hold {len(items)} values")
        return tuple(_inside(index, items[index], element, known) for index, element in enumerate(value))

    prefix = {"prefixItems": [item.schema for item in items]} if items else {}
    return Shape({"type": "array", **prefix, "minItems": len(items), "maxItems": len(items)}, read)


def table(key: Shape, item: Shape) -> Shape:
    """A dict of any *key* to *item*."""

    def read(value: Any, known: Known) -> Any:
        pairs = _checked(value, dict, "an object").items()
        return {_inside(name, key, name, known): _inside(name, item, element, known) for name, element in pairs}

    names = {} if key.schema == {"type": "string"} else {"propertyNames": key.schema}
    return Shape({"type": "object", **names} | ({"additionalProperties": item.schema} if item.schema else {}), read)


def structure(
    members: Sequence[Member], make: Callable[[dict[str, Any]], Any] = dict, rest: Shape | None = None
) -> Shape:
    """What *make* makes of an object of *members*, and of others only where there is a *rest*."""
    shapes = {member.name: member.shape for member in members}
    required = [member.name for member in members if member.required]

    def read(value: Any, known: Known) -> Any:
        object_ = _checked(value, dict, "an object")
        if missing := [name for name in required if name not in object_]:
            raise Misfit(f"lacks {', '.join(missing)}")
        parts = {}
        for name, element in object_.items():
            if (shape := shapes.get(name, rest)) is None:
                raise Misfit(f"has {shown(name)}, which is none of {', '.join(shapes) or 'its properties'}")
            parts[name] = _inside(name, shape, element, known)
        return _built(make, parts, value)

    schema: dict[str, Any] = {"type": "object", "properties": {name: shape.schema for name, shape in shapes.items()}}
    if required:
        schema["required"] = required
    return Shape(schema | {"additionalProperties": (rest.schema or True) if rest else False}, read)


def union(shapes: Sequence[Shape], exact: Iterable[type] = ()) -> Shape:
    """The first of *shapes* that fits; a number that is of an *exact* type stays as it is, whatever comes first."""
    untouched = set(exact)

    def read(value: Any, known: Known) -> Any:
        if type(value) in untouched:
            return value
        misfits = []
        for shape in shapes:
            try:
                return shape.read(value, known)
            except Misfit as misfit:
                misfits.append(misfit)
        # The one that came furthest is the likeliest to have been meant.
        raise max(misfits, key=lambda misfit: len(misfit.path))

    return Shape(_any_of([shape.schema for shape in shapes]), read)


def opaque(make: Callable[[Any], Any], schema: dict[str, Any]) -> Shape:
    """What a class that reads JSON itself makes of it."""
    return Shape(schema, lambda value, _: _built(make, value, value))


def _any_of(schemas: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """As one schema of several types where that says the same: templates show a model the `type`."""
    kinds = [schema.get("type") for schema in schemas]
    (rich, *others) = sorted(schemas, key=lambda schema: schema.keys() <= {"type"})
    simple = all(isinstance(kind, str) for kind in kinds) and len(set(map(str, kinds))) == len(kinds)
    if not simple or any(schema.keys() != {"type"} for schema in others):
        return {"anyOf": list(schemas)}
    if "enum" not in rich:
        return rich | {"type": kinds}
    if {kind for kind in kinds if kind != rich["type"]} == {"null"}:
        return rich | {"type": kinds, "enum": [*rich["enum"], None]}
    return {"anyOf": list(schemas)}


def _inside(step: str | int, shape: Shape, value: Any, known: Known) -> Any:
    try:
        return shape.read(value, known)
    except Misfit as misfit:
        raise Misfit(misfit.problem, (step, *misfit.path)) from misfit.__cause__


def _checked(value: Any, kind: type, name: str) -> Any:
    if not isinstance(value, kind):
        raise Misfit(f"is {shown(value)}; it must be {name}")
    return value


def _built(make: Callable[[Any], Any], parts: Any, value: Any) -> Any:
    try:
        return make(parts)
    except Misfit:
        raise
    except Exception as error:
        # A class may refuse its values with any exception: the model is to hear of it, not the program to end.
        raise Misfit(f"is {shown(value)}, which was refused: {shortened(str(error), 300)}") from error

"""Type hints as shapes: every hint that a tool's parameter, or a member of its class, may have."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import typing
from collections import abc
from collections.abc import Iterator, Mapping
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from nemotron_client.functions.definitions import Definitions
from nemotron_client.functions.docstrings import Documentation
from nemotron_client.functions.json_values import json_text, shortened
from nemotron_client.functions.scalars import SCALARS, choice
from nemotron_client.functions.shapes import ANYTHING, Member, NoSchema, Shape, array, row, structure, table, union

_LISTS: dict[Any, Any] = dict.fromkeys((list, abc.Sequence, abc.MutableSequence, abc.Collection, abc.Iterable), list)
_SETS: dict[Any, Any] = {set: set, abc.Set: set, abc.MutableSet: set, frozenset: frozenset}
_DICTS = (dict, abc.Mapping, abc.MutableMapping)


class Hints:
    """The shapes of one function's hints; `definitions` are what they refer to.

    Hints that are strings may use *names* beside the names of their module.
    """

    def __init__(self, names: Mapping[str, Any]) -> None:
        self.definitions = Definitions()
        self._names = dict(names)

    def member(self, parameter: inspect.Parameter, hint: Any, text: str) -> Member:
        """The *parameter* of a function or a class; *text* is for the model, where the *hint* has none."""
        if hint is parameter.empty:
            raise NoSchema(f"it has no type hint; write one, such as {parameter.name}: str")
        shape = self.shape(hint).described(text)
        # A default of None makes null a value, whatever the hint says.
        if parameter.default is None and not _takes_null(shape.schema):
            shape = union([shape, SCALARS[NoneType]])
        # A default that JSON cannot say is left for Python to fill in.
        with contextlib.suppress(TypeError, ValueError, RecursionError):
            if parameter.default is not parameter.empty:
                shape = Shape(shape.schema | {"default": json.loads(json_text(parameter.default))}, shape.read)
        return Member(parameter.name, shape, parameter.default is parameter.empty)

    def shape(self, hint: Any) -> Shape:
        """The shape of *hint*; `NoSchema` where there is none."""
        if hint is Any or hint is object:
            return ANYTHING
        origin, arguments = get_origin(hint), get_args(hint)
        if origin is Annotated:
            return self.shape(arguments[0]).described(_description(arguments[1:]))
        if origin in (Union, UnionType):
            exact = [kind for kind in map(_bare, arguments) if kind is int or kind is float]
            return union([self.shape(member) for member in arguments], exact)
        if origin is Literal:
            return choice(arguments)
        if target := _target(hint):
            return self.shape(target)
        kind = NoneType if hint is None else origin or hint
        if not isinstance(kind, type):
            raise _unknown(hint)
        return self._of_container(hint, kind, arguments) or self._of_class(hint, kind, arguments)

    def _of_container(self, hint: Any, kind: type, arguments: tuple[Any, ...]) -> Shape | None:
        if kind in _LISTS:
            return array(self.shape(arguments[0] if arguments else Any), _LISTS[kind])
        if kind in _SETS:
            return array(self.shape(arguments[0] if arguments else Any), _SETS[kind], uniqueItems=True)
        if kind is tuple:
            if hint in (tuple, typing.Tuple):  # noqa: UP006 - the alias is what is looked for
                return array(ANYTHING, tuple)
            if len(arguments) == 2 and arguments[1] is ...:
                return array(self.shape(arguments[0]), tuple)
            return row([self.shape(item) for item in arguments if item != ()])
        if kind in _DICTS:
            key, item = arguments or (str, Any)
            names = self.shape(str if key is Any else key)
            if names.schema.get("type") != "string":
                raise NoSchema(f"{_spelled(hint)} has keys that are not strings, as JSON's are")
            return table(names, self.shape(item))
        return None

    def _of_class(self, hint: Any, kind: type, arguments: tuple[Any, ...]) -> Shape:
        if kind in SCALARS:
            return SCALARS[kind]
        if issubclass(kind, Enum):
            return choice(tuple(kind))
        if hasattr(kind, "model_json_schema") and hasattr(kind, "model_validate"):
            return self.definitions.model(kind)
        if issubclass(kind, dict) and hasattr(kind, "__required_keys__"):
            return self.definitions.once(kind, self._of_typed_dict)
        if dataclasses.is_dataclass(kind) and not arguments:
            return self.definitions.once(kind, self._of_dataclass)
        raise _unknown(hint)

    def _of_dataclass(self, kind: Any) -> Shape:
        hints, texts = self._resolved(kind), Documentation.of_class(kind)
        members = []
        # The constructor's: fields may be left out of it, and others be only for it.
        for parameter in inspect.signature(kind).parameters.values():
            with _within(f"{kind.__name__}.{parameter.name}"):
                if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                    raise NoSchema("it cannot be given by its name")
                hint = hints.get(parameter.name, parameter.annotation)
                hint = hint.type if isinstance(hint, dataclasses.InitVar) else hint
                members.append(self.member(parameter, hint, texts.parameters.get(parameter.name, "")))
        return structure(members, lambda values: kind(**values)).described(texts.summary)

    def _of_typed_dict(self, kind: Any) -> Shape:
        texts = Documentation.of_class(kind)
        members = []
        for name, hint in self._resolved(kind).items():
            required = name in kind.__required_keys__
            # `__required_keys__` is wrong where annotations are strings.
            while (marker := getattr(get_origin(hint), "_name", None)) in ("Required", "NotRequired", "ReadOnly"):
                required = required if marker == "ReadOnly" else marker == "Required"
                (hint,) = get_args(hint)
            with _within(f"{kind.__name__}[{name!r}]"):
                members.append(Member(name, self.shape(hint).described(texts.parameters.get(name, "")), required))
        return structure(members).described(texts.summary)

    def _resolved(self, kind: type) -> dict[str, Any]:
        try:
            return typing.get_type_hints(kind, None, {kind.__name__: kind} | self._names, include_extras=True)
        except Exception as error:
            # This runs code of the user's.
            raise NoSchema(
                f"the hints of {kind.__name__} cannot be resolved: {error}; define what they name in its module"
            ) from error


def _takes_null(schema: Mapping[str, Any]) -> bool:
    kinds = schema.get("type", [])
    return (
        not schema.keys() - {"description"}
        or "null" in ([kinds] if isinstance(kinds, str) else kinds)
        or any(map(_takes_null, schema.get("anyOf", ())))
    )


def _target(hint: Any) -> Any:
    """What a NewType, or a type statement's name, stands for."""
    try:
        return getattr(hint, "__supertype__", None) or getattr(hint, "__value__", None)
    except Exception as error:
        # A type statement is evaluated when its value is read.
        raise NoSchema(f"{hint} cannot be resolved: {error}") from error


def _bare(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _description(metadata: tuple[Any, ...]) -> str:
    """The first text that a hint is annotated with: a string, or what a `Field` or a `Doc` holds."""
    for item in metadata:
        for text in (item, getattr(item, "description", None), getattr(item, "documentation", None)):
            if isinstance(text, str):
                return " ".join(text.split())
    return ""


@contextlib.contextmanager
def _within(place: str) -> Iterator[None]:
    try:
        yield
    except NoSchema as error:
        raise NoSchema(f"{place}: {error}") from error.__cause__


def _unknown(hint: Any) -> NoSchema:
    return NoSchema(f"{_spelled(hint)} is not among the hints that have a JSON Schema")


def _spelled(hint: Any) -> str:
    return shortened(inspect.formatannotation(hint))

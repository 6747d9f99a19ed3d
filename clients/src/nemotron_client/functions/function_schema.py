"""A Python function as a tool: its name, its docstring's summary, the schema of its parameters, and their reader."""

from __future__ import annotations

import contextlib
import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from nemotron_client.errors import InvalidRequest
from nemotron_client.functions.docstrings import Documentation
from nemotron_client.functions.hints import Hints
from nemotron_client.functions.json_values import shortened
from nemotron_client.functions.shapes import ANYTHING, Misfit, NoSchema, structure

_REMEDY = "give the schema yourself, as Tool(name=..., description=..., parameters={...}, function=...)"


@dataclass(frozen=True, kw_only=True)
class FunctionSchema:
    """A function as the model sees it; `read` makes its keyword arguments of JSON, or raises `Misfit`."""

    name: str
    description: str
    parameters: dict[str, Any]
    read: Callable[[dict[str, Any]], dict[str, Any]]

    @classmethod
    def of(cls, function: Callable[..., Any]) -> FunctionSchema:
        """The schema of *function*: a function, a method, a class, a `partial`, or an object that can be called."""
        layers = _layers(function)
        name = next((layer.__name__ for layer in layers if hasattr(layer, "__name__")), type(layers[-1]).__name__)
        if name == "<lambda>":
            raise InvalidRequest(
                f"a lambda has neither a name nor hints nor a docstring; write a def, or {_REMEDY}", field="function"
            )
        written = _written(layers[-1])
        texts, names = _documentation(layers, written), _own_names(written)
        hints = Hints(names)
        # What a `partial` has set is not the model's to know, nor to change.
        hidden = {name for partial in layers[:-1] for name in partial.keywords}
        members, rest = [], None
        for parameter in _parameters(function, name):
            with _naming(name, parameter):
                if parameter.name in hidden:
                    continue
                if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
                    raise NoSchema("JSON has names for all arguments, and this has none; take it by its name")
                hint = _resolved(parameter.annotation, written, names)
                if parameter.kind is not parameter.VAR_KEYWORD:
                    members.append(hints.member(parameter, hint, texts.parameters.get(parameter.name, "")))
                else:
                    rest = ANYTHING if hint is parameter.empty else hints.shape(hint)
        shape = structure(members, functools.partial(_without, hidden), rest)
        definitions = {"$defs": hints.definitions.schemas} if hints.definitions.schemas else {}
        return cls(
            name=name,
            description=texts.summary,
            parameters=shape.schema | definitions,
            read=lambda arguments: typing.cast("dict[str, Any]", shape.read(arguments, {})),
        )


def _layers(function: Any) -> list[Any]:
    """*function*, and what it is a `partial` of, from the outside to the inside."""
    layers = [function]
    while isinstance(layers[-1], functools.partial):
        layers.append(layers[-1].func)
    return layers


def _written(function: Any) -> Any:
    """The `def` behind *function*: hints that are strings are resolved in its module."""
    function = inspect.unwrap(function)
    if inspect.isclass(function):
        return inspect.unwrap(function.__init__)
    called = function if inspect.isroutine(function) else type(function).__call__
    return inspect.unwrap(getattr(called, "__func__", called))


def _documentation(layers: list[Any], written: Any) -> Documentation:
    # A partial without a docstring of its own shows that of `functools.partial`.
    function = next(layer for layer in layers if layer.__doc__ != functools.partial.__doc__ or layer is layers[-1])
    if inspect.isclass(function):
        return Documentation.of_class(function)
    # The docstring of an object's `__call__` goes before that of its class.
    return Documentation.of(
        (None if inspect.isroutine(function) else inspect.getdoc(written)) or inspect.getdoc(function)
    )


def _without(hidden: set[str], arguments: dict[str, Any]) -> dict[str, Any]:
    if names := hidden & arguments.keys():
        raise Misfit(f"has {', '.join(sorted(names))}, which cannot be given")
    return arguments


def _parameters(function: Any, name: str) -> list[inspect.Parameter]:
    if isinstance(function, functools.partial):
        # Anew, because `functools.update_wrapper` hides which arguments it has set.
        function = functools.partial(function.func, *function.args, **function.keywords)
    try:
        return list(inspect.signature(function).parameters.values())
    except (NameError, TypeError, ValueError) as error:
        raise InvalidRequest(
            f"{name} has no signature that can be read ({error}); {_REMEDY}", field="function"
        ) from error


def _own_names(written: Any) -> dict[str, Any]:
    """The names that *written* itself knows: its type parameters, and the variables of functions around it."""
    if not inspect.isfunction(written):
        return {}
    names = {parameter.__name__: parameter for parameter in getattr(written, "__type_params__", ())}
    for name, cell in zip(written.__code__.co_freevars, written.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # it has no value yet
            names[name] = cell.cell_contents
    return names


def _resolved(annotation: Any, written: Any, names: dict[str, Any]) -> Any:
    """What *annotation* means, which may be a string, or hold some."""
    holder: Any = types.SimpleNamespace(__annotations__={"hint": annotation})
    try:
        return typing.get_type_hints(holder, getattr(written, "__globals__", {}), names or None, True)["hint"]
    except Exception as error:
        # This runs code of the user's.
        raise NoSchema(
            f"it cannot be resolved ({error}): hints are looked up in the function's module; "
            "define what it names there, not in a function nor under TYPE_CHECKING"
        ) from error


@contextlib.contextmanager
def _naming(function: str, parameter: inspect.Parameter) -> Iterator[None]:
    """Turn a hint without a schema into an `InvalidRequest` that names the function and the parameter."""
    try:
        yield
    except (NoSchema, RecursionError) as error:
        hint = parameter.annotation
        written = hint if isinstance(hint, str) else inspect.formatannotation(hint)
        spelled = "" if hint is parameter.empty else f" ({shortened(written)})"
        problem = "it holds itself without end" if isinstance(error, RecursionError) else error
        raise InvalidRequest(
            f"{function}: parameter {parameter.name}{spelled}: {problem}; or {_REMEDY}", field="function"
        ) from error

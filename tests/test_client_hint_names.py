"""Names in hints: those of the module of a function, and classes that hold each other."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Union

import pytest

from hinted import Size, bound
from nemotron_client.errors import InvalidRequest
from nemotron_client.tools import Tool


@dataclass
class Tree:
    """A class that holds itself."""

    size: Size
    inner: Tree | None = None


def test_hints_in_strings_mean_what_is_in_the_module_of_the_function() -> None:
    def grow(tree: Tree, sizes: dict[Size, Tree]) -> Missing:  # type: ignore[name-defined] # noqa: F821
        return tree

    call = bound(grow, {"tree": {"size": "s", "inner": {"size": "l"}}, "sizes": {"s": {"size": "s"}}})

    assert call.arguments == {"tree": Tree(Size.SMALL, Tree(Size.LARGE)), "sizes": {Size.SMALL: Tree(Size.SMALL)}}


def test_hints_in_strings_do_not_mean_what_is_around_the_function() -> None:
    class Local(enum.Enum):
        A = "a"

    def pick(kind: Local) -> None:
        raise NotImplementedError

    with pytest.raises(
        InvalidRequest, match=r"pick: parameter kind \(Local\): .* looked up in the function's module; def"
    ):
        Tool.of(pick)


def test_hints_in_strings_mean_what_a_function_holds_on_to() -> None:
    def make() -> Callable[..., Any]:
        class Local(enum.Enum):
            A = "a"

        def pick(kind: Local = Local.A) -> Local:
            return Local(kind)

        return pick

    assert bound(make(), {"kind": "a"}).invoke().name == "A"


def test_a_wrapped_function_has_the_hints_of_what_it_wraps() -> None:
    namespace: dict[str, Any] = {"Size": int}
    code = "import functools\ndef dress(f):\n @functools.wraps(f)\n def g(**a): return f(**a)\n return g"
    exec(code, namespace)  # noqa: S102 - a module of its own, where Size is another

    def pick(size: Size) -> Size:
        return size

    assert bound(namespace["dress"](pick), {"size": "l"}).invoke() is Size.LARGE


@dataclass
class Sum:
    """A term of terms."""

    left: Term
    right: Term
    sign: Literal["+"]


@dataclass
class Product:
    """Another."""

    left: Term
    right: Term
    sign: Literal["*"]


Term = Union[Sum, Product, int]  # noqa: UP007 - looked up by name


def test_unions_of_classes_that_hold_each_other_are_read_without_trying_every_way() -> None:
    def evaluate(term: Term) -> None: ...

    term: Any = 1
    depth = 28
    for _ in range(depth):
        term = {"left": term, "right": 2, "sign": "*"}
    value = bound(evaluate, {"term": term}).arguments["term"]

    for _ in range(depth):
        assert isinstance(value, Product)
        value = value.left
    assert value == 1

"""Both clients are alike: the same methods with the same parameters, and both streams."""

from __future__ import annotations

import inspect
from typing import Any

from nemotron_client import AsyncClient, AsyncStream, Client, Stream


def public_methods(kind: type) -> dict[str, Any]:
    """The public methods."""
    return {
        name: value
        for name, value in inspect.getmembers(kind, inspect.isfunction)
        if name == "__init__" or not name.startswith("_")
    }


def test_both_clients_have_the_same_methods_with_the_same_parameters() -> None:
    ours, theirs = public_methods(Client), public_methods(AsyncClient)

    def parameters(method: Any) -> list[inspect.Parameter]:
        return list(inspect.signature(method).parameters.values())

    assert {name: parameters(method) for name, method in ours.items()} == {
        name: parameters(method) for name, method in theirs.items()
    }
    assert {name: method.__doc__ for name, method in ours.items()} == {
        name: method.__doc__ for name, method in theirs.items()
    }


def test_both_streams_have_the_same_methods() -> None:
    ours, theirs = public_methods(Stream), public_methods(AsyncStream)

    assert ours.keys() == theirs.keys()
    assert ours["responses"].__doc__ == theirs["responses"].__doc__


def test_what_returns_a_value_is_awaited_and_what_returns_a_stream_is_not() -> None:
    ours, theirs = public_methods(Client), public_methods(AsyncClient)

    def returns(method: Any) -> str:
        return str(inspect.signature(method).return_annotation)

    for name, method in theirs.items():
        streams = returns(ours[name]).startswith("Stream[")
        plain = name in ("__init__", "with_options")
        assert inspect.iscoroutinefunction(method) != (streams or plain), name
        assert returns(method) == ("Async" if streams else "") + returns(ours[name]), name

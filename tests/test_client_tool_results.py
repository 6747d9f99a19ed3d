"""The text that the model gets for what a function returns or raises."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import Enum
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pydantic
import pytest

from nemotron_client.errors import ToolFailed
from nemotron_client.events import ToolCall
from nemotron_client.messages import ToolMessage
from nemotron_client.tools import BoundCall, Toolbox, ToolResult


class Unit(Enum):
    """Of a temperature."""

    CELSIUS = "celsius"


def get_weather(city: str) -> str:
    """Tell the weather in a city."""
    return f"{city}: 20 celsius"


def call(name: str, arguments: Any) -> ToolCall:
    return ToolCall(index=0, id="call_1", name=name, arguments_json=json.dumps(arguments))


def bound(function: Callable[..., Any], **arguments: Any) -> BoundCall:
    return Toolbox([function]).bind(call(function.__name__, arguments))


def test_a_function_that_raises_is_a_failed_tool() -> None:
    def divide(by: int) -> float:
        return 1 / by

    async def wait(seconds: int) -> None:
        raise TimeoutError(f"{seconds} s")

    with pytest.raises(ToolFailed, match=r"^divide raised ZeroDivisionError: division by zero$") as failure:
        bound(divide, by=0).invoke()
    with pytest.raises(ToolFailed, match=r"^wait raised TimeoutError: 5 s$"):
        asyncio.run(bound(wait, seconds=5).invoke_async())

    assert failure.value.tool == "divide"
    assert isinstance(failure.value.__cause__, ZeroDivisionError)


def test_an_exception_without_text_is_a_failed_tool_too() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise ValueError("no text")

    def fail() -> None:
        raise Odd

    with pytest.raises(ToolFailed, match=r"fail raised .*Odd"):
        bound(fail).invoke()


@dataclass
class Place:
    """A dataclass."""

    name: str
    seen: date


class Model(pydantic.BaseModel):
    """A model."""

    price: Decimal = pydantic.Field(alias="Price")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is\n", "as it is\n"),
        (None, "null"),
        (True, "true"),
        (1.5, "1.5"),
        ({"ä": [1, None]}, '{"ä": [1, null]}'),
        (Place("Köln", date(2024, 2, 29)), '{"name": "Köln", "seen": "2024-02-29"}'),
        ((Unit.CELSIUS, {3, 1, 2}), '["celsius", [1, 2, 3]]'),
        (Unit.CELSIUS, "celsius"),
        (date(2024, 2, 29), "2024-02-29"),
        ({Unit.CELSIUS: PurePosixPath("a/b"), 7: range(2)}, '{"celsius": "a/b", "7": [0, 1]}'),
        ([Model(Price=Decimal("1.50"))], '[{"Price": "1.50"}]'),
        (np.array([[1.5, 2]]), "[[1.5, 2.0]]"),
        (np.int64(3), "3"),
    ],
)
def test_results_are_text_or_json(value: object, text: str) -> None:
    assert bound(get_weather, city="Bonn").text_of(value) == text


ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize(
    "value", [object(), b"x", float("nan"), {"a": {1: Ellipsis}}, ENDLESS, "\ud800", ["\ud800"], {(1, 2): 3}, Unit, int]
)
def test_a_result_that_is_no_json_is_a_failed_tool(value: object) -> None:
    with pytest.raises(ToolFailed, match=r"get_weather returned a \w+ that is neither text nor JSON") as failure:
        bound(get_weather, city="Bonn").text_of(value)

    assert failure.value.tool == "get_weather"


def test_a_result_answers_its_call() -> None:
    result = ToolResult(call=call("f", {}), content="3")

    assert result.as_message() == ToolMessage(content="3", tool_call_id="call_1", name="f")
    assert result.error is None

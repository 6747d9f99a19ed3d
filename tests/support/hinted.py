"""Classes of every kind that a hint can name, and functions that have a hint."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, NewType, TypedDict

import pydantic
from typing_extensions import NotRequired, Required

from nemotron_client.events import ToolCall
from nemotron_client.tools import BoundCall, Tool, Toolbox


class Size(enum.Enum):
    """Texts."""

    SMALL = "s"
    LARGE = "l"


class Level(enum.IntEnum):
    """Numbers."""

    LOW = 1
    HIGH = 2


class Corner(enum.Enum):
    """What JSON has no values for."""

    TOP = (0, 1)
    END = (1, 1)


class Word(str, enum.Enum):
    """Texts that are enumerated."""

    YES = "yes"


@dataclass(frozen=True)
class Stop:
    """Where a route stops.

    Attributes:
        name: What it is called.

    """

    name: str
    when: date | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Node:
    """A tree."""

    value: int
    left: Node | None = None
    right: Node | None = None


class Options(TypedDict, total=False):
    """How to go."""

    size: Required[Size]
    deep: NotRequired[list[Stop]]
    note: str


class Item(pydantic.BaseModel):
    """What is sold."""

    name: str
    price: Decimal = pydantic.Field(description="In euros.")


class Order(pydantic.BaseModel):
    """What is bought."""

    items: list[Item]
    part_of: Order | None = None


Name = NewType("Name", str)


def taking(hint: Any) -> Callable[..., Any]:
    """A function of one parameter, `value`, with *hint*."""

    def take(value: Any) -> Any:
        return value

    take.__annotations__ = {"value": hint}
    return take


def schema(hint: Any) -> Any:
    return Tool.of(taking(hint)).parameters["properties"]["value"]


def bound(function: Callable[..., Any], arguments: Mapping[str, Any]) -> BoundCall:
    call = ToolCall(index=0, id="", name=Tool.of(function).name, arguments_json=json.dumps(arguments))
    return Toolbox([function]).bind(call)


def read(hint: Any, value: Any) -> Any:
    return bound(taking(hint), {"value": value}).arguments["value"]

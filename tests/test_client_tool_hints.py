"""Type hints as JSON Schema, and JSON as values of hints."""

from __future__ import annotations

import enum
import sys
import typing
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence, Set
from dataclasses import KW_ONLY, InitVar, dataclass, field, make_dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, TypedDict, Union
from uuid import UUID

import pydantic
import pytest
from typing_extensions import TypeAliasType

from hinted import Corner, Item, Level, Name, Node, Options, Order, Size, Stop, Word, bound, read, schema, taking
from nemotron_client.errors import InvalidArguments, InvalidRequest
from nemotron_client.tools import Tool

TEXT, WHOLE = {"type": "string"}, {"type": "integer"}


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (str, TEXT),
        (int, WHOLE),
        (float, {"type": "number"}),
        (bool, {"type": "boolean"}),
        (None, {"type": "null"}),
        (Any, {}),
        (object, {}),
        (Name, TEXT),
        (TypeAliasType("Names", list[str]), {"type": "array", "items": TEXT}),
        (Annotated[int, "how many"], WHOLE | {"description": "how many"}),
        (datetime, {"type": "string", "format": "date-time"}),
        (date, {"type": "string", "format": "date"}),
        (time, {"type": "string", "format": "time"}),
        (UUID, {"type": "string", "format": "uuid"}),
        (Decimal, TEXT),
        (Path, TEXT),
        (Size, {"type": "string", "enum": ["s", "l"]}),
        (Level, {"type": "integer", "enum": [1, 2]}),
        (Corner, {"type": "string", "enum": ["TOP", "END"]}),
        (Word, {"type": "string", "enum": ["yes"]}),
        (Literal["a", 1, None, Size.LARGE], {"type": ["string", "integer", "null"], "enum": ["a", 1, None, "l"]}),
        (list, {"type": "array"}),
        (typing.List, {"type": "array"}),  # noqa: UP006
        (list[Annotated[int, "one"]], {"type": "array", "items": WHOLE | {"description": "one"}}),
        (Sequence[str], {"type": "array", "items": TEXT}),
        (Iterable[str], {"type": "array", "items": TEXT}),
        (set[str], {"type": "array", "items": TEXT, "uniqueItems": True}),
        (Set[str], {"type": "array", "items": TEXT, "uniqueItems": True}),
        (tuple, {"type": "array"}),
        (tuple[int, ...], {"type": "array", "items": WHOLE}),
        (tuple[int, str], {"type": "array", "prefixItems": [WHOLE, TEXT], "minItems": 2, "maxItems": 2}),
        (tuple[()], {"type": "array", "minItems": 0, "maxItems": 0}),
        (dict, {"type": "object"}),
        (dict[str, int], {"type": "object", "additionalProperties": WHOLE}),
        (Mapping[Any, Any], {"type": "object"}),
        (MutableMapping[date, Any], {"type": "object", "propertyNames": {"type": "string", "format": "date"}}),
        (int | None, {"type": ["integer", "null"]}),
        (Optional[Size], {"type": ["string", "null"], "enum": ["s", "l", None]}),  # noqa: UP045
        (Union[int, str, list[int]], {"type": ["integer", "string", "array"], "items": WHOLE}),  # noqa: UP007
        (Size | int, {"anyOf": [{"type": "string", "enum": ["s", "l"]}, WHOLE]}),
        (date | str, {"anyOf": [{"type": "string", "format": "date"}, TEXT]}),
        (Any | None, {"anyOf": [{}, {"type": "null"}]}),
    ],
)
def test_a_hint_has_its_schema(hint: Any, expected: dict[str, Any]) -> None:
    assert schema(hint) == expected


def test_classes_are_defined_once_and_by_name() -> None:
    def plan(first: Stop, others: list[Stop], options: Options | None = None) -> None: ...

    parameters = Tool.of(plan).parameters

    assert parameters["properties"] == {
        "first": {"$ref": "#/$defs/Stop"},
        "others": {"type": "array", "items": {"$ref": "#/$defs/Stop"}},
        "options": {"anyOf": [{"$ref": "#/$defs/Options"}, {"type": "null"}], "default": None},
    }
    assert parameters["$defs"] == {
        "Stop": {
            "type": "object",
            "description": "Where a route stops.",
            "properties": {
                "name": {"type": "string", "description": "What it is called."},
                "when": {"type": ["string", "null"], "format": "date", "default": None},
                "tags": {"type": "array", "items": {"type": "string"}, "default": []},
            },
            "required": ["name"],
            "additionalProperties": False,
        },
        "Options": {
            "type": "object",
            "description": "How to go.",
            "properties": {
                "size": {"type": "string", "enum": ["s", "l"]},
                "deep": {"type": "array", "items": {"$ref": "#/$defs/Stop"}},
                "note": {"type": "string"},
            },
            "required": ["size"],
            "additionalProperties": False,
        },
    }


def test_classes_of_one_name_are_distinguished() -> None:
    namesake = make_dataclass("Stop", [("number", int)])
    like_item = pydantic.create_model("Item", colour=(str, ...))
    like_order = pydantic.create_model("Order", items=(list[like_item], ...))  # type: ignore[valid-type]

    def plan(a: Any, b: Any, c: Any, d: Any, e: Any) -> None: ...

    plan.__annotations__ = {"a": Stop, "b": namesake, "c": Order, "d": like_order, "e": like_item}
    stop, order = {"name": "x"}, {"items": [{"name": "a", "price": "1"}], "part_of": {"items": []}}
    call = bound(
        plan, {"a": stop, "b": {"number": 1}, "c": order, "d": {"items": [{"colour": "red"}]}, "e": {"colour": "red"}}
    ).arguments

    assert call["a"] == Stop("x")
    assert call["b"] == namesake(1)
    assert call["c"] == Order(items=[Item(name="a", price=Decimal(1))], part_of=Order(items=[]))
    assert call["d"] == like_order(items=[like_item(colour="red")])
    assert call["e"] == like_item(colour="red")


END = Stop("x", date(2024, 2, 29))


def test_defaults_are_in_the_schema_where_json_has_them() -> None:
    def plan(
        where: Stop = END,
        tags: frozenset[str] = frozenset({"b", "a"}),
        level: Level = Level.HIGH,
        sentinel: Any = object(),  # noqa: B008
        bound: float = float("inf"),
        order: Order | None = None,
        item: Item = Item(name="a", price=Decimal(1)),  # noqa: B008
    ) -> None: ...

    properties = Tool.of(plan).parameters["properties"]

    assert {name: about["default"] for name, about in properties.items() if "default" in about} == {
        "where": {"name": "x", "when": "2024-02-29", "tags": []},
        "tags": ["a", "b"],
        "level": 2,
        "order": None,
        "item": {"name": "a", "price": "1"},
    }
    assert "required" not in Tool.of(plan).parameters


def test_a_default_of_none_allows_null() -> None:
    def plan(days: int = None, stop: Stop = None, anything: Any = None) -> None: ...  # type: ignore[assignment] # noqa: RUF013

    call = bound(plan, {"days": None, "stop": None, "anything": None})

    assert call.arguments == {"days": None, "stop": None, "anything": None}


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (int, 3.0, 3),
        (int, 1e2, 100),
        (float, 3, 3.0),
        (int | float, 3, 3),
        (float | int, 2**60 + 1, 2**60 + 1),
        (Annotated[float, ""] | Annotated[int, ""], 2**60 + 1, 2**60 + 1),
        (float | int, 2.5, 2.5),
        (int | str, 3.0, 3),
        (bool | int, True, True),
        (int | bool, True, True),
        (Literal[1, True], True, True),
        (Level, 2.0, Level.HIGH),
        (Corner, "END", Corner.END),
        (Literal[Size.LARGE], "l", Size.LARGE),
        (date | str, "2024-02-29", date(2024, 2, 29)),
        (date | str, "2024-02-30", "2024-02-30"),
        (datetime, "2024-02-29T10:00:00Z", datetime(2024, 2, 29, 10, tzinfo=timezone.utc)),
        (datetime, "2024-02-29T10:00:00", datetime(2024, 2, 29, 10)),
        (time, "10:00:00z", time(10, tzinfo=timezone.utc)),
        (Sequence[int], [1, 2], [1, 2]),
        (tuple, [1, [2]], (1, [2])),
        (set[Size], ["s"], {Size.SMALL}),
        (Set[tuple[int, str]], [[1, "a"]], {(1, "a")}),
        (frozenset[date], ["2024-02-29"], frozenset({date(2024, 2, 29)})),
        (Mapping[Size, Decimal], {"s": "1.50"}, {Size.SMALL: Decimal("1.50")}),
        (Stop | Node, {"value": 1}, Node(1)),
        (list[Stop] | Stop, {"name": "a"}, Stop("a")),
        (Options, {"size": "s", "deep": [{"name": "a"}]}, {"size": Size.SMALL, "deep": [Stop("a")]}),
        (Item | None, {"name": "a", "price": "1.5"}, Item(name="a", price=Decimal("1.5"))),
        (dict[str, Item], {"x": {"name": "a", "price": 1}}, {"x": Item(name="a", price=Decimal(1))}),
        (Any, {"a": [3.0]}, {"a": [3.0]}),
    ],
)
def test_json_becomes_what_the_hint_says(hint: Any, value: Any, expected: Any) -> None:
    result = read(hint, value)

    assert (result, type(result)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("hint", "value", "message"),
    [
        (int, True, "value is true; it must be of type integer"),
        (int, 3.5, "value is 3.5; it must be of type integer"),
        (int, "3", 'value is "3"; it must be of type integer'),
        (bool, 1, "value is 1; it must be of type boolean"),
        pytest.param(float, 10**309, r"value is 10+\.\.\.: int too large to convert to float", id="float-huge"),
        (Literal[1], True, r"value is true; it must be of type integer"),
        (Size, "m", r'value is "m"; it must be one of \["s", "l"\]'),
        (date, "2024-02-30", 'value is "2024-02-30": day is out of range for month'),
        (UUID, "x", 'value is "x": badly formed hexadecimal UUID string'),
        (Decimal, "much", 'value is "much": it must be a decimal number'),
        (Decimal, "NaN", 'value is "NaN": it must be finite'),
        (tuple[int, str], [1], r"value is \[1\]; the schema wants minItems 2"),
        (tuple[int, str], [1, 2], r"value\[1\] is 2; it must be of type string"),
        (set[int], [1, 1.0], "value is .*; the schema wants uniqueItems true"),
        (set[Any], [[1]], r"value is \[\[1\]\], which was refused: unhashable type: 'list'"),
        (dict[date, int], {"x": 1}, r"value.x is \"x\": Invalid isoformat string: 'x'"),
        (dict[str, int], {"a b": "c"}, r'value\["a b"\] is "c"; it must be of type integer'),
        (list[Stop], [{"name": "a"}, {"name": 5}], r"value\[1\].name is 5; it must be of type string"),
        (Stop, {}, "value lacks name"),
        (Stop, {"name": "a", "zip": 1}, 'value has "zip", which is none of name, when, tags'),
        (Node | None, {"value": 1, "left": {"value": "x"}}, r'value.left.value is "x"; it must be of type integer'),
        (Options, {"note": "a"}, "value lacks size"),
        (Order, {"items": [{"name": "a"}]}, r"value.items\[0\] lacks price"),
        (Item, {"name": "a", "price": "x"}, "value is .*, which was refused: 1 validation error for Item price .*"),
    ],
)
def test_what_does_not_fit_is_reported_with_its_place(hint: Any, value: Any, message: str) -> None:
    with pytest.raises(InvalidArguments, match=f"^take: {message}") as refused:
        read(hint, value)

    assert refused.value.tool == "take"


def test_a_class_may_refuse_its_values() -> None:
    @dataclass
    class Even:
        number: int

        def __post_init__(self) -> None:
            if self.number % 2:
                raise KeyError(f"{self.number} is odd")

    assert read(Even | str, "a") == "a"
    with pytest.raises(InvalidArguments, match=r'value is \{"number": 3\}, which was refused: .3 is odd'):
        read(Even, {"number": 3})


@pytest.mark.skipif(sys.version_info < (3, 11), reason="CPython 3.10 cannot read InitVar in a string")
def test_what_a_constructor_takes_is_what_a_dataclass_has() -> None:
    @dataclass
    class Job:
        name: str
        scale: InitVar[int]
        _: KW_ONLY
        parts: list[str] = field(default_factory=list)
        size: int = field(init=False)

        def __post_init__(self, scale: int) -> None:
            self.size = scale * len(self.parts)

    job = read(Job, {"name": "a", "scale": 2, "parts": ["x"]})

    assert job.size == 2
    assert Tool.of(taking(Job)).parameters["$defs"]["Job"]["required"] == ["name", "scale"]


class Handle:
    """What JSON knows nothing of."""


class Late:
    """What the name of a type statement is."""

    @property
    def __value__(self) -> Any:
        raise NameError("name 'Nowhere' is not defined")


@dataclass
class Holding:
    """A dataclass that has some."""

    handles: list[Handle]


class Loose(TypedDict):
    """A dict that has one."""

    handle: Handle


class Unspeakable(pydantic.BaseModel):
    """A model without a schema."""

    act: Callable[[], None]


Box = typing.TypeVar("Box")


@dataclass
class Boxed(typing.Generic[Box]):
    """A class of many types."""

    inside: Box


@pytest.mark.parametrize(
    ("hint", "message"),
    [
        (bytes, r"take: parameter value \(bytes\): bytes is not among the hints that have a JSON Schema; or give the"),
        (Handle, r"\(.*Handle\): .*Handle is not among"),
        (
            "Nowhere",
            r"\(Nowhere\): it cannot be resolved \(name 'Nowhere' is not defined\): .*; define what it names there",
        ),
        ("list[", r"\(list\[\): it cannot be resolved"),
        (list[bytes], r"\(list\[bytes\]\): bytes is not among"),
        (Callable[[int], int], "Callable.* is not among"),
        (timedelta, "timedelta is not among"),
        (dict[int, str], r"dict\[int, str\] has keys that are not strings"),
        (Literal[b"x"], "one of its values cannot be JSON: JSON has nothing for bytes"),
        (enum.Enum("Nothing", []), "it has no values to choose from"),
        (Holding, "Holding.handles: .*Handle is not among"),
        (Loose, r"Loose\['handle'\]: .*Handle is not among"),
        (Unspeakable, "Unspeakable has no schema: .*Callable"),
        (Boxed[int], r"Boxed\[int\] is not among"),
        (Boxed, r"Boxed.inside: ~Box is not among"),
        (Late(), "cannot be resolved: name 'Nowhere' is not defined"),
        (5, r"\(5\): 5 is not among"),
        (make_dataclass("Odd", [("x", "Nowhere")]), "the hints of Odd cannot be resolved: name 'Nowhere'"),
    ],
)
def test_a_hint_without_a_schema_is_reported_with_its_place(hint: Any, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        Tool.of(taking(hint))


def test_a_class_that_only_acts_like_a_model_is_one() -> None:
    class Shout:
        def __init__(self, text: str) -> None:
            self.text = text

        @classmethod
        def model_json_schema(cls) -> dict[str, Any]:
            return {"type": "string", "minLength": 1}

        @classmethod
        def model_validate(cls, value: str) -> Shout:
            return cls(value.upper())

    assert read(list[Shout], ["a"])[0].text == "A"
    with pytest.raises(InvalidArguments, match=r'value\[0\] is ""; the schema wants minLength 1'):
        read(list[Shout], [""])


def test_a_hint_that_never_ends_is_refused() -> None:
    class Endless:
        __supertype__: Any = None

    Endless.__supertype__ = list[Endless]

    with pytest.raises(InvalidRequest, match=r"take: parameter value .*: it holds itself without end; or give"):
        Tool.of(taking(Endless))

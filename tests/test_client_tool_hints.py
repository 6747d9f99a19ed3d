"""Type hints as JSON Schema, and JSON as the values that hints say."""

from __future__ import annotations

import enum
import json
import sys
import typing
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence, Set
from dataclasses import KW_ONLY, InitVar, dataclass, field, make_dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, NewType, Optional, TypedDict, Union
from uuid import UUID

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import NotRequired, Required, TypeAliasType

from nemotron_client.errors import InvalidArguments, InvalidRequest
from nemotron_client.events import ToolCall
from nemotron_client.functions.json_values import json_text
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


def test_classes_of_one_name_are_told_apart() -> None:
    other = make_dataclass("Stop", [("number", int)])
    like_item = pydantic.create_model("Item", colour=(str, ...))
    like_order = pydantic.create_model("Order", items=(list[like_item], ...))  # type: ignore[valid-type]

    def plan(a: Any, b: Any, c: Any, d: Any, e: Any) -> None: ...

    plan.__annotations__ = {"a": Stop, "b": other, "c": Order, "d": like_order, "e": like_item}
    stop, order = {"name": "x"}, {"items": [{"name": "a", "price": "1"}], "part_of": {"items": []}}
    made = bound(
        plan, {"a": stop, "b": {"number": 1}, "c": order, "d": {"items": [{"colour": "red"}]}, "e": {"colour": "red"}}
    ).arguments

    assert made["a"] == Stop("x")
    assert made["b"] == other(1)
    assert made["c"] == Order(items=[Item(name="a", price=Decimal(1))], part_of=Order(items=[]))
    assert made["d"] == like_order(items=[like_item(colour="red")])
    assert made["e"] == like_item(colour="red")


def test_what_a_default_says_is_told_where_json_can() -> None:
    def plan(
        where: Stop = Stop("x", date(2024, 2, 29)),
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

    made = bound(plan, {"days": None, "stop": None, "anything": None})

    assert made.arguments == {"days": None, "stop": None, "anything": None}


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
    made = read(hint, value)

    assert (made, type(made)) == (expected, type(expected))


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
def test_what_does_not_fit_is_told_by_its_place(hint: Any, value: Any, message: str) -> None:
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

    made = read(Job, {"name": "a", "scale": 2, "parts": ["x"]})

    assert made.size == 2
    assert Tool.of(taking(Job)).parameters["$defs"]["Job"]["required"] == ["name", "scale"]


@dataclass
class Tree:
    """A class that holds itself."""

    size: Size
    inner: Tree | None = None


def test_hints_in_strings_mean_what_is_in_the_module_of_the_function() -> None:
    def grow(tree: Tree, sizes: dict[Size, Tree]) -> Missing:  # type: ignore[name-defined] # noqa: F821
        return tree

    made = bound(grow, {"tree": {"size": "s", "inner": {"size": "l"}}, "sizes": {"s": {"size": "s"}}})

    assert made.arguments == {"tree": Tree(Size.SMALL, Tree(Size.LARGE)), "sizes": {Size.SMALL: Tree(Size.SMALL)}}


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
def test_a_hint_without_a_schema_is_told_by_its_place(hint: Any, message: str) -> None:
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
    made = bound(evaluate, {"term": term}).arguments["term"]

    for _ in range(depth):
        assert isinstance(made, Product)
        made = made.left
    assert made == 1


LEAVES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (str, st.text(max_size=5)),
    (int, st.integers()),
    (bool, st.booleans()),
    (float, st.floats(allow_nan=False, allow_infinity=False)),
    (None, st.none()),
    (Size, st.sampled_from(Size)),
    (Level, st.sampled_from(Level)),
    (Corner, st.sampled_from(Corner)),
    (Literal["a", 2, True, None], st.sampled_from(["a", 2, True, None])),
    (date, st.dates()),
    (time, st.times(timezones=st.none() | st.just(timezone.utc))),
    (datetime, st.datetimes(timezones=st.none() | st.just(timezone(timedelta(hours=-3, minutes=-30))))),
    (UUID, st.uuids()),
    (Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    (PurePath, st.text("ab./", max_size=5).map(PurePath)),
    (Stop, st.builds(Stop, st.text(max_size=3), st.none() | st.dates(), st.lists(st.text(max_size=3)).map(tuple))),
    (Node, st.recursive(st.builds(Node, st.integers()), lambda inner: st.builds(Node, st.integers(), inner, inner))),
]
KEYS = [each for each in LEAVES if each[0] in (str, Size, date, UUID)]


def of(generic: Any, *arguments: Any) -> Any:
    """A hint that is known only when it is needed."""
    return generic[arguments if len(arguments) > 1 else arguments[0]]


def wrapped(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Hints made of *inner*, which are pairs of a hint and of what makes its values, in the same way."""
    leaves = st.sampled_from(LEAVES)
    return st.one_of(
        inner.map(lambda one: (of(list, one[0]), st.lists(one[1], max_size=3))),
        inner.map(lambda one: (of(tuple, one[0], ...), st.lists(one[1], max_size=3).map(tuple))),
        leaves.map(lambda one: (of(set, one[0]), st.sets(one[1], max_size=3))),
        leaves.map(lambda one: (of(frozenset, one[0]), st.frozensets(one[1], max_size=3))),
        st.tuples(inner, inner).map(lambda two: (of(tuple, two[0][0], two[1][0]), st.tuples(two[0][1], two[1][1]))),
        st.tuples(st.sampled_from(KEYS), inner).map(
            lambda two: (of(dict, two[0][0], two[1][0]), st.dictionaries(two[0][1], two[1][1], max_size=3))
        ),
        inner.map(lambda one: (of(Optional, one[0]), st.none() | one[1])),
        inner.map(
            lambda one: (
                of(Union, int, of(list, one[0]), str),
                st.integers() | st.lists(one[1], max_size=3) | st.text(max_size=3),
            )
        ),
        inner.map(lambda one: (of(Annotated, one[0], "a text"), one[1])),
    )


HINTED = st.recursive(st.sampled_from(LEAVES), wrapped, max_leaves=4)


@given(st.data())
def test_every_value_of_every_hint_survives_the_way_through_json(data: st.DataObject) -> None:
    hint, values = data.draw(HINTED)
    value = data.draw(values)

    made = read(hint, json.loads(json_text(value)))

    assert made == value
    assert type(made) is type(value)


def test_a_hint_that_never_ends_is_refused() -> None:
    class Endless:
        __supertype__: Any = None

    Endless.__supertype__ = list[Endless]

    with pytest.raises(InvalidRequest, match=r"take: parameter value .*: it holds itself without end; or give"):
        Tool.of(taking(Endless))

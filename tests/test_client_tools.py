"""Functions as tools: their schemas, the calls that reach them, and the text of their results."""

# ruff: noqa: D205, D413 - the code under test reads the docstrings in this file

from __future__ import annotations

import asyncio
import dataclasses
import functools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

import pytest

from nemotron_client.errors import InvalidArguments, InvalidRequest, ToolFailed, UnknownTool
from nemotron_client.events import ToolCall
from nemotron_client.tools import BoundCall, Tool, Toolbox, openai_tools


class Unit(Enum):
    """Of a temperature."""

    CELSIUS = "celsius"
    FAHRENHEIT = "fahrenheit"


def get_weather(city: str, unit: Unit = Unit.CELSIUS) -> str:
    """Tell the weather
    in a city.

    It is a guess.

    Args:
        city: Its name,
            in English.
        unit: Of the temperature.
    """
    return f"{city}: 20 {unit.value}"


WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tell the weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Its name, in English."},
                "unit": {
                    "type": "string",
                    "enum": ["celsius", "fahrenheit"],
                    "description": "Of the temperature.",
                    "default": "celsius",
                },
            },
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


def call(name: str, arguments: Any) -> ToolCall:
    return ToolCall(index=0, id="call_1", name=name, arguments_json=json.dumps(arguments))


def bound(function: Tool | Callable[..., Any], **arguments: Any) -> BoundCall:
    tool = function if isinstance(function, Tool) else Tool.of(function)
    return Toolbox([tool]).bind(call(tool.name, arguments))


def properties(function: Callable[..., Any]) -> Any:
    return Tool.of(function).parameters["properties"]


def test_a_function_becomes_a_tool() -> None:
    assert openai_tools([get_weather]) == [WEATHER]


def test_a_call_gives_the_function_what_its_hints_say() -> None:
    call = bound(get_weather, city="Bonn", unit="fahrenheit")

    assert call.arguments == {"city": "Bonn", "unit": Unit.FAHRENHEIT}
    assert call.invoke() == "Bonn: 20 fahrenheit"


def test_what_a_call_leaves_out_python_fills_in() -> None:
    call = bound(get_weather, city="Bonn")

    assert call.arguments == {"city": "Bonn"}
    assert call.invoke() == "Bonn: 20 celsius"


def test_dicts_go_to_the_server_unchanged() -> None:
    tool = {"type": "function", "function": {"name": "f", "strict": True}}

    assert openai_tools([tool, Tool("g", "G.")]) == [
        tool,
        {
            "type": "function",
            "function": {"name": "g", "description": "G.", "parameters": {"type": "object", "properties": {}}},
        },
    ]


def anthropic(key: str) -> dict[str, Any]:
    """The weather's tool as Anthropic's API has it, or with another *key* MCP."""
    function = WEATHER["function"]
    return {"name": function["name"], "description": function["description"], key: function["parameters"]}


@pytest.mark.parametrize("tool", [anthropic("input_schema"), anthropic("inputSchema")])
def test_a_tool_of_another_api_goes_to_the_server_as_openai_has_it(tool: dict[str, Any]) -> None:
    assert openai_tools([tool, tool | {"type": "custom"}]) == [WEATHER, WEATHER]
    # Those of its own, with a schema or without, are not for us to read.
    foreign = {"type": "web_search_20250305", "name": "web_search", "input_schema": {}}
    assert openai_tools([foreign]) == [foreign]


@pytest.mark.parametrize("tool", [WEATHER, WEATHER["function"], anthropic("input_schema")])
def test_an_openai_dict_becomes_the_tool_it_describes(tool: dict[str, Any]) -> None:
    bound_tool = Tool.from_openai(tool, get_weather)

    assert bound_tool == Tool.of(get_weather)
    assert Tool.from_openai(tool).function is None


def test_a_described_function_is_given_the_arguments_as_they_are() -> None:
    tool = Tool("plus", parameters={"properties": {"a": {"type": "integer"}}}, function=dict)

    assert bound(tool, a=3.0, b=[1]).invoke() == {"a": 3.0, "b": [1]}


def test_a_described_function_may_read_its_arguments_itself() -> None:
    def halved(arguments: dict[str, Any]) -> dict[str, Any]:
        if arguments["a"] % 2:
            raise ValueError(f"{arguments['a']} is odd")
        return {"a": arguments["a"] // 2}

    tool = Tool("half", parameters={"required": ["a"]}, function=dict, read=halved)

    assert bound(tool, a=4).arguments == {"a": 2}
    with pytest.raises(InvalidArguments, match=r"^half: 3 is odd$"):
        bound(tool, a=3)


def test_a_tool_can_be_described_anew_and_still_knows_its_hints() -> None:
    tool = dataclasses.replace(Tool.of(get_weather), name="weather", description="Weather.")

    assert bound(tool, city="Bonn", unit="celsius").arguments["unit"] is Unit.CELSIUS


class Desk:
    """A desk to ask at."""

    def __init__(self, name: str) -> None:
        """Whose desk it is."""
        self.name = name

    def ask(self, question: str) -> str:
        """Ask."""
        return f"{self.name}: {question}"

    @classmethod
    def opened(cls, hour: int) -> int:
        """When."""
        return hour

    @staticmethod
    def closed(hour: int) -> int:
        """Till when."""
        return hour

    def __call__(self, question: str) -> str:
        """Ask whoever is there."""
        return self.ask(question)

    async def wait(self, question: str) -> str:
        """Ask and wait."""
        return self.ask(question)


@pytest.mark.parametrize(
    ("function", "name", "description", "arguments", "result"),
    [
        (Desk("a").ask, "ask", "Ask.", {"question": "?"}, "a: ?"),
        (Desk("a"), "Desk", "Ask whoever is there.", {"question": "?"}, "a: ?"),
        (Desk.opened, "opened", "When.", {"hour": 9}, 9),
        (Desk.closed, "closed", "Till when.", {"hour": 9.0}, 9),
        (functools.partial(Desk("a").ask), "ask", "Ask.", {"question": "?"}, "a: ?"),
        (functools.partial(Desk.ask, Desk("b")), "ask", "Ask.", {"question": "?"}, "b: ?"),
        (functools.lru_cache(Desk.closed), "closed", "Till when.", {"hour": 9}, 9),
        (functools.wraps(Desk.closed)(lambda **arguments: arguments), "closed", "Till when.", {"hour": 9}, {"hour": 9}),
    ],
)
def test_whatever_can_be_called_is_a_tool(
    function: Callable[..., Any], name: str, description: str, arguments: dict[str, Any], result: object
) -> None:
    tool = Tool.of(function)

    assert (tool.name, tool.description) == (name, description)
    assert bound(function, **arguments).invoke() == result


def test_a_class_is_a_tool_that_makes_one() -> None:
    call = bound(Desk, name="c")

    assert Tool.of(Desk).description == "A desk to ask at."
    assert call.invoke().name == "c"
    assert not call.is_async


def search(query: str, **options: Any) -> dict[str, Any]:
    """Search."""
    return {"query": query, **options}


def test_what_a_partial_has_set_is_neither_shown_nor_changed() -> None:
    with_key = functools.update_wrapper(functools.partial(search, key="secret"), search)
    toolbox = Toolbox([with_key])

    assert "secret" not in json.dumps(openai_tools([with_key]))
    assert toolbox.bind(call("search", {"query": "a"})).invoke() == {"query": "a", "key": "secret"}
    with pytest.raises(InvalidArguments, match="search: the object of arguments has key, which cannot be given"):
        toolbox.bind(call("search", {"query": "a", "key": "mine"}))


def test_keywords_that_a_function_collects_may_be_anything() -> None:
    def tag(**tags: int) -> dict[str, int]:
        return tags

    assert Tool.of(search).parameters["additionalProperties"] is True
    assert bound(search, query="a", limit=[3]).invoke() == {"query": "a", "limit": [3]}
    assert bound(tag, a=1.0, self=2).invoke() == {"a": 1, "self": 2}
    with pytest.raises(InvalidArguments, match='tag: a is "x"; it must be of type integer'):
        bound(tag, a="x")


def test_coroutine_functions_are_awaited() -> None:
    class Waiter:
        async def __call__(self, seconds: float) -> str:
            await asyncio.sleep(0)
            return f"{seconds} s"

    asked = bound(functools.partial(Desk("a").wait), question="?")
    waited = bound(Waiter(), seconds=0)

    assert (asked.is_async, waited.is_async, bound(get_weather, city="Bonn").is_async) == (True, True, False)
    assert asyncio.run(asked.invoke_async()) == "a: ?"
    assert asyncio.run(waited.invoke_async()) == "0.0 s"


def test_a_plain_function_that_returns_a_coroutine_is_recognised() -> None:
    def hidden() -> Any:
        return Desk("a").wait("?")

    with pytest.raises(ToolFailed, match=r"hidden raised TypeError: .*async def"):
        bound(hidden).invoke()


def test_an_unknown_function_is_reported_with_the_known_ones() -> None:
    toolbox = Toolbox([get_weather, search])

    with pytest.raises(
        UnknownTool, match=r"'get_wether', which is none of get_weather, search; did it mean get_w"
    ) as no:
        toolbox.bind(call("get_wether", {}))

    assert no.value.tool == "get_wether"


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ([get_weather, get_weather], "two tools are named get_weather; give one of them another name"),
        ([WEATHER], r"get_weather has no function to call; .*from_openai\(\.\.\., function=\.\.\.\)"),
        ([Tool("f")], "f has no function to call"),
        ([5], r"tools\[0\] is 5; give a function, a Tool or an OpenAI-shaped dict"),
        (get_weather, r"tools is <function get_weather .*; give a list of tools, such as \[get_weather\]"),
        (WEATHER, "give a list of tools"),
        ([{"type": "web_search"}], "is no tool; it must be"),
        ([{"type": "function", "function": {"parameters": {}}}], "is no tool; it must be"),
    ],
)
def test_tools_that_cannot_be_called_are_refused(tools: Any, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        Toolbox(tools)


@pytest.mark.parametrize("tools", [[5], ["get_weather"], "get_weather", get_weather, WEATHER, None])
def test_what_is_no_tool_is_not_sent(tools: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"give a (function|list)"):
        openai_tools(tools)


ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "größe"}, "a tool is named 'größe'; its name must be 1 to 64 letters, digits, _ and -"),
        ({"name": "a" * 65}, "its name must be"),
        ({"name": "a\n"}, "its name must be"),
        ({"name": None}, "its name must be"),
        ({"name": "f", "description": None}, "f: the description is None; it must be text"),
        ({"name": "f", "parameters": {"type": "string"}}, "f: the parameters are .*; give a JSON Schema of an object"),
        ({"name": "f", "parameters": [1]}, "give a JSON Schema of an object"),
        ({"name": "f", "parameters": {"default": float("inf")}}, "f: the parameters are not JSON: Out of range float"),
        ({"name": "f", "parameters": {"default": {1, 2}}}, "f: the parameters are not JSON: .*set"),
        ({"name": "f", "parameters": {"default": ENDLESS}}, "f: the parameters are not JSON"),
        ({"name": "f", "function": 5}, "f: the function is 5, which cannot be called"),
    ],
)
def test_a_tool_cannot_be_wrong(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        Tool(**arguments)


def anything_goes(*values: int) -> None: ...


def by_place(value: int, /) -> None: ...


def unhinted(value) -> None: ...  # type: ignore[no-untyped-def]


def größe(value: int) -> None: ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda city: city, "a lambda has neither a name nor hints"),
        (functools.partial(lambda city: city), "a lambda has neither a name nor hints"),
        (anything_goes, r"anything_goes: parameter values \(int\): .*take it by its name; or give the schema yourself"),
        (by_place, r"by_place: parameter value \(int\): JSON has names for all arguments, and this has none"),
        (unhinted, "unhinted: parameter value: it has no type hint; write one, such as value: str"),
        (größe, "a tool is named 'größe'"),
        (len, "len: parameter obj: JSON has names"),
        (int, "int has no signature that can be read"),
        (5, "5 is given as a tool and cannot be called"),
    ],
)
def test_a_function_that_cannot_be_described_is_refused(function: Any, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        Tool.of(function)


def test_generators_are_refused_as_results() -> None:
    def count(to: int) -> Iterator[int]:
        yield from range(to)

    call = bound(count, to=3)

    with pytest.raises(ToolFailed, match="count returned a generator that is neither text nor JSON"):
        call.text_of(call.invoke())


def test_importing_tools_is_cheap() -> None:
    heavy = "jsonschema", "docstring_parser", "pydantic", "numpy", "grpc", "nemotron_client.functions"
    code = f"import sys, nemotron_client.tools; print([name for name in {heavy!r} if name in sys.modules])"

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "[]"


def test_tools_work_without_pydantic() -> None:
    code = """
import sys
sys.modules["pydantic"] = None
from nemotron_client.events import ToolCall
from nemotron_client.tools import Toolbox

def add(a: int, b: int = 1) -> int:
    return a + b

bound = Toolbox([add]).bind(ToolCall(index=0, id="", name="add", arguments_json='{"a": 2}'))
print(bound.text_of(bound.invoke()))
"""

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "3"

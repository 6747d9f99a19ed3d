"""Functions for the model to call: their descriptions, and what becomes of its calls.

A Python function with type hints and a docstring is a tool as it is; `Tool` describes one that has neither.
`functions`, which describes and checks, is imported where there is a tool: most requests have none.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import re
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from nemotron_client.errors import InvalidArguments, InvalidRequest, ToolError, ToolFailed, UnknownTool
from nemotron_client.events import ToolCall
from nemotron_client.json_text import Json
from nemotron_client.messages import ToolMessage
from nemotron_client.shapes import openai_tool
from nemotron_client.spelling import did_you_mean

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


@dataclass(frozen=True)
class Tool:
    """A function as the model sees it: *parameters* is a JSON Schema of the object of its arguments.

    *function* is what `run` calls, with the arguments as keywords. *read* makes those of the JSON, or raises
    `ValueError`; `Tool.of` sets it for the function's type hints.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})
    function: Callable[..., Any] | None = None
    read: Callable[[dict[str, Any]], dict[str, Any]] = field(default=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse what no server could take."""
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise InvalidRequest(
                f"a tool is named {self.name!r:.100}; its name must be 1 to 64 letters, digits, _ and -, "
                "which Tool(name=...) can give it",
                field="name",
            )
        if not isinstance(self.description, str):
            raise InvalidRequest(
                f"{self.name}: the description is {self.description!r:.100}; it must be text", field="description"
            )
        if not isinstance(self.parameters, Mapping) or self.parameters.get("type", "object") != "object":
            raise InvalidRequest(
                f"{self.name}: the parameters are {self.parameters!r:.100}; give a JSON Schema of an object",
                field="parameters",
            )
        if self.function is not None and not callable(self.function):
            raise InvalidRequest(
                f"{self.name}: the function is {self.function!r:.100}, which cannot be called", field="function"
            )
        try:
            json.dumps(dict(self.parameters), ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidRequest(f"{self.name}: the parameters are not JSON: {error}", field="parameters") from error

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Tool:
        """*function* as a tool: its name, its docstring's summary, its parameters with their hints and texts.

        Raises `InvalidRequest` for what has no JSON Schema.
        """
        from nemotron_client.functions.function_schema import FunctionSchema

        if not callable(function):
            raise InvalidRequest(f"{function!r:.100} is given as a tool and cannot be called", field="function")
        schema = FunctionSchema.of(function)
        return cls(schema.name, schema.description, schema.parameters, function, schema.read)

    @classmethod
    def from_openai(cls, tool: Mapping[str, Any], function: Callable[..., Any] | None = None) -> Tool:
        """The tool that an OpenAI-shaped dict describes, or one of Anthropic's shape; *function* is what to call."""
        tool = openai_tool(tool)
        about = tool.get("function", tool)
        if not isinstance(about, Mapping) or tool.get("type", "function") != "function" or "name" not in about:
            raise InvalidRequest(
                f"{dict(tool)!r:.100} is no tool; "
                'it must be {"type": "function", "function": {"name": ..., "parameters": ...}}',
                field="tool",
            )
        details = {key: about[key] for key in ("description", "parameters") if about.get(key) is not None}
        return cls(about["name"], **details, function=function)

    def as_openai(self) -> dict[str, Any]:
        """The tool as the wire has it."""
        about = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": about}


ToolLike: TypeAlias = Tool | Mapping[str, Any] | Callable[..., Any]


def openai_tools(tools: Sequence[ToolLike] | Json) -> list[dict[str, Any]] | Json:
    """*tools* as the wire has them; the server checks dicts. Raises `InvalidRequest` for what is none."""
    if isinstance(tools, Json):
        return tools
    return [dict(openai_tool(tool)) if isinstance(tool, Mapping) else tool.as_openai() for tool in _described(tools)]


@dataclass(frozen=True, kw_only=True)
class BoundCall:
    """A call of the model with the function that it means, and the arguments as that takes them."""

    call: ToolCall
    function: Callable[..., Any]
    arguments: dict[str, Any]

    @property
    def is_async(self) -> bool:
        """Whether to use `invoke_async`."""
        function = self.function
        while isinstance(function, functools.partial):
            function = function.func
        return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)

    def invoke(self) -> Any:
        """What the function returns; `ToolFailed` if it raises."""
        try:
            value = self.function(**self.arguments)
            if inspect.iscoroutine(value):
                value.close()
                raise TypeError("it is no coroutine function, but returned a coroutine; write it with async def")
            return value
        except Exception as error:
            raise self._failed(error) from error

    async def invoke_async(self) -> Any:
        """What the coroutine function returns; `ToolFailed` if it raises."""
        try:
            return await self.function(**self.arguments)
        except Exception as error:
            raise self._failed(error) from error

    def text_of(self, value: object) -> str:
        """*value*, which the function returned, as the model reads it: text as it is, all else as JSON.

        Raises `ToolFailed` for what is neither.
        """
        from nemotron_client.functions.json_values import json_text, plain

        try:
            value = plain(value)
            if not isinstance(value, str):
                return json_text(value)
            value.encode()
            return str(value)
        except Exception as error:
            # Values may be of any class, whose own code runs here.
            raise ToolFailed(
                f"{self.call.name} returned a {type(value).__name__} that is neither text nor JSON ({error}); "
                "return text, numbers, lists, dicts, dataclasses or pydantic models",
                tool=self.call.name,
            ) from error

    def _failed(self, error: Exception) -> ToolFailed:
        from nemotron_client.functions.json_values import shortened

        text = shortened("".join(traceback.format_exception_only(error)), 1000)
        return ToolFailed(f"{self.call.name} raised {text}", tool=self.call.name)


class Toolbox:
    """Tools that can be called, by name.

    Raises `InvalidRequest` for two of one name, for one without a function, and for a schema that is none.
    """

    def __init__(self, tools: Sequence[ToolLike]) -> None:
        from nemotron_client.functions.validation import BadSchema, Validation

        self._tools: dict[str, Tool] = {}
        self._validations: dict[str, Validation] = {}
        for place, described in enumerate(_described(tools)):
            field = f"tools[{place}]"
            with _naming(field):
                tool = Tool.from_openai(described) if isinstance(described, Mapping) else described
            if tool.function is None:
                raise InvalidRequest(
                    f"{tool.name} has no function to call; give the function itself, "
                    "Tool(..., function=...) or Tool.from_openai(..., function=...)",
                    field=field,
                )
            if tool.name in self._tools:
                raise InvalidRequest(
                    f"two tools are named {tool.name}; give one of them another name with Tool(name=...)", field=field
                )
            try:
                self._validations[tool.name] = Validation.of(json.dumps(dict(tool.parameters)))
            except BadSchema as error:
                raise InvalidRequest(
                    f"{tool.name}: the parameters are no JSON Schema that works here: {error}", field=field
                ) from error
            self._tools[tool.name] = tool

    def bind(self, call: ToolCall) -> BoundCall:
        """*call* with its function and checked arguments; raises `UnknownTool` or `InvalidArguments`."""
        from nemotron_client.functions.arguments import read_arguments

        tool = self._tools.get(call.name)
        if tool is None or tool.function is None:
            meant = did_you_mean(call.name, self._tools, who="it")
            raise UnknownTool(
                f"the model called {call.name!r:.100}, which is none of {', '.join(self._tools) or 'its tools'}"
                + (meant and f"; {meant}"),
                tool=call.name,
            )
        try:
            arguments = read_arguments(call.arguments_json)
            self._validations[tool.name].check(arguments)
            return BoundCall(call=call, function=tool.function, arguments=tool.read(arguments))
        except ValueError as error:
            raise InvalidArguments(f"{tool.name}: {error}", tool=tool.name) from error
        except RecursionError as error:
            raise InvalidArguments(f"{tool.name}: the arguments are nested too deeply", tool=tool.name) from error


@dataclass(frozen=True, kw_only=True)
class ToolResult:
    """What became of a call: the text that the model reads, and the `error` if that is of one."""

    call: ToolCall
    content: str
    error: ToolError | None = None

    def as_message(self) -> ToolMessage:
        """The message that the conversation goes on with."""
        return ToolMessage(content=self.content, tool_call_id=self.call.id, name=self.call.name)


def _described(tools: Sequence[ToolLike]) -> Iterator[Tool | Mapping[str, Any]]:
    if isinstance(tools, (str, bytes, Mapping, Tool)) or not isinstance(tools, Sequence):
        raise InvalidRequest(f"tools is {tools!r:.100}; give a list of tools, such as [get_weather]", field="tools")
    for place, tool in enumerate(tools):
        field = f"tools[{place}]"
        if isinstance(tool, (Tool, Mapping)):
            yield tool
        elif callable(tool):
            with _naming(field):
                described = Tool.of(tool)
            yield described
        else:
            raise InvalidRequest(
                f"{field} is {tool!r:.100}; give a function, a Tool or an OpenAI-shaped dict", field=field
            )


@contextlib.contextmanager
def _naming(field: str) -> Iterator[None]:
    """Have an `InvalidRequest` say that *field* is wrong: the caller gave a list."""
    try:
        yield
    except InvalidRequest as error:
        error.field = field
        raise

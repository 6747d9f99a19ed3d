"""Messages and tools of a request, read from OpenAI-shaped JSON and checked once.

Unknown message keys are refused by name, argument strings become objects, `content: null` becomes empty text and lists
of text parts are joined. JSON schemas of tools are not checked.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nemotron_client.shapes import openai_tool
from nemotron_triton.errors import RequestError

ROLES = ("system", "user", "assistant", "tool")
MAX_DEPTH = 64
_LEAVES = (str, int, float, type(None))
_MESSAGE_KEYS = {"role", "content", "reasoning_content", "reasoning", "tool_calls", "tool_call_id", "name", "refusal"}


@dataclass(frozen=True, kw_only=True)
class Call:
    """A tool call the assistant made in an earlier turn."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Message:
    """One turn; `reasoning` is what an assistant thought before `content`."""

    role: str
    content: str
    reasoning: str = ""
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """A checked request: the turns so far, and the functions the model may call (OpenAI `function` objects)."""

    messages: tuple[Message, ...]
    functions: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class ToolChoice:
    """Which calls there must be: any or none (auto), none, at least one (required), or one of the function *name*."""

    mode: Literal["auto", "none", "required", "named"] = "auto"
    name: str = ""

    @property
    def forced(self) -> bool:
        """Whether there must be a call."""
        return self.mode in ("required", "named")


def read_conversation(messages: object, tools: object = None) -> Conversation:
    """Check *messages* and *tools*, parsed JSON; `RequestError` names the first error."""
    return Conversation(messages=read_messages(messages), functions=read_functions(tools))


def read_messages(messages: object) -> tuple[Message, ...]:
    """Check *messages*, parsed JSON; `RequestError` names the first error."""
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise RequestError(f"messages must be a non-empty list of messages, got {shown(messages)}")
    check_depth("messages", messages)
    return tuple(_message(f"messages[{i}]", message) for i, message in enumerate(messages))


def read_functions(tools: object) -> tuple[Mapping[str, Any], ...]:
    """The OpenAI `function` objects of *tools*, parsed JSON, checked."""
    if tools is None:
        return ()
    check_depth("tools", tools)
    if not isinstance(tools, Sequence) or isinstance(tools, str):
        raise RequestError(f"tools must be a list of functions, got {shown(tools)}")
    return tuple(_function(f"tools[{i}]", tool) for i, tool in enumerate(tools))


def read_choice(raw: object, functions: Iterable[Mapping[str, Any]]) -> ToolChoice:
    """The checked `tool_choice`, parsed JSON: null, "auto", "none", "required" or a named function."""
    names = {function["name"] for function in functions}
    match raw:
        case None | "auto":
            return ToolChoice()
        case "none":
            return ToolChoice("none")
        case "required" if names:
            return ToolChoice("required")
        case "required":
            raise RequestError("tool_choice is required, but there are no tools to call; give some, or choose auto")
        case {"function": {"name": str(name)}} if name in names:
            return ToolChoice("named", name)
        case {"function": {"name": str(name)}}:
            raise RequestError(f"tool_choice names the function {shown(name)}, which is not among the tools")
    raise RequestError(
        f"tool_choice is {shown(raw)}; it must be auto, none, required or "
        '{"type": "function", "function": {"name": ...}}'
    )


def _message(where: str, raw: object) -> Message:
    if not isinstance(raw, Mapping):
        raise RequestError(f"{where} must be an object with a role and a content, got {shown(raw)}")
    if unknown := sorted(raw.keys() - _MESSAGE_KEYS):
        raise RequestError(f"{where} has unknown keys {shown(unknown)}; known: {', '.join(sorted(_MESSAGE_KEYS))}")
    role = raw.get("role")
    if role not in ROLES:
        raise RequestError(f"{where}.role is {shown(role)}; it must be one of {', '.join(ROLES)}")
    calls = raw.get("tool_calls") or ()
    if calls and role != "assistant":
        raise RequestError(f"{where}.tool_calls is set on a {role} message; only assistant messages call tools")
    if not isinstance(calls, Sequence) or isinstance(calls, str):
        raise RequestError(f"{where}.tool_calls must be a list, got {shown(calls)}")
    reasoning = raw.get("reasoning") if raw.get("reasoning_content") is None else raw["reasoning_content"]
    return Message(
        role=role,
        content=_text(f"{where}.content", raw.get("content")),
        reasoning=_text(f"{where}.reasoning_content", reasoning),
        calls=tuple(_call(f"{where}.tool_calls[{i}]", call) for i, call in enumerate(calls)),
    )


def _text(where: str, raw: object) -> str:
    if raw is None:
        return ""
    if isinstance(raw, str):
        return without_surrogates(where, raw)
    if isinstance(raw, Sequence):
        return "".join(_part(f"{where}[{i}]", part) for i, part in enumerate(raw))
    raise RequestError(f"{where} must be text, null or a list of text parts, got {shown(raw)}")


def _part(where: str, raw: object) -> str:
    if isinstance(raw, Mapping) and raw.get("type") == "text" and isinstance(raw.get("text"), str):
        return without_surrogates(where, raw["text"])
    raise RequestError(
        f'{where} must be {{"type": "text", "text": "..."}}, got {shown(raw)}: this model reads text only'
    )


def without_surrogates(where: str, text: str) -> str:
    """*text*; `RequestError`, with *where* it is, when it has an unpaired surrogate, which no tokenizer takes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RequestError(
            f"{where} holds half a surrogate pair at character {error.start}; send valid Unicode"
        ) from error
    return text


def _call(where: str, raw: object) -> Call:
    function = raw.get("function") if isinstance(raw, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise RequestError(f'{where} must be {{"function": {{"name": ..., "arguments": ...}}}}, got {shown(raw)}')
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError) as error:
            raise RequestError(f"{where}.function.arguments is not JSON ({error}): {shown(arguments)}") from error
    if arguments is None:
        arguments = {}
    check_depth(f"{where}.function.arguments", arguments)
    if not isinstance(arguments, Mapping):
        raise RequestError(f"{where}.function.arguments must be an object, got {shown(arguments)}")
    without_surrogates(where, json.dumps([function["name"], arguments], ensure_ascii=False))
    return Call(name=function["name"], arguments=arguments)


def _function(where: str, raw: object) -> Mapping[str, Any]:
    tool = openai_tool(raw) if isinstance(raw, Mapping) else {}
    if tool.get("type") not in (None, "function"):
        raise RequestError(f"{where}.type is {shown(tool['type'])}; this model calls functions only")
    function = tool.get("function", tool)
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
        raise RequestError(
            f'{where} must be {{"type": "function", "function": {{"name": ..., "parameters": ...}}}}, got {shown(raw)}'
        )
    without_surrogates(where, json.dumps(function, ensure_ascii=False))
    return function


def check_depth(where: str, value: object) -> None:
    """Refuse nesting that could exhaust the stack of whatever walks *value* later."""
    level = [value]
    for _ in range(MAX_DEPTH):
        inner: list[object] = []
        for item in level:
            if isinstance(item, (list, tuple)):
                inner += item
            # Most are leaves, and to ask whether one is a mapping is slow.
            elif not isinstance(item, _LEAVES) and isinstance(item, Mapping):
                inner += item.values()
        if not inner:
            return
        level = inner
    raise RequestError(f"{where} is nested more than {MAX_DEPTH} levels deep")


def shown(value: object) -> str:
    """*value* for an error message: as JSON where possible, cut to 80 characters."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."

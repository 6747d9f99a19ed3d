"""Messages and tools of a request, read from OpenAI-shaped JSON and checked once.

What an answer of ours can be is accepted as a message, whatever its arguments are. Keys that carry something unknown
are refused by name, `content: null` becomes empty text and lists of text parts are joined; halves of surrogate pairs
become U+FFFD. JSON schemas of tools are not checked.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nemotron_client.shapes import openai_tool
from nemotron_triton.chat import exact_json, surrogates
from nemotron_triton.chat.tool_results import in_call_order
from nemotron_triton.errors import RequestError

ROLES = ("system", "user", "assistant", "tool")
MAX_DEPTH = 64
_LEAVES = (str, int, float, type(None))
_MESSAGE_KEYS = {"role", "content", "reasoning_content", "reasoning", "tool_calls", "tool_call_id", "name"}
# What messages that came as answers also carry, and no prompt says.
_ECHOED_KEYS = {
    *("annotations", "audio", "cache_control", "function_call", "id", "parsed", "provider_specific_fields"),
    *("reasoning_details", "refusal", "thinking_blocks"),
}
_KNOWN_KEYS = _MESSAGE_KEYS | _ECHOED_KEYS
_NOTHING: tuple[object, ...] = (None, "", [], {})
# Where a part of a message has its text, by the part's type.
_PART_TEXTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}


@dataclass(frozen=True, kw_only=True)
class Call:
    """A tool call the assistant made in an earlier turn.

    *arguments* is a mapping, or whatever else the model wrote, as `exact_json` reads it: text that is no JSON, or is
    nested more than `MAX_DEPTH` levels deep, is an `exact_json.Verbatim`.
    """

    name: str
    arguments: Any
    id: str = ""


@dataclass(frozen=True, kw_only=True)
class Message:
    """One turn; `reasoning` is what an assistant thought before `content`, `call_id` which call a tool answers."""

    role: str
    content: str
    reasoning: str = ""
    calls: tuple[Call, ...] = ()
    call_id: str = ""


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """A checked request: the turns so far, and the functions the model may call (OpenAI `function` objects)."""

    messages: tuple[Message, ...]
    functions: tuple[Mapping[str, Any], ...] = ()

    @property
    def malformed_calls(self) -> tuple[Call, ...]:
        """The earlier calls whose arguments are no object; the prompt says them as far as the model's format can."""
        calls = (call for message in self.messages for call in message.calls)
        return tuple(call for call in calls if not isinstance(call.arguments, Mapping))


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
    return tuple(_with_ordered_results([_message(f"messages[{i}]", message) for i, message in enumerate(messages)]))


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
    if unknown := sorted(key for key in raw.keys() - _KNOWN_KEYS if raw[key] not in _NOTHING):
        raise RequestError(f"{where} has unknown keys {shown(unknown)}; known: {', '.join(sorted(_MESSAGE_KEYS))}")
    role = "system" if raw.get("role") == "developer" else raw.get("role")
    if role not in ROLES:
        raise RequestError(f"{where}.role is {shown(role)}; it must be one of {', '.join(ROLES)}, developer")
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
        call_id=_id(f"{where}.tool_call_id", raw.get("tool_call_id")) if role == "tool" else "",
    )


def _with_ordered_results(messages: Sequence[Message]) -> Iterator[Message]:
    """*messages*, the results of each assistant message in the order of its calls."""
    before: tuple[Call, ...] = ()
    at = 0
    for is_results, turns in itertools.groupby(messages, lambda message: message.role == "tool"):
        run = list(turns)
        if is_results:
            order = in_call_order([call.id for call in before], [result.call_id for result in run], at)
            run = [run[place] for place in order]
        yield from run
        before, at = run[-1].calls, at + len(run)


def _text(where: str, raw: object) -> str:
    if raw is None:
        return ""
    if isinstance(raw, str):
        return surrogates.replaced(raw)
    if isinstance(raw, Sequence):
        return "".join(_part(f"{where}[{i}]", part) for i, part in enumerate(raw))
    raise RequestError(f"{where} must be text, null or a list of text parts, got {shown(raw)}")


def _part(where: str, raw: object) -> str:
    kind = raw.get("type") if isinstance(raw, Mapping) else None
    text = raw.get(_PART_TEXTS.get(kind, "")) if isinstance(raw, Mapping) and isinstance(kind, str) else None
    if isinstance(text, str):
        return surrogates.replaced(text)
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
    if not isinstance(raw, Mapping) or not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise RequestError(f'{where} must be {{"function": {{"name": ..., "arguments": ...}}}}, got {shown(raw)}')
    return Call(
        name=surrogates.replaced(function["name"]),
        arguments=_arguments(function.get("arguments")),
        id=_id(f"{where}.id", raw.get("id")),
    )


def _id(where: str, raw: object) -> str:
    if isinstance(raw, (str, int, type(None))):
        return "" if raw is None else str(raw)
    raise RequestError(f"{where} must be text or null, got {shown(raw)}")


def _arguments(raw: object) -> Any:
    """The arguments of a past call, which may be whatever a model wrote; the text of none is an empty object."""
    text = surrogates.replaced_in_json(raw if isinstance(raw, str) else exact_json.write(raw))
    try:
        arguments = exact_json.read(text) if text.strip() else None
        check_depth("", arguments)
    except (ValueError, RecursionError, RequestError):
        return exact_json.Verbatim(text)
    return {} if arguments is None else arguments


def _function(where: str, raw: object) -> Mapping[str, Any]:
    if isinstance(raw, Mapping) and "input_schema" in raw:
        _check_input_schema(where, raw)
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


def _check_input_schema(where: str, tool: Mapping[str, Any]) -> None:
    """Refuse a tool of Anthropic's shape that `openai_tool` cannot make one of OpenAI's from."""
    if "parameters" in tool:
        raise RequestError(f"{where} has both parameters and input_schema; give one of them")
    if not isinstance(tool["input_schema"], Mapping):
        raise RequestError(f"{where}.input_schema must be a JSON Schema, got {shown(tool['input_schema'])}")


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
        text = exact_json.write(value, ensure_ascii=True)
    except (TypeError, ValueError, RecursionError):
        text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."

"""What a request wants the model to read: a conversation or a finished prompt, checked, and the prompt of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from nemotron_client import wire
from nemotron_triton.chat import exact_json
from nemotron_triton.chat.content_cache import ContentCache
from nemotron_triton.chat.conversation import Conversation, ToolChoice, read_choice, read_functions, read_messages
from nemotron_triton.chat.profiles import Profile
from nemotron_triton.chat.render import Prompt, finished_prompt, render_prompt
from nemotron_triton.errors import RequestError
from nemotron_triton.serving.settings import Settings
from nemotron_triton.serving.thinking_request import read_render_options
from nemotron_triton.serving.values import Values, json_value

# Of tools that are kept as they were read; they take about four times as many bytes.
_CACHED_CHARACTERS = 4 << 20
_tools: ContentCache[tuple[Mapping[str, Any], ...]] = ContentCache(_CACHED_CHARACTERS)
_OF_CONVERSATIONS = (
    wire.TOOLS,
    wire.TOOL_CHOICE,
    wire.PARALLEL_TOOL_CALLS,
    wire.CHAT_TEMPLATE_KWARGS,
    wire.CONTINUE_FINAL_MESSAGE,
    wire.STREAM_TOOL_CALLS,
)


def read_prompt(
    values: Values,
    profile: Profile,
    settings: Settings,
    *,
    template: str | None = None,
    add_generation_prompt: bool = True,
) -> Prompt:
    """The prompt of a request with these *values*; `RequestError` as `read_request` has it."""
    conversation, _ = read_source(values, settings)
    options = read_render_options(values)
    if conversation is None:
        return finished_prompt(profile, values[wire.TEXT_INPUT])
    return render_prompt(
        profile, conversation, replace(options, template=template, add_generation_prompt=add_generation_prompt)
    )


def read_source(values: Values, settings: Settings) -> tuple[Conversation | None, ToolChoice]:
    """The conversation, None where there is a finished prompt, and the tool choice.

    With the choice `none` the conversation has no tools: what the model does not see it cannot call.
    """
    text = values.get(wire.TEXT_INPUT)
    if (wire.MESSAGES in values) == (text is not None):
        raise RequestError(
            f"give exactly one of {wire.MESSAGES} (a conversation) and {wire.TEXT_INPUT} (a finished prompt)"
        )
    if text is not None:
        _check_finished(text, values)
        return None, ToolChoice("none")
    messages = read_messages(json_value(values, wire.MESSAGES, settings.max_messages, exact_json.read))
    functions = read_tools(values, settings)
    choice = read_tool_choice(values, functions)
    return Conversation(messages=messages, functions=() if choice.mode == "none" else functions), choice


def _check_finished(text: str, values: Values) -> None:
    """Refuse an empty prompt, and *values* beside it that only conversations have."""
    if not text:
        raise RequestError(f"{wire.TEXT_INPUT} is empty; give the prompt")
    if misplaced := [tensor for tensor in _OF_CONVERSATIONS if tensor in values]:
        raise RequestError(f"{misplaced[0]} goes with {wire.MESSAGES}; a finished prompt holds its own tools")
    if wire.REASONING_EFFORT in values:
        raise RequestError(
            f"{wire.REASONING_EFFORT} goes with {wire.MESSAGES}; a finished prompt takes {wire.MAX_THINKING_TOKENS}"
        )


def read_tools(values: Values, settings: Settings) -> tuple[Mapping[str, Any], ...]:
    """The functions in the `tools` tensor; those that were read last are kept, because callers send them every time."""

    def read() -> tuple[Mapping[str, Any], ...]:
        return read_functions(json_value(values, wire.TOOLS, settings.max_tools))

    text = values.get(wire.TOOLS)
    return () if text is None else _tools.get((text, str(settings.max_tools)), read)


def read_tool_choice(values: Values, functions: Iterable[Mapping[str, Any]]) -> ToolChoice:
    """The `tool_choice` tensor: a plain word, or JSON."""
    choice = values.get(wire.TOOL_CHOICE)
    if choice not in ("auto", "none", "required"):
        choice = json_value(values, wire.TOOL_CHOICE)
    return read_choice(choice, functions)

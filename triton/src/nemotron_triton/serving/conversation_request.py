"""What is to be answered, read from the tensors of a request: a conversation, its tools, and how it is rendered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from nemotron_client import wire
from nemotron_triton.chat.conversation import Conversation, ToolChoice, read_choice, read_conversation, read_functions
from nemotron_triton.chat.render import RenderOptions, render_options
from nemotron_triton.serving.settings import Settings
from nemotron_triton.serving.values import Values, json_value


def read_chat(values: Values, settings: Settings) -> tuple[Conversation, ToolChoice]:
    """The conversation and the tool choice in the `messages`, `tools` and `tool_choice` tensors.

    With the choice `none` the conversation has no tools: what the model does not see it cannot call.
    """
    messages = json_value(values, wire.MESSAGES, settings.max_messages)
    conversation = read_conversation(messages, json_value(values, wire.TOOLS, settings.max_tools))
    choice = read_tool_choice(values, conversation.functions)
    return (replace(conversation, functions=()) if choice.mode == "none" else conversation), choice


def read_tools(values: Values, settings: Settings) -> tuple[Mapping[str, Any], ...] | None:
    """The functions in the `tools` tensor; None without it."""
    tools = json_value(values, wire.TOOLS, settings.max_tools)
    return None if tools is None else read_functions(tools)


def read_tool_choice(values: Values, functions: Iterable[Mapping[str, Any]]) -> ToolChoice:
    """The `tool_choice` tensor: a plain word, or JSON."""
    choice = values.get(wire.TOOL_CHOICE)
    if choice not in ("auto", "none", "required"):
        choice = json_value(values, wire.TOOL_CHOICE)
    return read_choice(choice, functions)


def read_render_options(values: Values) -> RenderOptions:
    """What the `thinking` and `chat_template_kwargs` tensors say."""
    return render_options(values.get(wire.THINKING), json_value(values, wire.CHAT_TEMPLATE_KWARGS))

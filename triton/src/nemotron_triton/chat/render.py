"""A conversation as the prompt the model was trained on, rendered by Jinja the way Hugging Face does.

Text from callers that spells a control token stays text: it is marked before rendering, so that `Prompt.pieces` can
tell a control token the template wrote from one a caller typed. Nothing here tokenises.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from nemotron_triton.chat.conversation import Conversation, Message, read_conversation
from nemotron_triton.chat.profiles import Profile
from nemotron_triton.errors import RequestError

TEMPLATES = Path(__file__).parent / "templates"
_TOGGLE = re.compile(r"detailed thinking (on|off)\b")
# Unicode noncharacters: never assigned, so at least one of them is free in any text a person sends.
_MARKERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]


@dataclass(frozen=True)
class Prompt:
    """A rendered prompt. `marked` holds `marker` inside every control token that a caller, not the template, wrote."""

    marked: str
    marker: str
    control_tokens: tuple[str, ...]

    @property
    def text(self) -> str:
        """The prompt as the model sees it."""
        return self.marked.replace(self.marker, "")

    def pieces(self) -> Iterator[tuple[str, bool]]:
        """The prompt cut at the template's control tokens: (text, is it a control token)."""
        for i, piece in enumerate(_alternatives(self.control_tokens).split(self.marked)):
            if piece:
                yield piece.replace(self.marker, ""), bool(i % 2)


def render(
    profile: Profile,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    thinking: bool | None = None,
    add_generation_prompt: bool = True,
) -> str:
    """The prompt text for OpenAI-shaped *messages* and *tools*; `RequestError` when they are malformed."""
    conversation = read_conversation(messages, tools)
    return render_prompt(profile, conversation, thinking=thinking, add_generation_prompt=add_generation_prompt).text


def render_prompt(
    profile: Profile,
    conversation: Conversation,
    *,
    thinking: bool | None = None,
    add_generation_prompt: bool = True,
) -> Prompt:
    """The prompt for *conversation*, thinking switched on, off, or (None) as the conversation itself says."""
    messages = [_for_template(message) for message in _with_toggle(conversation.messages, thinking)]
    tools = [{"type": "function", "function": function} for function in conversation.functions]
    marker = _free_marker(json.dumps([messages, tools], ensure_ascii=False))
    typed = functools.partial(_mark, _alternatives(profile.control_tokens), marker)
    try:
        marked = _template(profile.prompt_format).render(
            messages=typed(messages), tools=typed(tools), add_generation_prompt=add_generation_prompt
        )
    except (jinja2.TemplateError, RecursionError) as error:
        raise RequestError(f"the chat template {profile.prompt_format} refused these messages: {error}") from error
    return Prompt(marked, marker, profile.control_tokens)


def thinking_mode(conversation: Conversation, thinking: bool | None) -> bool:
    """Whether the model will think: what the system prompt says, else *thinking*, else off as the template has it."""
    first = conversation.messages[0]
    if first.role == "system" and (written := _TOGGLE.match(first.content.lstrip())):
        return written[1] == "on"
    return bool(thinking)


def _with_toggle(messages: Sequence[Message], thinking: bool | None) -> list[Message]:
    """*messages* with the toggle as first line of the system prompt.

    A toggle the caller wrote there stays as it is. Without one, and with no mode asked for, a system prompt is left
    alone and an empty or absent one becomes `detailed thinking off`, as the published tool template has it.
    """
    has_system = messages[0].role == "system"
    text = messages[0].content if has_system else ""
    if not _TOGGLE.match(text.lstrip()) and not (thinking is None and text):
        toggle = f"detailed thinking {'on' if thinking else 'off'}"
        text = f"{toggle}\n\n{text}" if text else toggle
    return [Message(role="system", content=text), *messages[has_system:]]


def _for_template(message: Message) -> dict[str, Any]:
    """The message as chat templates expect it; reasoning of earlier turns is dropped, as the model was trained."""
    content = message.content
    if message.role == "assistant" and "</think>" in content:
        content = content.rpartition("</think>")[2].lstrip("\n")
    calls = [{"type": "function", "function": {"name": c.name, "arguments": c.arguments}} for c in message.calls]
    return {"role": message.role, "content": content} | ({"tool_calls": calls} if calls else {})


def _mark(control: re.Pattern[str], marker: str, value: Any) -> Any:
    """*value* with *marker* put after the first character of every control token in its strings, keys included."""
    if isinstance(value, str):
        return control.sub(lambda found: found[0][0] + marker + found[0][1:], value)
    if isinstance(value, Mapping):
        return {_mark(control, marker, key): _mark(control, marker, item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_mark(control, marker, item) for item in value]
    return value


def _free_marker(text: str) -> str:
    for marker in _MARKERS:
        if marker not in text:
            return marker
    raise RequestError("messages use every Unicode noncharacter from U+FDD0 to U+FDEF; remove one of them")


@functools.cache
def _alternatives(tokens: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("(" + "|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True)) + ")")


@functools.cache
def _template(name: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[loopcontrols],
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=False,
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    return environment.get_template(f"{name}.jinja")


def _tojson(value: object, indent: int | None = None) -> str:
    """JSON as the models saw it in training: non-ASCII kept and nothing HTML-escaped, unlike Jinja's own filter."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)

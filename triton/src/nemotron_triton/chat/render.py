"""A conversation as the prompt the model was trained on, rendered by Jinja the way Hugging Face does.

Text from callers that spells a control token stays text: it is marked before rendering, so that `Prompt.pieces` can
tell a control token the template wrote from one a caller typed. Nothing here tokenises.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from nemotron_triton.chat import reasoning
from nemotron_triton.chat.conversation import Conversation, Message, check_depth, shown, without_surrogates
from nemotron_triton.chat.profiles import TEMPLATES, Profile
from nemotron_triton.errors import RequestError

_TOGGLE = re.compile(r"^[ \t]*detailed thinking (on|off)\b", re.MULTILINE)
_RESERVED = {"messages", "tools", "add_generation_prompt"}
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


@dataclass(frozen=True, kw_only=True)
class RenderOptions:
    """How a conversation is rendered, beyond what it says. *thinking* None is the model's own default.

    *template_kwargs* go to the template; for our own templates they are the profile's `template_options`.
    *template* is the text of another template to use; it gets what Hugging Face templates get.
    """

    thinking: bool | None = None
    add_generation_prompt: bool = True
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    template: str | None = None


def render_options(thinking: bool | None, template_kwargs: object) -> RenderOptions:
    """The options in a request; `enable_thinking` among its *template_kwargs* is the same switch as *thinking*."""
    if not isinstance(template_kwargs, (Mapping, type(None))):
        raise RequestError("chat_template_kwargs must be a JSON object")
    kwargs = dict(template_kwargs or {})
    switch = kwargs.pop("enable_thinking", None)
    if not isinstance(switch, (bool, type(None))):
        raise RequestError("chat_template_kwargs.enable_thinking must be true or false")
    check_depth("chat_template_kwargs", kwargs)
    without_surrogates("chat_template_kwargs", json.dumps(kwargs, ensure_ascii=False))
    return RenderOptions(thinking=switch if thinking is None else thinking, template_kwargs=kwargs)


def render_prompt(profile: Profile, conversation: Conversation, options: RenderOptions = RenderOptions()) -> Prompt:
    """The prompt for *conversation*; `RequestError` when the template refuses it or an option does not exist."""
    kwargs = dict(options.template_kwargs)
    thinking = options.thinking
    if not options.template and (unknown := sorted(kwargs.keys() - set(profile.template_options))):
        known = ", ".join(("enable_thinking", *profile.template_options))
        raise RequestError(f"chat_template_kwargs has {shown(unknown)}; {profile.name} knows {known}")
    if reserved := sorted(kwargs.keys() & _RESERVED):
        raise RequestError(f"chat_template_kwargs may not hold {', '.join(reserved)}: requests have fields for these")
    messages = [_for_template(message) for message in _with_toggle(profile, conversation.messages, thinking)]
    tools = [{"type": "function", "function": function} for function in conversation.functions]
    marker = _free_marker(json.dumps([messages, tools, kwargs], ensure_ascii=False))
    mark = functools.partial(_mark, marker)
    control = tuple(profile.control_tokens)
    # What an assistant wrote may hold the think tags it was trained to write; from anyone else they are text.
    spoken = tuple(token for token in control if token not in (reasoning.OPENER, reasoning.CLOSER))
    try:
        marked = _template(options.template, profile.prompt_format).render(
            messages=[mark(spoken if message["role"] == "assistant" else control, message) for message in messages],
            tools=mark(control, tools),
            add_generation_prompt=options.add_generation_prompt,
            enable_thinking=thinking_mode(profile, conversation, thinking),
            **profile.template_settings,
            **mark(control, kwargs),
        )
    except (jinja2.TemplateError, RecursionError, TypeError, ValueError, LookupError, ArithmeticError) as error:
        name = "--chat-template" if options.template else profile.prompt_format
        raise RequestError(f"the chat template {name} refused these messages: {error}") from error
    return Prompt(marked, marker, control)


def check_template(text: str) -> None:
    """Compile a template that is to replace a profile's own; `RequestError` says what is wrong with it, and where."""
    try:
        _compiled(text)
    except jinja2.TemplateSyntaxError as error:
        raise RequestError(f"line {error.lineno}: {error.message}") from error


def thinking_mode(profile: Profile, conversation: Conversation, thinking: bool | None) -> bool:
    """Whether the model will think: what the system prompt says, else *thinking*, else the model's default."""
    if profile.thinking.control == "system_prompt" and (written := _written_toggle(conversation.messages)):
        return written == "on"
    return bool(profile.thinking.default if thinking is None else thinking)


def _written_toggle(messages: Sequence[Message]) -> str | None:
    """What the caller wrote as a line of the system prompt: "on", "off" or nothing."""
    found = _TOGGLE.search(messages[0].content) if messages[0].role == "system" else None
    return found[1] if found else None


def _with_toggle(profile: Profile, messages: Sequence[Message], thinking: bool | None) -> Sequence[Message]:
    """*messages* with the toggle as first line of the system prompt, for models that are switched there.

    A toggle the caller wrote stays as it is. With no mode asked for, a system prompt is left alone and an empty or
    absent one gets the model's default, as the published templates have it.
    """
    if profile.thinking.control != "system_prompt":
        return messages
    has_system = messages[0].role == "system"
    text = messages[0].content if has_system else ""
    mode = profile.thinking.default if thinking is None and not text.strip() else thinking
    if mode is not None and not _written_toggle(messages):
        toggle = f"detailed thinking {'on' if mode else 'off'}"
        text = f"{toggle}\n\n{text}" if text.strip() else toggle
    return [Message(role="system", content=text), *messages[has_system:]]


def _for_template(message: Message) -> dict[str, Any]:
    """The message as Hugging Face chat templates expect it."""
    made: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.reasoning:
        made["reasoning_content"] = message.reasoning
    if message.calls:
        made["tool_calls"] = [
            {"type": "function", "function": {"name": call.name, "arguments": call.arguments}} for call in message.calls
        ]
    return made


def _mark(marker: str, control: tuple[str, ...], value: Any) -> Any:
    """*value* with *marker* put after the first character of every control token in its strings, keys included."""
    if isinstance(value, str):
        return _alternatives(control).sub(lambda found: found[0][0] + marker + found[0][1:], value)
    if isinstance(value, Mapping):
        return {_mark(marker, control, key): _mark(marker, control, item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_mark(marker, control, item) for item in value]
    return value


def _free_marker(text: str) -> str:
    for marker in _MARKERS:
        if marker not in text:
            return marker
    raise RequestError("messages use every Unicode noncharacter from U+FDD0 to U+FDEF; remove one of them")


@functools.cache
def _alternatives(tokens: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("(" + "|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True)) + ")")


def _template(text: str | None, prompt_format: str) -> jinja2.Template:
    return _environment().get_template(f"{prompt_format}.jinja") if text is None else _compiled(text)


@functools.lru_cache(maxsize=8)
def _compiled(text: str) -> jinja2.Template:
    return _environment().from_string(text)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[loopcontrols],
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=False,
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as the models saw it in training: non-ASCII kept and nothing HTML-escaped, unlike Jinja's own filter."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _strftime_now(pattern: str) -> str:
    return datetime.now().astimezone().strftime(pattern)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)

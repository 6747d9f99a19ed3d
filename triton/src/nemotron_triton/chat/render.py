"""A conversation as the prompt the model was trained on, rendered by Jinja the way Hugging Face does.

Text from callers that spells a control token stays text: it is marked before rendering, so that `Prompt.pieces` can
tell a control token of the template from one in a message.
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
from nemotron_triton.chat.content_cache import ContentCache
from nemotron_triton.chat.conversation import Conversation, Message, check_depth, shown, without_surrogates
from nemotron_triton.chat.profiles import TEMPLATES, Profile
from nemotron_triton.errors import RequestError

_TOGGLE = re.compile(r"^[ \t]*detailed thinking (on|off)\b", re.MULTILINE)
_RESERVED = {"messages", "tools", "add_generation_prompt"}
# Unicode noncharacters are never assigned, so at least one of them is unused in any real text.
_MARKERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]
# Stands for the question in a prompt that is kept.
_PLACE = _MARKERS[-1]
# Prompts but for their last message, by all that is in them; a prompt is about as long as that.
_outlines: ContentCache[str] = ContentCache(4 << 20)
_encode = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True)
class Prompt:
    """A rendered prompt. `marked` has `marker` inside every control token that comes from a message."""

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
    """How a conversation is rendered. *thinking* None is the model's own default.

    *template_kwargs* go to the template; our own templates take the profile's `template_options` only.
    *template* is the text of another template to use, which gets the variables of Hugging Face templates.
    """

    thinking: bool | None = None
    add_generation_prompt: bool = True
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    template: str | None = None


def render_options(thinking: bool | None, template_kwargs: object) -> RenderOptions:
    """The options of a request; `enable_thinking` among *template_kwargs* means the same as *thinking*."""
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
    """The prompt for *conversation*; `RequestError` when the template refuses it or does not know an option."""
    kwargs = dict(options.template_kwargs)
    thinking = options.thinking
    if not options.template and (unknown := sorted(kwargs.keys() - set(profile.template_options))):
        known = ", ".join(("enable_thinking", *profile.template_options))
        raise RequestError(f"chat_template_kwargs has {shown(unknown)}; {profile.name} knows {known}")
    if reserved := sorted(kwargs.keys() & _RESERVED):
        raise RequestError(f"chat_template_kwargs may not hold {', '.join(reserved)}: requests have fields for these")
    messages = [_for_template(message) for message in _with_toggle(profile, conversation.messages, thinking)]
    tools = [{"type": "function", "function": function} for function in conversation.functions]
    mode = thinking_mode(profile, conversation, thinking)
    text = _encode([messages, tools, kwargs])
    marker = next((marker for marker in _MARKERS if marker not in text), None)
    if marker is None:
        raise RequestError("messages use every Unicode noncharacter from U+FDD0 to U+FDEF; remove one of them")
    control = tuple(profile.control_tokens)
    render = functools.partial(_render, profile, options, tools, kwargs, marker=marker, thinking=mode)
    question = messages[-1]["content"]
    if options.template or marker == _PLACE or _PLACE in text or not _is_plain_question(messages[-1]):
        return Prompt(render(messages), marker, control)
    # Callers ask much with the same tools and the same messages before, and our own templates look at no question.
    messages[-1] = {"role": "user", "content": _PLACE}
    outline = _outlines.get(
        (_encode([messages, tools, kwargs]), marker, profile.name, f"{mode} {options.add_generation_prompt}"),
        functools.partial(render, messages),
    )
    return Prompt(outline.replace(_PLACE, _mark(marker, control, question)), marker, control)


def _render(
    profile: Profile,
    options: RenderOptions,
    tools: Sequence[Mapping[str, Any]],
    kwargs: Mapping[str, Any],
    messages: Sequence[Mapping[str, Any]],
    *,
    marker: str,
    thinking: bool,
) -> str:
    """The prompt, marked; `RequestError` when the template refuses what it gets."""
    mark = functools.partial(_mark, marker)
    control = tuple(profile.control_tokens)
    # An assistant's message may have think tags, which the model is trained to write; elsewhere they are text.
    assistant_control = tuple(token for token in control if token not in (reasoning.OPENER, reasoning.CLOSER))
    try:
        return _template(options.template, profile.prompt_format).render(
            messages=[
                mark(assistant_control if message["role"] == "assistant" else control, message) for message in messages
            ],
            tools=mark(control, tools),
            add_generation_prompt=options.add_generation_prompt,
            enable_thinking=thinking,
            **profile.template_settings,
            **mark(control, kwargs),
        )
    except (jinja2.TemplateError, RecursionError, TypeError, ValueError, LookupError, ArithmeticError) as error:
        name = "--chat-template" if options.template else profile.prompt_format
        raise RequestError(f"the chat template {name} refused these messages: {error}") from error


def _is_plain_question(message: Mapping[str, Any]) -> bool:
    """Whether our own templates write the message as it is; they may take blanks off its ends."""
    content = message["content"]
    return message == {"role": "user", "content": content} and bool(content) and content == content.strip()


def check_template(text: str) -> None:
    """Compile a template that replaces a profile's own; `RequestError` names the line and what is wrong."""
    try:
        _compiled(text)
    except jinja2.TemplateSyntaxError as error:
        raise RequestError(f"line {error.lineno}: {error.message}") from error


def thinking_mode(profile: Profile, conversation: Conversation, thinking: bool | None) -> bool:
    """Whether the model will think: by the system prompt's toggle, else *thinking*, else the model's default."""
    if profile.thinking.control == "system_prompt" and (toggle := _written_toggle(conversation.messages)):
        return toggle == "on"
    return bool(profile.thinking.default if thinking is None else thinking)


def _written_toggle(messages: Sequence[Message]) -> str | None:
    """The toggle in the caller's system prompt, "on" or "off", if there is one."""
    match = _TOGGLE.search(messages[0].content) if messages[0].role == "system" else None
    return match[1] if match else None


def _with_toggle(profile: Profile, messages: Sequence[Message], thinking: bool | None) -> Sequence[Message]:
    """*messages* with the toggle as first line of the system prompt, for models that are switched there.

    A caller's own toggle is kept. Without a mode, a system prompt stays as it is, and an empty or absent one gets the
    model's default, as in the published templates.
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
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.reasoning:
        turn["reasoning_content"] = message.reasoning
    if message.calls:
        turn["tool_calls"] = [
            {"type": "function", "function": {"name": call.name, "arguments": call.arguments}} for call in message.calls
        ]
    return turn


def _mark(marker: str, control: tuple[str, ...], value: Any) -> Any:
    """*value* with *marker* put after the first character of every control token in its strings, keys included."""
    if isinstance(value, str):
        return _alternatives(control).sub(lambda match: match[0][0] + marker + match[0][1:], value)
    if isinstance(value, Mapping):
        return {_mark(marker, control, key): _mark(marker, control, item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_mark(marker, control, item) for item in value]
    return value


@functools.cache
def _alternatives(tokens: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("(" + "|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True)) + ")")


def _template(text: str | None, prompt_format: str) -> jinja2.Template:
    return _own_template(prompt_format) if text is None else _compiled(text)


@functools.cache
def _own_template(prompt_format: str) -> jinja2.Template:
    return _environment().get_template(f"{prompt_format}.jinja")


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
    environment.globals["strftime_now"] = lambda pattern: datetime.now().astimezone().strftime(pattern)
    return environment


def _tojson(value: object, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    """JSON as the models saw it in training: non-ASCII kept and nothing HTML-escaped, unlike Jinja's own filter."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)

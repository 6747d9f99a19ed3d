"""A conversation as the prompt the model was trained on, rendered by Jinja the way Hugging Face does.

Text from callers that spells a control token stays text: it is marked before rendering, so that `Prompt.pieces` can
tell a control token of the template from one in a message.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from nemotron_triton.chat import exact_json, reasoning
from nemotron_triton.chat.content_cache import ContentCache
from nemotron_triton.chat.conversation import Call, Conversation, Message, check_depth, shown, without_surrogates
from nemotron_triton.chat.profiles import TEMPLATES, Profile
from nemotron_triton.errors import RequestError

_TOGGLE = re.compile(r"^[ \t]*detailed thinking (on|off)[ \t]*(?=\r?$)", re.MULTILINE)
_RESERVED = {"messages", "tools", "add_generation_prompt", "continue_final_message"}
# Templates of several makers call the switch so.
_SWITCHES = ("enable_thinking", "thinking")
# Unicode noncharacters are never assigned, so at least two of them are unused in any real text.
_MARKERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]
# Prompts but for their last message, by all that is in them; a prompt is about as long as that.
_outlines: ContentCache[str] = ContentCache(4 << 20)
_encode = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True)
class Prompt:
    """A rendered prompt. `marked` has `marker` inside every control token that comes from a message.

    `continued` is the beginning of the answer, which the prompt ends with, where the last message is to be continued.
    """

    marked: str
    marker: str
    control_tokens: tuple[str, ...]
    continued: str = ""

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

    *template_kwargs* go to the template; our own templates take the profile's `template_options` only. With
    *continue_final_message* the prompt ends where the last message does, which must be the assistant's.
    *template* is the text of another template to use, which gets the variables of Hugging Face templates.
    """

    thinking: bool | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    template: str | None = None


def render_options(thinking: bool | None, template_kwargs: object) -> RenderOptions:
    """The options of a request; *thinking* has two names among *template_kwargs*, `enable_thinking` and `thinking`."""
    if not isinstance(template_kwargs, (Mapping, type(None))):
        raise RequestError("chat_template_kwargs must be a JSON object")
    kwargs = dict(template_kwargs or {})
    given = {name: kwargs.pop(name, None) for name in _SWITCHES}
    switches = {name: switch for name, switch in given.items() if switch is not None}
    for name, switch in switches.items():
        if not isinstance(switch, bool):
            raise RequestError(f"chat_template_kwargs.{name} must be true or false")
    if len(set(switches.values())) > 1:
        raise RequestError(f"chat_template_kwargs has {shown(switches)}, which mean the same; give one of them")
    check_depth("chat_template_kwargs", kwargs)
    without_surrogates("chat_template_kwargs", json.dumps(kwargs, ensure_ascii=False))
    switch = next(iter(switches.values()), None)
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
    turns = _with_toggle(profile, conversation.messages, thinking)
    if options.continue_final_message:
        turns = [*turns[:-1], _to_continue(turns[-1])]
    messages = [_for_template(message, own=not options.template) for message in turns]
    tools = [{"type": "function", "function": function} for function in conversation.functions]
    mode = thinking_mode(profile, conversation, thinking)
    text = exact_json.write([messages, tools, kwargs])
    marker, place = _unused_in(text)
    control = tuple(profile.control_tokens)
    render = functools.partial(_render, profile, options, tools, kwargs, marker=marker, thinking=mode)
    if options.continue_final_message:
        messages[-1]["content"] += place
        marked, at, _ = render(messages).rpartition(place)
        if not at:
            raise RequestError("the chat template leaves the last message out, so it cannot be continued")
        return Prompt(marked, marker, control, turns[-1].content)
    question = messages[-1]["content"]
    key = None if options.template else _outline_key(messages, tools, kwargs, place)
    if key is None:
        return Prompt(render(messages), marker, control)
    # Callers ask much with the same tools and the same messages before, and our own templates look at no question.
    messages[-1] = {"role": "user", "content": place}
    outline = _outlines.get(
        (key, marker, profile.name, f"{mode} {options.add_generation_prompt}"), functools.partial(render, messages)
    )
    return Prompt(outline.replace(place, _mark(marker, control, question)), marker, control)


def finished_prompt(profile: Profile, text: str) -> Prompt:
    """A prompt that the caller rendered, with a template of his own: its control tokens count."""
    return Prompt(text, _MARKERS[0], tuple(profile.control_tokens))


def _unused_in(text: str) -> tuple[str, str]:
    """Two characters that *text* does not hold; `RequestError` when it holds all that are meant for that."""
    unused = itertools.islice((marker for marker in _MARKERS if marker not in text), 2)
    if len(pair := tuple(unused)) < 2:
        raise RequestError("messages use every Unicode noncharacter from U+FDD0 to U+FDEF; remove two of them")
    return pair[0], pair[1]


def _to_continue(last: Message) -> Message:
    """The *last* message, for a prompt that ends where it ends; `RequestError` when it is none that goes on."""
    if last.role != "assistant" or last.calls:
        found = "calls tools" if last.calls else f"is the {last.role}'s"
        raise RequestError(
            f"continue_final_message is true, but the last message {found}; end with an assistant's text"
        )
    # Without an answer yet, it is the thinking that goes on.
    return last if last.content else replace(last, content=_opened(last.reasoning), reasoning="")


def _opened(thought: str) -> str:
    return f"{reasoning.OPENER}\n{thought}" if thought else ""


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
            thinking=thinking,
            **profile.template_settings,
            **mark(control, kwargs),
        )
    except (jinja2.TemplateError, RecursionError, TypeError, ValueError, LookupError, ArithmeticError) as error:
        name = "--chat-template" if options.template else profile.prompt_format
        raise RequestError(f"the chat template {name} refused these messages: {error}") from error


def _outline_key(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], kwargs: Mapping[str, Any], place: str
) -> str | None:
    """All that a prompt depends on but its last message, where our own templates write that as it is; else None.

    They may take blanks off its ends.
    """
    *before, last = messages
    content = last["content"]
    if last != {"role": "user", "content": content} or not content or content != content.strip():
        return None
    try:
        return _encode([before, tools, kwargs, place])
    except TypeError:
        # Exact values are no key: a broken text among them could look like the end of another conversation.
        return None


def check_template(text: str) -> None:
    """Compile a template that replaces a profile's own; `RequestError` names the line and what is wrong."""
    try:
        _compiled(text)
    except jinja2.TemplateSyntaxError as error:
        raise RequestError(f"line {error.lineno}: {error.message}") from error


def thinking_mode(profile: Profile, conversation: Conversation, thinking: bool | None) -> bool:
    """Whether the model will think: by *thinking*, else the system prompt's toggle, else the model's default."""
    if thinking is None and profile.thinking.control == "system_prompt":
        first = conversation.messages[0]
        if first.role == "system" and (toggle := _TOGGLE.search(first.content)):
            return toggle[1] == "on"
    return bool(profile.thinking.default if thinking is None else thinking)


def _with_toggle(profile: Profile, messages: Sequence[Message], thinking: bool | None) -> Sequence[Message]:
    """*messages* with the toggle in the system prompt, for models that are switched there.

    *thinking* is said by a line that switches it, where the caller's text has one, else by a new first line. Without
    it a system prompt stays as it is, and an empty or absent one gets the model's default, as in the published
    templates.
    """
    if profile.thinking.control != "system_prompt":
        return messages
    has_system = messages[0].role == "system"
    text = messages[0].content if has_system else ""
    mode = profile.thinking.default if thinking is None and not text.strip() else thinking
    if mode is not None:
        toggle = f"detailed thinking {'on' if mode else 'off'}"
        text, replaced = _TOGGLE.subn(toggle, text)
        if not replaced:
            text = f"{toggle}\n\n{text}" if text.strip() else toggle
    return [Message(role="system", content=text), *messages[has_system:]]


def _for_template(message: Message, *, own: bool) -> dict[str, Any]:
    """The message as Hugging Face chat templates expect it; our *own* take arguments that are no object."""
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.reasoning:
        turn["reasoning_content"] = message.reasoning
    if message.calls:
        turn["tool_calls"] = [
            {"type": "function", "function": {"name": call.name, "arguments": _arguments(call, own=own)}}
            for call in message.calls
        ]
    return turn


def _arguments(call: Call, *, own: bool) -> Any:
    return call.arguments if own or isinstance(call.arguments, Mapping) else {"arguments": call.arguments}


def _mark(marker: str, control: tuple[str, ...], value: Any) -> Any:
    """*value* with *marker* put after the first character of every control token in its strings, keys included."""
    if isinstance(value, str):
        return _alternatives(control).sub(lambda match: match[0][0] + marker + match[0][1:], value)
    if isinstance(value, Mapping):
        pairs = [(_mark(marker, control, key), _mark(marker, control, item)) for key, item in value.items()]
        return exact_json.mapping(pairs)
    if isinstance(value, exact_json.Verbatim):
        return exact_json.Verbatim(_mark(marker, control, value.text))
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
    return exact_json.write(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)

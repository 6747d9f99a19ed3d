"""A checkpoint's own chat template beside ours, over conversations that touch everything a template has to decide."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from nemotron_build.checkpoint import read_json
from nemotron_build.errors import CheckpointError
from nemotron_triton.chat import reasoning
from nemotron_triton.chat.conversation import read_conversation
from nemotron_triton.chat.profiles import Profile
from nemotron_triton.chat.render import RenderOptions, check_template, render_prompt
from nemotron_triton.errors import RequestError

MAX_TEMPLATE_BYTES = 1024 * 1024

_PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "Where"}, "days": {"type": ["integer", "null"]}},
    "required": ["city"],
}
_FUNCTION = {"name": "get_forecast", "description": "Weather of a town", "parameters": _PARAMETERS}
_TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": _FUNCTION},
    {"type": "function", "function": {"name": "get_time", "description": "Now"}},
]


def _call(*arguments: str, **message: Any) -> dict[str, Any]:
    calls = [
        {"id": f"call_{number}", "type": "function", "function": {"name": "get_forecast", "arguments": text}}
        for number, text in enumerate(arguments, start=1)
    ]
    return {"role": "assistant", "content": None, "tool_calls": calls, **message}


_ASK = {"role": "user", "content": "Rain in Turku?"}
_ANSWER = {"role": "assistant", "content": "No."}
_ASK_AGAIN = {"role": "user", "content": "And Oulu?"}
_RESULT = {"role": "tool", "tool_call_id": "call_1", "content": '{"high": 4}'}
_CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "a question": [_ASK],
    "a system prompt": [{"role": "system", "content": "Be brief."}, _ASK],
    "blanks around text": [{"role": "user", "content": "  two spaces \n"}],
    "text beyond ASCII": [{"role": "user", "content": "Översätt <b>'öppet'</b> & \"日本語\" 🙂"}],
    "an earlier answer": [_ASK, _ANSWER, _ASK_AGAIN],
    "earlier thinking": [
        _ASK,
        {"role": "assistant", "content": reasoning.written("North.", "model opens") + "No."},
        _ASK_AGAIN,
    ],
    "earlier thinking in its own field": [_ASK, {**_ANSWER, "reasoning_content": "North."}, _ASK_AGAIN],
    "a call and its result": [_ASK, _call('{"city": "Turku", "days": 2}'), _RESULT],
    "a call with text before it": [_ASK, _call('{"city": "Turku"}', content="Let me look."), _RESULT],
    "a call, an answer, a question": [
        _ASK,
        _call('{"city": "Turku", "days": null}', reasoning_content="I need data."),
        _RESULT,
        _ANSWER,
        {"role": "user", "content": "Thanks."},
    ],
    "two results": [
        _ASK,
        _call('{"city": "Turku"}', '{"city": "Oulu"}'),
        _RESULT,
        {**_RESULT, "tool_call_id": "call_2", "content": "no data"},
    ],
}


@dataclass(frozen=True)
class Comparison:
    """One conversation and the prompts of both templates for it."""

    name: str
    ours: str
    theirs: str


def compare(profile: Profile, checkpoint: Path) -> Iterator[Comparison]:
    """Render every conversation both ways; a template that refuses one shows its complaint instead of a prompt."""
    templates = own_templates(checkpoint)
    for (name, messages), tools, thinking in product(_CONVERSATIONS.items(), (None, _TOOLS), (None, True, False)):
        conversation = read_conversation(messages, tools)
        theirs = templates.get("tool_use", templates["default"]) if tools else templates["default"]
        mode = {None: "default", True: "on", False: "off"}[thinking]
        prompts = []
        for template in (None, theirs):
            options = RenderOptions(thinking=thinking, template=template)
            try:
                prompts.append(render_prompt(profile, conversation, options).text)
            except RequestError as error:
                prompts.append(f"({error})")
        yield Comparison(f"{name}, {'tools' if tools else 'no tools'}, thinking {mode}", *prompts)


def own_templates(checkpoint: Path) -> dict[str, str]:
    """The chat templates of a checkpoint by name, `default` among them; `CheckpointError` when it has none."""
    if (checkpoint / "chat_template.jinja").is_file():
        return {"default": read_template(checkpoint / "chat_template.jinja")}
    stored = read_json(checkpoint / "tokenizer_config.json").get("chat_template")
    if isinstance(stored, str):
        return {"default": stored}
    if isinstance(stored, list):
        named = {entry["name"]: entry["template"] for entry in stored if isinstance(entry, dict) and len(entry) == 2}
        if isinstance(named.get("default"), str):
            return named
    raise CheckpointError(
        f"{checkpoint} has no chat template: neither chat_template.jinja nor one in tokenizer_config.json"
    )


def read_template(path: Path) -> str:
    """The text of a template that Jinja can compile; `CheckpointError` says what is wrong with it."""
    try:
        if path.stat().st_size > MAX_TEMPLATE_BYTES:
            raise CheckpointError(f"{path} is larger than {MAX_TEMPLATE_BYTES >> 20} MiB; this is not a chat template")
        text = path.read_text(encoding="utf-8")
        check_template(text)
    except (OSError, UnicodeDecodeError, RequestError) as error:
        raise CheckpointError(f"{path} is not a chat template: {error}") from error
    return text

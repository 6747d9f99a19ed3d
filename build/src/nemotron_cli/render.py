"""`nemotron render`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from nemotron_build.templates import read_template
from nemotron_cli import options
from nemotron_cli.files import read_json_list, read_messages
from nemotron_cli.jsonl import answer_lines
from nemotron_client import wire
from nemotron_triton.chat import exact_json
from nemotron_triton.chat.conversation import check_depth
from nemotron_triton.chat.profiles import profile
from nemotron_triton.errors import RequestError
from nemotron_triton.serving.prompt_request import read_prompt
from nemotron_triton.serving.settings import Settings
from nemotron_triton.serving.values import Values

_FIELDS = {"id", "model", "add_generation_prompt", *(tensor.name for tensor in wire.PREPROCESSING_INPUTS)}
_JSON = (wire.MESSAGES, wire.TOOLS, wire.CHAT_TEMPLATE_KWARGS)
_KINDS: dict[str, tuple[type, str]] = {
    "BOOL": (bool, "true, false"),
    "INT32": (int, "a whole number"),
    "BYTES": (str, "text"),
}


@click.command("render")
@click.argument("question", required=False)
@options.model
@options.thinking("Whether to think first.")
@options.system
@options.tools
@options.messages
@click.option("--chat-template", "template_file", type=options.PATH, help="Use this Jinja file instead.")
@options.jsonl
def command(
    question: str | None,
    model: str,
    thinking: bool | None,
    system: str | None,
    tools_file: Path | None,
    messages_file: Path | None,
    template_file: Path | None,
    jsonl: bool,
) -> None:
    """Print the prompt that the model gets to read for QUESTION, or for a whole conversation.

    With --jsonl each line of stdin holds messages (or text_input, a finished prompt) and, if wanted, id, model, tools,
    tool_choice, thinking (true, false or null), max_thinking_tokens, reasoning_effort, chat_template_kwargs,
    add_generation_prompt and continue_final_message, which mean what they mean to a server; each line of stdout holds
    the id and the prompt or an error.
    """
    template = read_template(template_file) if template_file else None
    if jsonl:
        answer_lines(_FIELDS, lambda request: {"prompt": _prompt(request, model, template)}, exact_json.read)
        return
    messages = read_messages(system, messages_file, question, exact_json.read)
    tools = read_json_list(tools_file, "tools") if tools_file else None
    click.echo(_prompt({"messages": messages, "tools": tools, "thinking": thinking}, model, template), nl=False)


def _prompt(request: Mapping[str, Any], model: str, template: str | None) -> str:
    prompt = read_prompt(
        _values(request),
        profile(request.get("model") or model),
        Settings(),
        template=template,
        add_generation_prompt=bool(request.get("add_generation_prompt", True)),
    )
    return prompt.text


def _values(request: Mapping[str, Any]) -> Values:
    """The values of *request* as tensors have them, in which lists and objects are JSON."""
    values: dict[wire.Tensor, Any] = {}
    for tensor in wire.PREPROCESSING_INPUTS:
        value = request.get(tensor.name)
        if value is None:
            continue
        kind, what = _KINDS[tensor.dtype]
        if tensor in _JSON or (tensor is wire.TOOL_CHOICE and not isinstance(value, str)):
            check_depth(tensor.name, value)
            value = exact_json.write(value, ensure_ascii=True)
        elif type(value) is not kind:
            raise RequestError(f"{tensor} must be {what} or null")
        values[tensor] = value
    return values

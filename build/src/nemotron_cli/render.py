"""`nemotron render`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from nemotron_build.templates import read_template
from nemotron_cli import options
from nemotron_cli.files import read_json_list, read_messages
from nemotron_cli.jsonl import answer_lines
from nemotron_triton.chat.conversation import read_conversation
from nemotron_triton.chat.profiles import profile
from nemotron_triton.chat.render import render_options, render_prompt
from nemotron_triton.errors import RequestError

_FIELDS = {
    "id",
    "model",
    "messages",
    "tools",
    "thinking",
    "chat_template_kwargs",
    "add_generation_prompt",
    "continue_final_message",
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

    With --jsonl each line of stdin holds messages and, if wanted, id, model, tools, thinking (true, false or null),
    chat_template_kwargs, add_generation_prompt and continue_final_message; each line of stdout holds the id and the
    prompt or an error.
    """
    template = read_template(template_file) if template_file else None
    if jsonl:
        answer_lines(_FIELDS, lambda request: {"prompt": _prompt(request, model, template)})
        return
    messages = read_messages(system, messages_file, question)
    tools = read_json_list(tools_file, "tools") if tools_file else None
    click.echo(_prompt({"messages": messages, "tools": tools, "thinking": thinking}, model, template), nl=False)


def _prompt(request: Mapping[str, Any], model: str, template: str | None) -> str:
    thinking = request.get("thinking")
    if thinking not in (True, False, None):
        raise RequestError("thinking must be true, false or null")
    render = replace(
        render_options(thinking, request.get("chat_template_kwargs")),
        add_generation_prompt=bool(request.get("add_generation_prompt", True)),
        continue_final_message=bool(request.get("continue_final_message", False)),
        template=template,
    )
    conversation = read_conversation(request.get("messages"), request.get("tools"))
    return render_prompt(profile(request.get("model") or model), conversation, render).text

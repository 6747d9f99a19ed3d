"""`nemotron render`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from nemotron_build.templates import read_template
from nemotron_cli.files import json_lines, read_json_list, read_messages
from nemotron_triton.chat.conversation import read_conversation
from nemotron_triton.chat.profiles import DEFAULT_PROFILE, profile
from nemotron_triton.chat.render import RenderOptions, render_options, render_prompt
from nemotron_triton.errors import RequestError, ServingError

_FIELDS = {"id", "model", "messages", "tools", "thinking", "chat_template_kwargs", "add_generation_prompt"}


@click.command("render")
@click.argument("question", required=False)
@click.option("--model", default=DEFAULT_PROFILE, show_default=True, help="Profile or repository name.")
@click.option("--thinking", type=click.Choice(["on", "off"]), help="Whether to think first. Default: the model's.")
@click.option("--system", help="Instructions for the whole conversation.")
@click.option("--tools", "tools_file", type=click.Path(path_type=Path), help="JSON file with OpenAI-shaped tools.")
@click.option(
    "--messages", "messages_file", type=click.Path(path_type=Path, allow_dash=True), help="JSON file; - is stdin."
)
@click.option("--chat-template", "template_file", type=click.Path(path_type=Path), help="Use this Jinja file instead.")
@click.option("--jsonl", is_flag=True, help="Read requests from stdin, one JSON object a line, and answer each.")
def command(
    question: str | None,
    model: str,
    thinking: str | None,
    system: str | None,
    tools_file: Path | None,
    messages_file: Path | None,
    template_file: Path | None,
    jsonl: bool,
) -> None:
    """Print the prompt that the model gets to read for QUESTION, or for a whole conversation.

    With --jsonl each line of stdin holds messages and, if wanted, id, model, tools, thinking (true, false or null),
    chat_template_kwargs and add_generation_prompt; each line of stdout holds the id and the prompt or an error.
    """
    template = read_template(template_file) if template_file else None
    if jsonl:
        for request in json_lines():
            click.echo(json.dumps({"id": request.get("id")} | _answer(request, model, template)))
        return
    messages = read_messages(system, messages_file, question)
    tools = read_json_list(tools_file, "tools") if tools_file else None
    options = RenderOptions(thinking=None if thinking is None else thinking == "on", template=template)
    click.echo(render_prompt(profile(model), read_conversation(messages, tools), options).text, nl=False)


def _answer(request: Mapping[str, Any], model: str, template: str | None) -> dict[str, str]:
    try:
        if "error" in request and request.keys() <= {"id", "error"}:
            raise RequestError(request["error"])
        if unknown := sorted(request.keys() - _FIELDS):
            raise RequestError(f"unknown keys {', '.join(unknown)}; known: {', '.join(sorted(_FIELDS))}")
        thinking = request.get("thinking")
        if thinking not in (True, False, None):
            raise RequestError("thinking must be true, false or null")
        options = replace(
            render_options(thinking, request.get("chat_template_kwargs")),
            add_generation_prompt=bool(request.get("add_generation_prompt", True)),
            template=template,
        )
        conversation = read_conversation(request.get("messages"), request.get("tools"))
        return {"prompt": render_prompt(profile(request.get("model") or model), conversation, options).text}
    except ServingError as error:
        return {"error": str(error)}

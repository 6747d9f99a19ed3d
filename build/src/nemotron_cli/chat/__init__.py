"""`nemotron chat`: one question, or a conversation in the terminal."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from nemotron_cli import options
from nemotron_cli.chat.answer_view import show
from nemotron_cli.chat.dialogue import Dialogue
from nemotron_cli.chat.history import ChatHistory
from nemotron_cli.chat.lines import ChatLines
from nemotron_cli.chat.session import ChatSession
from nemotron_cli.chat.slash_commands import read_tools
from nemotron_cli.files import read_json_list, read_messages
from nemotron_client import Client, Reply
from nemotron_triton.access import read_secret


@click.command("chat")
@click.argument("question", required=False)
@options.thinking("Whether to think first.")
@options.system
@options.tools
@options.messages
@click.option(
    "--tool-choice",
    metavar="CHOICE",
    shell_complete=options.names("auto", "none", "required"),
    help="auto, none, required, or the name of the function that must be called.",
)
@click.option("--max-tokens", type=click.IntRange(min=1), metavar="N", help="Most tokens to generate.")
@click.option(
    "--temperature", type=click.FloatRange(min=0), metavar="T", help="0 is greedy. Default: the model's recommendation."
)
@click.option(
    "--think-at-most",
    "max_thinking_tokens",
    type=click.IntRange(min=0),
    metavar="N",
    help="Tokens after which the thinking is ended; 0 for none.",
)
@click.option("--seed", type=int, help="Makes sampling repeatable.")
@options.endpoint
@click.option(
    "--timeout", "timeout_s", type=float, default=600.0, show_default=True, help="Seconds the answer may take."
)
@click.option("--json", "as_json", is_flag=True, help="Print the reply as one JSON document.")
def command(
    question: str | None,
    thinking: bool | None,
    system: str | None,
    tools_file: Path | None,
    messages_file: Path | None,
    secret_file: Path | None,
    as_json: bool,
    **values: Any,
) -> None:
    """Ask a served model QUESTION and stream its answer; without QUESTION and --messages, talk with it.

    The answer and tool calls go to stdout, the thinking to stderr, dimmed on a terminal.

    In a conversation each line is a question, /help lists what else can be typed, and Ctrl-C stops an answer. What is
    typed is kept in $XDG_STATE_HOME/nemotron/chat_history, or in $NEMOTRON_CHAT_HISTORY; where that is empty, nowhere.
    """
    interactive = question is None and messages_file is None
    if interactive and (as_json or sys.stdin is None):
        raise click.UsageError("give a QUESTION or --messages FILE")
    messages = [] if interactive else read_messages(system, messages_file, question)
    names = ("tool_choice", "max_tokens", "max_thinking_tokens", "temperature", "seed")
    request = {name: values.pop(name) for name in names}
    request["thinking"] = thinking
    with Client(secret=read_secret(secret_file), **values) as client:
        if interactive:
            tools = read_tools(tools_file) if tools_file else None
            dialogue = Dialogue(client, system=system, tools=tools, **request)
            ChatSession(dialogue, ChatLines(ChatHistory.of_environment())).run()
            return
        events = client.stream(messages, tools=read_json_list(tools_file, "tools") if tools_file else None, **request)
        if as_json:
            click.echo(json.dumps(_document(Reply.of(events)), ensure_ascii=False, indent=2))
        else:
            show(events)


def _document(reply: Reply) -> dict[str, Any]:
    return {
        "reasoning": reply.reasoning,
        "content": reply.content,
        "tool_calls": [call.as_openai() for call in reply.tool_calls],
        "finish_reason": reply.finish_reason,
        "thinking_cut": reply.thinking_cut,
        "usage": asdict(reply.usage),
        "problems": [asdict(problem) for problem in reply.problems],
    }

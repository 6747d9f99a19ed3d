"""`nemotron chat`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from nemotron_build.cli.files import read_json_list, read_messages
from nemotron_client import Client, ContentDelta, Event, Finish, ReasoningDelta, Reply, ToolCall
from nemotron_triton.access import read_secret

_FILE = click.Path(path_type=Path)


@click.command("chat")
@click.argument("question", required=False)
@click.option("--thinking", type=click.Choice(["on", "off"]), help="Whether to think first. Default: the model's.")
@click.option("--system", help="Instructions for the whole conversation.")
@click.option("--tools", "tools_file", type=click.Path(path_type=Path), help="JSON file with OpenAI-shaped tools.")
@click.option(
    "--messages",
    "messages_file",
    type=click.Path(path_type=Path, allow_dash=True),
    help="JSON file with earlier messages; - is stdin.",
)
@click.option(
    "--tool-choice", metavar="CHOICE", help="auto, none, required, or the name of the function that must be called."
)
@click.option("--max-tokens", type=int, help="Most tokens to generate.")
@click.option("--temperature", type=float, help="0 is greedy. Default: the model's recommendation.")
@click.option("--seed", type=int, help="Makes sampling repeatable.")
@click.option("--url", help="gRPC endpoint, host:port. Default: $NEMOTRON_URL, else 127.0.0.1:8001.")
@click.option(
    "--timeout", "timeout_s", type=float, default=600.0, show_default=True, help="Seconds the answer may take."
)
@click.option("--secret-file", type=_FILE, help="File with the server's secret. Default: $NEMOTRON_SECRET.")
@click.option(
    "--root-ca",
    type=_FILE,
    help="Use TLS; PEM file of who signed the server's certificate. Default: $NEMOTRON_ROOT_CA.",
)
@click.option("--client-cert", type=_FILE, help="PEM file, for mutual TLS. Default: $NEMOTRON_CLIENT_CERT.")
@click.option("--client-key", type=_FILE, help="PEM file: its key. Default: $NEMOTRON_CLIENT_KEY.")
@click.option("--json", "as_json", is_flag=True, help="Print the reply as one JSON document.")
def command(
    question: str | None,
    thinking: str | None,
    system: str | None,
    tools_file: Path | None,
    messages_file: Path | None,
    tool_choice: str | None,
    max_tokens: int | None,
    temperature: float | None,
    seed: int | None,
    url: str | None,
    timeout_s: float,
    secret_file: Path | None,
    root_ca: Path | None,
    client_cert: Path | None,
    client_key: Path | None,
    as_json: bool,
) -> None:
    """Ask a served model QUESTION and stream its answer.

    The answer and tool calls go to stdout, the thinking to stderr, dimmed on a terminal.
    """
    messages = read_messages(system, messages_file, question)
    with Client(
        url,
        timeout_s=timeout_s,
        secret=read_secret(secret_file),
        root_ca=root_ca,
        client_cert=client_cert,
        client_key=client_key,
    ) as client:
        events = client.stream(
            messages,
            tools=read_json_list(tools_file, "tools") if tools_file else None,
            tool_choice=_choice(tool_choice),
            thinking=None if thinking is None else thinking == "on",
            max_tokens=max_tokens,
            temperature=temperature,
            seed=seed,
        )
        if as_json:
            click.echo(json.dumps(_document(Reply.of(events)), ensure_ascii=False, indent=2))
        else:
            _show(events)


def _show(events: Iterator[Event]) -> None:
    """Print events as they come, each kind of text beginning on a line of its own."""
    open_line: bool | None = None  # whether the unfinished line is thinking; None at the start of a line
    for event in events:
        if isinstance(event, (ReasoningDelta, ContentDelta)):
            thinking = isinstance(event, ReasoningDelta)
            if open_line is not None and open_line != thinking:
                click.echo(err=open_line)
            text = _printable(event.text)
            click.echo(click.style(text, dim=True) if thinking else text, nl=False, err=thinking)
            open_line = None if text.endswith("\n") else thinking
            continue
        if open_line is not None:
            click.echo(err=open_line)
            open_line = None
        if isinstance(event, ToolCall):
            click.echo(_printable(f"{event.name}({_shown(event.arguments)})"))
        elif isinstance(event, Finish):
            for problem in event.problems:
                click.echo(_printable(f"({problem.code} {problem.function}".rstrip() + ")"), err=True)
            if event.reason == "length":
                click.echo("(cut off by the token limit)", err=True)


def _shown(arguments: Any) -> str:
    if not isinstance(arguments, dict):
        return json.dumps(arguments, ensure_ascii=False)
    return ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in arguments.items())


def _choice(word: str | None) -> str | dict[str, Any] | None:
    if word in (None, "auto", "none", "required"):
        return word
    return {"type": "function", "function": {"name": word}}


def _printable(text: str) -> str:
    """*text* without the control characters that would let a model drive the terminal."""
    return "".join(char if char in "\n\t" or char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _document(reply: Reply) -> dict[str, Any]:
    usage = reply.usage
    return {
        "reasoning": reply.reasoning,
        "content": reply.content,
        "tool_calls": [call.as_openai() for call in reply.tool_calls],
        "finish_reason": reply.finish_reason,
        "usage": {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "reasoning_tokens": usage.reasoning_tokens,
        },
        "problems": [asdict(problem) for problem in reply.problems],
    }

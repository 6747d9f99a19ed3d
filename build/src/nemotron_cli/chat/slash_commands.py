"""What a line of `nemotron chat` that begins with / does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from nemotron_cli.chat.answer_view import call_text, one_line, printable
from nemotron_cli.chat.dialogue import Dialogue
from nemotron_cli.files import read_json_list
from nemotron_client.spelling import did_you_mean
from nemotron_triton.atomic import write_atomically
from nemotron_triton.chat.conversation import read_functions
from nemotron_triton.errors import RequestError

# Of a number that every server takes.
_MOST_DIGITS = 9
_MODES = {"on": True, "off": False, "default": None}


class Quit(Exception):
    """The user wants to leave."""


def read_tools(path: Path) -> list[Any]:
    """The tools in the JSON file *path*, checked now and not with every question."""
    tools = read_json_list(path, "tools")
    try:
        read_functions(tools)
    except RequestError as error:
        raise click.ClickException(f"{path}: {error}") from error
    return tools


def run(text: str, dialogue: Dialogue) -> None:
    """Do what *text* says; `Quit` when that is to leave, `click.ClickException` when it is wrong."""
    name, argument = [*text.split(maxsplit=1), ""][:2]
    if name not in _COMMANDS:
        remedy = did_you_mean(name, _COMMANDS) or "/help lists what there is, and // begins a text with /"
        raise click.ClickException(f"there is no {name:.60}; {remedy}")
    _, _, command = _COMMANDS[name]
    command(dialogue, argument.strip())


def _help(_dialogue: Dialogue, _argument: str) -> None:
    lines = {f"{name} {argument}".rstrip(): about for name, (argument, about, _) in _COMMANDS.items()}
    lines |= {"//...": "Ask a question that begins with /.", "...\\": "Go on in the next line."}
    width = max(map(len, lines))
    for usage, about in lines.items():
        click.echo(f"{usage:{width}}  {about}")


def _thinking(dialogue: Dialogue, mode: str) -> None:
    if mode:
        if mode not in _MODES:
            raise click.ClickException(f"/thinking is {mode!r:.60}; it must be on, off or default")
        dialogue.thinking = _MODES[mode]
    click.echo(f"thinking: {next(name for name in _MODES if _MODES[name] is dialogue.thinking)}", err=True)


def _think_at_most(dialogue: Dialogue, tokens: str) -> None:
    if tokens:
        if tokens != "off" and not (tokens.isascii() and tokens.isdecimal() and len(tokens) <= _MOST_DIGITS):
            raise click.ClickException(f"/think-at-most is {tokens!r:.60}; it must be a number of tokens, or off")
        dialogue.max_thinking_tokens = None if tokens == "off" else int(tokens)
    most = dialogue.max_thinking_tokens
    click.echo(f"think at most: {'off' if most is None else f'{most} tokens'}", err=True)


def _tools(dialogue: Dialogue, file: str) -> None:
    if file:
        dialogue.tools = None if file == "off" else read_tools(_path(file))
    names = [function["name"] for function in read_functions(dialogue.tools)]
    click.echo(f"tools: {one_line(', '.join(names)) or 'off'}", err=True)


def _system(dialogue: Dialogue, text: str) -> None:
    dialogue.system = text or None
    click.echo(f"system: {'set' if text else 'off'}", err=True)


def _history(dialogue: Dialogue, _argument: str) -> None:
    if not dialogue.messages:
        click.echo("(nothing was said yet)", err=True)
    for message in dialogue.messages:
        role = f"{message['role']} {message.get('name', '')}".rstrip()
        if message["content"]:
            click.echo(printable(f"{role}: {message['content']}"))
        for call in message.get("tool_calls", ()):
            function = call["function"]
            click.echo(printable(f"{role}: {call_text(function['name'], json.loads(function['arguments']))}"))


def _reset(dialogue: Dialogue, _argument: str) -> None:
    dialogue.forget()
    click.echo("(forgotten)", err=True)


def _save(dialogue: Dialogue, file: str) -> None:
    if not file:
        raise click.ClickException("/save needs the name of a file")
    messages, path = dialogue.messages, _path(file)
    if not messages:
        raise click.ClickException("nothing was said yet, so there is nothing to save")
    try:
        text = json.dumps(messages, ensure_ascii=False, indent=2) + "\n"
        write_atomically(path, text, replace=False, mode=0o600)
    except FileExistsError as error:
        raise click.ClickException(f"{path} exists; give another name") from error
    except (OSError, ValueError) as error:
        raise click.ClickException(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error
    click.echo(one_line(f"saved {len(messages)} messages in {path}"), err=True)


def _quit(_dialogue: Dialogue, _argument: str) -> None:
    raise Quit


def _path(file: str) -> Path:
    # Absolute, for `-` would be stdin.
    try:
        return Path(file).expanduser().absolute()
    except (OSError, RuntimeError) as error:
        raise click.ClickException(f"{file} cannot be found: {error}") from error


# Each with its argument, its line in /help, and what it does.
_COMMANDS: dict[str, tuple[str, str, Callable[[Dialogue, str], None]]] = {
    "/help": ("", "List what can be typed.", _help),
    "/thinking": ("on|off|default", "Whether the model thinks first.", _thinking),
    "/think-at-most": ("N|off", "Tokens after which the thinking is ended; 0 for none.", _think_at_most),
    "/tools": ("FILE|off", "What the model may call: a JSON file with OpenAI-shaped tools.", _tools),
    "/system": ("TEXT", "Instructions for the whole conversation; without TEXT none.", _system),
    "/history": ("", "Print the conversation so far.", _history),
    "/reset": ("", "Forget the conversation.", _reset),
    "/save": ("FILE", "Write the conversation to a new file, for --messages.", _save),
    "/quit": ("", "Leave, as the end of the input does.", _quit),
}

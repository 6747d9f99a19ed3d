"""What a line of `nemotron chat` that begins with / does."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
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


class ChatCommands:
    """The commands of one conversation; `click.ClickException` is what is wrong with one."""

    def __init__(self, dialogue: Dialogue) -> None:
        """Look at *dialogue*, and change it."""
        self._dialogue = dialogue

    def run(self, text: str) -> None:
        """Do what *text* says; `Quit` when that is to leave."""
        name, words = [*text.split(maxsplit=1), ""][:2]
        if name not in _COMMANDS:
            remedy = did_you_mean(name, _COMMANDS) or "/help lists what there is, and // begins a text with /"
            raise click.ClickException(f"there is no {name:.60}; {remedy}")
        _COMMANDS[name].run(self, words.strip())

    def help(self, _words: str) -> None:
        """List the commands, and what else is to know."""
        usages = {f"{name} {each.arguments}".rstrip(): each.about for name, each in _COMMANDS.items()}
        width = max(map(len, usages))
        for usage, about in usages.items():
            click.echo(f"{usage:{width}}  {about}")
        click.echo(f"{'//...':{width}}  Ask a question that begins with /.")
        click.echo(f"{'...' + chr(92):{width}}  Go on in the next line.")

    def thinking(self, words: str) -> None:
        """Set whether the model thinks, or say what is set."""
        if words:
            if words not in _MODES:
                raise click.ClickException(f"/thinking is {words!r:.60}; it must be on, off or default")
            self._dialogue.thinking = _MODES[words]
        mode = next(name for name, value in _MODES.items() if value is self._dialogue.thinking)
        click.echo(f"thinking: {mode}", err=True)

    def tools(self, words: str) -> None:
        """Set what the model may call, or say what it may."""
        if words:
            self._dialogue.tools = None if words == "off" else read_tools(_path(words))
        names = [function["name"] for function in read_functions(self._dialogue.tools)]
        click.echo(f"tools: {one_line(', '.join(names)) or 'off'}", err=True)

    def system(self, words: str) -> None:
        """Set the instructions of the conversation."""
        self._dialogue.system = words or None
        click.echo(f"system: {'set' if words else 'off'}", err=True)

    def history(self, _words: str) -> None:
        """Print the conversation."""
        messages = self._dialogue.messages
        if not messages:
            click.echo("(nothing was said yet)", err=True)
        for message in messages:
            who = f"{message['role']} {message.get('name', '')}".rstrip()
            if message["content"]:
                click.echo(printable(f"{who}: {message['content']}"))
            for call in message.get("tool_calls", ()):
                function = call["function"]
                shown = call_text(function["name"], json.loads(function["arguments"]))
                click.echo(printable(f"{who}: {shown}"))

    def reset(self, _words: str) -> None:
        """Forget the conversation."""
        self._dialogue.forget()
        click.echo("(forgotten)", err=True)

    def save(self, words: str) -> None:
        """Write the conversation where `--messages` finds it."""
        if not words:
            raise click.ClickException("/save needs the name of a file")
        messages, path = self._dialogue.messages, _path(words)
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

    def quit(self, _words: str) -> None:
        """Leave."""
        raise Quit


def _path(words: str) -> Path:
    # Absolute, for `-` would be stdin.
    try:
        return Path(words).expanduser().absolute()
    except (OSError, RuntimeError) as error:
        raise click.ClickException(f"{words} cannot be found: {error}") from error


@dataclass(frozen=True)
class _Command:
    arguments: str
    about: str
    run: Callable[[ChatCommands, str], None]


_COMMANDS = {
    "/help": _Command("", "List what can be typed.", ChatCommands.help),
    "/thinking": _Command("on|off|default", "Whether the model thinks first.", ChatCommands.thinking),
    "/tools": _Command(
        "FILE|off", "What the model may call: a JSON file with OpenAI-shaped tools.", ChatCommands.tools
    ),
    "/system": _Command("TEXT", "Instructions for the whole conversation; without TEXT none.", ChatCommands.system),
    "/history": _Command("", "Print the conversation so far.", ChatCommands.history),
    "/reset": _Command("", "Forget the conversation.", ChatCommands.reset),
    "/save": _Command("FILE", "Write the conversation to a new file, for --messages.", ChatCommands.save),
    "/quit": _Command("", "Leave, as the end of the input does.", ChatCommands.quit),
}

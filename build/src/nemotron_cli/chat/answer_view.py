"""An answer on the terminal, as it comes. No text of a model may control the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import click

from nemotron_cli.terminal import styled
from nemotron_client import ContentDelta, Event, Finish, ReasoningDelta, ToolCall


def show(events: Iterable[Event]) -> None:
    """Print *events* as they come; an unfinished line is ended, whatever happens."""
    view = _AnswerView()
    try:
        for event in events:
            view.add(event)
    finally:
        view.end_line()


class _AnswerView:
    """The answer and its calls on stdout, the thinking on stderr, each kind of text on a line of its own."""

    def __init__(self) -> None:
        self._open: bool | None = None  # whether the unfinished line is thinking; None at the start of a line

    def add(self, event: Event) -> None:
        """Print *event*, except a piece of a call, which is printed whole."""
        if isinstance(event, (ReasoningDelta, ContentDelta)):
            self._text(event.text, thinking=isinstance(event, ReasoningDelta))
        elif isinstance(event, ToolCall):
            self.end_line()
            click.echo(printable(call_text(event.name, event.arguments)))
        elif isinstance(event, Finish):
            self.end_line()
            if event.thinking_cut:
                click.echo("(the thinking was cut off by its budget)", err=True)
            for problem in event.problems:
                click.echo(printable(f"({problem.code} {problem.function}".rstrip() + ")"), err=True)
            if event.reason == "length":
                click.echo("(cut off by the token limit)", err=True)

    def end_line(self) -> None:
        if self._open is not None:
            click.echo(err=self._open)
            self._open = None

    def _text(self, text: str, *, thinking: bool) -> None:
        if self._open != thinking:
            self.end_line()
        text = printable(text)
        click.echo(styled(text, dim=True) if thinking else text, nl=False, err=thinking)
        self._open = None if text.endswith("\n") else thinking


def call_text(name: str, arguments: Any) -> str:
    """A call as Python would write it, for people; not yet `printable`."""
    if isinstance(arguments, dict):
        text = ", ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in arguments.items())
    else:
        text = json.dumps(arguments, ensure_ascii=False)
    return f"{name}({text})"


def printable(text: str) -> str:
    """*text* without the control characters that would let a model control the terminal."""
    return "".join(char if char in "\n\t" or char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def one_line(text: str) -> str:
    """*text* for a prompt or an error: `printable`, and in one line."""
    return printable(" ".join(text.split()))

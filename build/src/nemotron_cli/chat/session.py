"""The loop of `nemotron chat` without a question: what is typed is asked, and what begins with / is done."""

from __future__ import annotations

import click

from nemotron_cli.chat import slash_commands
from nemotron_cli.chat.answer_view import one_line
from nemotron_cli.chat.dialogue import Dialogue
from nemotron_cli.chat.lines import ChatLines, Interrupted
from nemotron_cli.chat.slash_commands import Quit
from nemotron_client import ClientError

_PROMPT = "> "
_HOW_TO = "Ask, and /help lists what else can be typed; Ctrl-C stops an answer, Ctrl-D leaves."


class ChatSession:
    """Takes *lines* until they end, and goes on with *dialogue*; whatever goes wrong with one is a line on stderr."""

    def __init__(self, dialogue: Dialogue, lines: ChatLines) -> None:
        self._dialogue = dialogue
        self._lines = lines
        self._empty_interrupts = 0

    def run(self) -> None:
        """Go on until the input ends, or /quit. Only a terminal shows how to use this."""
        if self._lines.interactive:
            click.echo(_HOW_TO, err=True)
        with self._lines.interruptible():
            while True:
                try:
                    self._step()
                except Quit:
                    return
                except Interrupted:
                    click.echo("(stopped)", err=True)
                except (ClientError, click.ClickException) as error:
                    click.echo(f"error: {one_line(str(error))}", err=True)

    def _step(self) -> None:
        """Take one text; `Quit` where there is none."""
        try:
            text = self._lines.read(_PROMPT)
        except Interrupted:
            self._hint()
            return
        self._empty_interrupts = 0
        if text is None:
            raise Quit
        if not text.strip():
            return
        self._lines.remember(text)
        if text.startswith("/") and not text.startswith("//"):
            slash_commands.run(text, self._dialogue)
        else:
            self._dialogue.ask(
                text.removeprefix("/"), lambda call: self._lines.read(f"result of {one_line(call.name)}: ")
            )

    def _hint(self) -> None:
        """Ctrl-C at the prompt only clears the line; the second one in a row on an empty line says how to leave."""
        self._empty_interrupts = 0 if self._lines.interrupted_text else self._empty_interrupts + 1
        if self._empty_interrupts > 1:
            click.echo("(Ctrl-D or /quit leaves)", err=True)

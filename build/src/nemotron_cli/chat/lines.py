"""What a user types on a terminal, with a prompt, line editing and Ctrl-C, or pipes in, with none of them."""

from __future__ import annotations

import importlib
import io
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType

import click

from nemotron_cli.chat.history import ChatHistory
from nemotron_cli.files import MAX_FILE_BYTES

_CONTINUED = "... "
_HELD_DOWN_S = 0.5


class Interrupted(KeyboardInterrupt):
    """Ctrl-C on the terminal of a conversation: it stops what runs now, not the program."""


class ChatLines:
    """The texts that a user types, from stdin; *history* is what up-arrow brings back on a terminal.

    Where stdin is no terminal, Ctrl-C ends the program, as it ends any other.
    """

    def __init__(self, history: ChatHistory) -> None:
        self.interactive = sys.stdin.isatty()
        self._history = history
        self._interrupted_at_s = 0.0
        # Bytes that are no text are refused in `_line`: an error in stdin's decoder would lose the lines behind them.
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="surrogateescape")
        # The module that makes `input` edit lines, which some Pythons lack.
        self._readline: ModuleType | None = None
        if self.interactive and sys.stdout.isatty():
            with suppress(ModuleNotFoundError):
                self._readline = importlib.import_module("readline")
        if self._readline:
            self._readline.set_auto_history(False)
            for entry in history.entries():
                self._offer(entry)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Where a terminal's Ctrl-C raises `Interrupted`."""
        if not self.interactive:
            yield
            return
        previous = signal.signal(signal.SIGINT, self._interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)

    def read(self, prompt: str) -> str | None:
        """The next text, of several lines where all but the last end with a backslash; None at the end of input.

        Raises `Interrupted`, and `click.ClickException` for what cannot be sent.
        """
        self._interrupted_at_s = 0.0
        lines: list[str] = []
        room = MAX_FILE_BYTES
        try:
            while (line := self._line(prompt, room)) is not None:
                if not line.endswith("\\"):
                    return "\n".join([*lines, line])
                lines.append(line[:-1])
                room -= len(line)
                prompt = _CONTINUED
        except Interrupted:
            self._leave_line()
            raise
        self._leave_line()
        return "\n".join(lines) if lines else None

    def remember(self, text: str) -> None:
        """Let up-arrow bring *text* back, in this run and in later ones."""
        self._offer(text)
        if self._readline:
            self._history.add(text)

    @property
    def interrupted_text(self) -> str:
        """The text in the line when it was interrupted; empty without line editing, which cannot say."""
        return str(self._readline.get_line_buffer()) if self._readline else ""

    def _offer(self, entry: str) -> None:
        if self._readline:
            # What this terminal's encoding lacks cannot be typed here either.
            with suppress(UnicodeEncodeError):
                self._readline.add_history(entry)

    def _line(self, prompt: str, room: int) -> str | None:
        line = self._edited_line(prompt) if self._readline else self._plain_line(prompt, room)
        if line is None:
            return None
        if len(line) > room:
            raise click.ClickException(f"this text is longer than {MAX_FILE_BYTES >> 20} Mi characters; send less")
        try:
            line.encode("utf-8")
        except UnicodeEncodeError as error:
            raise click.ClickException(f"this line is not {sys.stdin.encoding}; send it again as text") from error
        return line

    def _edited_line(self, prompt: str) -> str | None:
        try:
            return input(prompt)
        except EOFError:
            return None

    def _plain_line(self, prompt: str, room: int) -> str | None:
        if self.interactive:
            click.echo(prompt, nl=False, err=True)
        line = piece = sys.stdin.readline(room + 2)
        while len(piece) > room and not piece.endswith("\n"):
            piece = sys.stdin.readline(room + 2)  # of a line that is too long already
        return line.removesuffix("\n") if line else None

    def _leave_line(self) -> None:
        """Put the cursor, which an interrupted prompt or the end of input leaves behind the prompt, on a new line."""
        if self.interactive:
            click.echo(err=True)

    def _interrupt(self, *_: object) -> None:
        """Raise `Interrupted`, but not again while Ctrl-C is held down: that would interrupt its handling."""
        now_s = time.monotonic()
        if now_s - self._interrupted_at_s > _HELD_DOWN_S:
            self._interrupted_at_s = now_s
            raise Interrupted

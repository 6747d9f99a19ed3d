"""What `nemotron serve` shows of tritonserver's log, on stderr."""

from __future__ import annotations

import collections
import contextlib

import click

from nemotron_triton.server_log import is_chatter, is_table


class ServeLog:
    """Shows the lines that it is called with: with *verbose* all, with *quiet* none, else what is no chatter."""

    def __init__(self, *, verbose: bool, quiet: bool) -> None:
        self._verbose = verbose
        self._quiet = quiet
        self._held_back: collections.deque[str] = collections.deque(maxlen=400)

    def __call__(self, line: str) -> None:
        """Show *line*, or hold it back."""
        if self._quiet:
            return
        if self._verbose or not is_chatter(line):
            say(line)
        elif not is_table(line):
            self._held_back.append(line)

    def show_held_back(self) -> None:
        """Show the last of what was held back: the server failed, and somebody has to find out why."""
        if self._held_back:
            say("the rest of tritonserver's log, at most its last 400 lines:")
        while self._held_back:
            say(f"  {self._held_back.popleft()}")


def say(line: str) -> None:
    """Print a line on stderr; where that fails, as on a full disk, serving and draining go on without it."""
    with contextlib.suppress(OSError):
        click.echo(line, err=True)

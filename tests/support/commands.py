"""`nemotron` in this process, for tests that need no process of its own."""

from __future__ import annotations

import os
import signal

from click.testing import CliRunner, Result

from nemotron_cli import main

_HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def invoke(*words: object, stdin: str | bytes | None = None) -> Result:
    """The result of a command that reads *stdin*, without the developer's own settings.

    What would be a traceback is raised. The signals that commands handle are the suite's again afterwards.
    """
    settings = {name: None for name in os.environ if name.startswith("NEMOTRON_")}
    handlers = [signal.getsignal(number) for number in _HANDLED]
    try:
        return CliRunner().invoke(main, list(map(str, words)), input=stdin, env=settings, catch_exceptions=False)
    finally:
        for number, handler in zip(_HANDLED, handlers, strict=True):
            signal.signal(number, handler)

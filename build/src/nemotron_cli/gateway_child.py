"""The `nemotron gateway` beside a server: a child process that is started again when it dies.

It ends with this process, however this one ends: its standard input is a pipe that nobody else holds open.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

from nemotron_gateway.errors import SettingError

Process: TypeAlias = "subprocess.Popen[str]"
_LISTEN_S = 60.0
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0
# Who lived as long as this does not die of what the one before it died of.
_STEADY_S = 10.0
_POLL_S = 0.1
# For the last bytes of its connections.
_FAREWELL_S = 3.0
_ERROR = "Error: "
# What it prints first, and once.
_READY, _ADDRESS = "ready", "  OpenAI API "


class GatewayChild:
    """A gateway with *arguments* and the settings *variables*, while the block runs. Lines of its log go to *say*."""

    def __init__(self, arguments: Sequence[str], variables: Mapping[str, str], say: Callable[[str], None]) -> None:
        self._arguments = arguments
        # Settings that are meant for clients of this machine are not for this one.
        others = {name: value for name, value in os.environ.items() if not name.startswith("NEMOTRON_")}
        self._environment = {**others, **variables}
        self._say = say
        self._process: Process | None = None
        self._listened = threading.Event()
        self._failure: SettingError | None = None
        self._stopping = threading.Event()
        self._turn = threading.Lock()
        self._thread = threading.Thread(target=self._keep, name="nemotron-gateway", daemon=True)

    def __enter__(self) -> GatewayChild:
        """Start it."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it, if it runs yet."""
        self._stop()

    def wait_listening(self, stop: threading.Event) -> bool:
        """Wait until it takes requests; False when *stop* was set first. `SettingError` when it never will."""
        deadline = time.monotonic() + _LISTEN_S
        while not self._listened.wait(_POLL_S):
            if self._failure:
                raise self._failure
            if stop.is_set():
                return False
            if time.monotonic() > deadline:
                raise SettingError(f"the gateway did not listen within {_LISTEN_S:g} s")
        return True

    def read_keys(self) -> None:
        """Have it read its keys again. One that is just starting reads them anyway, also if this ends it."""
        self._send(signal.SIGHUP)

    def drain(self, hurry: threading.Event, deadline: float) -> None:
        """End it: it takes no new requests, and running ones get time until *deadline*, or until *hurry* is set."""
        self._stopping.set()
        self._send(signal.SIGTERM)
        while self._thread.is_alive() and time.monotonic() < deadline and not hurry.is_set():
            self._thread.join(_POLL_S)
        self._stop()

    def _stop(self) -> None:
        self._stopping.set()
        with self._turn:
            if self._process and self._process.stdin:
                self._process.stdin.close()
        self._thread.join(_FAREWELL_S)
        self._send(signal.SIGKILL)
        self._thread.join()

    def _send(self, number: signal.Signals) -> None:
        with self._turn:
            if self._process:
                self._process.send_signal(number)

    def _keep(self) -> None:
        pause_s = _SHORTEST_PAUSE_S
        while True:
            begin_s = time.monotonic()
            try:
                if not (process := self._start()):
                    return
                end = self._outlive(process)
            except OSError as error:
                end = f"cannot be started: {error.strerror}"
            if self._stopping.is_set():
                return
            if not self._listened.is_set():
                self._failure = SettingError(f"the gateway {end}")
                return
            if time.monotonic() - begin_s > _STEADY_S:
                pause_s = _SHORTEST_PAUSE_S
            self._say(f"the gateway {end}; starting another in {pause_s:g} s")
            if self._stopping.wait(pause_s):
                return
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _start(self) -> Process | None:
        """Another one; None where none is wanted any more."""
        with self._turn:
            if self._stopping.is_set():
                return None
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-m", "nemotron_cli", "gateway", *self._arguments, "--end-with-stdin"],
                env=self._environment,
                # Not the user's folder, which -m puts on sys.path.
                cwd=Path("/"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                # Ctrl-C is for this process, which says when it is this one's turn to end.
                start_new_session=True,
            )
            # A core dump would hold prompts, and the secret.
            with contextlib.suppress(OSError):
                resource.prlimit(self._process.pid, resource.RLIMIT_CORE, (0, 0))
            return self._process

    def _outlive(self, process: Process) -> str:
        """Show the log of *process* until it ends; how it ended."""
        problem = ""
        with process:
            assert process.stdout
            for line in map(str.rstrip, process.stdout):
                if line == _READY:
                    self._listened.set()
                elif line.startswith(_ERROR):
                    problem = f": {line.removeprefix(_ERROR)}"
                elif not line.startswith(_ADDRESS):
                    self._say(line)
            code = process.wait()
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}{problem}"

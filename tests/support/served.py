"""`nemotron` as a user runs it: commands in processes of their own, `serve` among them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from nemotron_client import Client
from nemotron_triton.server import ServeOptions
from running import serve_options

NEMOTRON = (sys.executable, "-m", "nemotron_cli")


@dataclass(frozen=True)
class Served:
    """`nemotron serve` in a process of its own, and its lines on stderr."""

    process: subprocess.Popen[str]
    options: ServeOptions
    log: list[str]

    def client(self) -> Client:
        return Client(self.options.grpc_url, timeout_s=90)

    def line(self) -> str:
        """The next line on stdout."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def wait_for(self, pattern: str, seen: int = 0) -> str:
        """The first line of the log after *seen* lines that matches."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if matches := [line for line in self.log[seen:] if re.search(pattern, line)]:
                return matches[0].rstrip("\n")
            time.sleep(0.02)
        raise AssertionError(f"{pattern} is not in {''.join(self.log[seen:])}")


@contextmanager
def served_by_command(
    bundle: Path,
    *flags: str,
    folder: Path | None = None,
    wrapper: Sequence[str] = (),
    command: Sequence[str] = NEMOTRON,
    stderr: IO[str] | None = None,
) -> Iterator[Served]:
    """A server that is ready; *folder* is for its temporary files, *wrapper* is what starts it, *stderr* its log's.

    *command* is `nemotron`, of this checkout or of another.
    """
    options = serve_options()
    process = subprocess.Popen(
        [*wrapper, *command, "serve", str(bundle), *port_flags(options), *flags],
        stdout=subprocess.PIPE,
        stderr=stderr or subprocess.PIPE,
        text=True,
        env=os.environ | ({"TMPDIR": str(folder)} if folder else {}),
    )
    log: list[str] = []
    reader = threading.Thread(target=log.extend, args=(process.stderr or (),))
    reader.start()
    served = Served(process, options, log)
    try:
        assert served.line() == "ready\n", log
        yield served
    finally:
        process.kill()
        process.wait()
        reader.join()
        for stream in filter(None, (process.stdout, process.stderr)):
            stream.close()


def port_flags(options: ServeOptions) -> list[str]:
    """The options of `nemotron serve`, and of tritonserver, for its ports."""
    return [f"{flag}={port}" for flag, port in options.ports.items()]


def nemotron(*words: object, wrapper: Sequence[str] = (), **options: Any) -> subprocess.CompletedProcess[str]:
    """The result of a command that ends by itself, run without the developer's own settings."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NEMOTRON_")}
    return subprocess.run(
        [*wrapper, *NEMOTRON, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=60,
        **{"env": environment} | options,
    )

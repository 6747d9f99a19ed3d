"""Other programs, run to their end: their output goes to a log, their failure becomes one line.

Knows nothing about what the programs do.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from nemotron_build.errors import ToolError

_PR_SET_PDEATHSIG = 1
_SHOWN_BYTES = 2000


class Runner(Protocol):
    """Runs a program to its end; `ToolError` when it fails or is not there."""

    def __call__(
        self,
        argv: Sequence[str],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        """Run *argv* and add what it prints to *log*; with *on_line*, stdout goes there line by line instead."""


def run(
    argv: Sequence[str],
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
) -> None:
    """See `Runner`. An interrupted run takes the program and its children along.

    When this process dies by SIGKILL, the program itself is killed (Linux), but not what it started in turn.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        output.write(f"$ {' '.join(argv)}\n".encode())
        output.flush()
        try:
            process = subprocess.Popen(  # noqa: S603 - programs this package names, without a shell
                list(argv),
                env={**os.environ, **env} if env else None,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if on_line else output,
                stderr=output,
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        except OSError as error:
            raise ToolError(f"cannot run {argv[0]}: {error.strerror or error}") from error
        try:
            if on_line:
                assert process.stdout
                for line in process.stdout:
                    on_line(line.decode(errors="replace"))
            status = process.wait()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        finally:
            if process.stdout:
                process.stdout.close()
    if status:
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"failed with status {status}"
        # Not sent by us, it is most often the kernel's, out of memory.
        hint = "; was there enough memory?" if status == -signal.SIGKILL else ""
        raise ToolError(f"{Path(argv[0]).name} {how}{hint}; {_last_line(log)}the whole log is {log}")


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _last_line(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _SHOWN_BYTES))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    return f"it ended with: {lines[-1][:300]}; " if lines and not lines[-1].startswith("$ ") else ""

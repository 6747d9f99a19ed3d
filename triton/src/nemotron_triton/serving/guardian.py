"""Takes tritonserver down when the Python stub that holds the engine dies.

tritonserver before 26.04 reports that it is ready although a stub is dead (seen with 2.51: idle it stayed ready, under
load it crashed). A server that is gone is what every load balancer and client understands. `start` runs this file as a
process of its own, with a pipe from the stub as its standard input: `done` announces an orderly end, and the end of the
pipe without it is a death.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

_FAREWELL = b"done\n"
# Enough for an orderly end; the requests of a dead stub would keep tritonserver for its whole exit timeout.
_GRACE_S = 1.0


def start() -> subprocess.Popen[bytes]:
    """Guard the tritonserver that started this stub, until `stop` or the stub's death."""
    # In a session of its own, so that Ctrl-C in a terminal does not end the guardian before the server.
    return subprocess.Popen(  # noqa: S603 - our own interpreter and file
        [sys.executable, "-I", "-S", __file__, str(os.getppid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def stop(guardian: subprocess.Popen[bytes]) -> None:
    """End the guard: the stub is about to stop on purpose."""
    guardian.communicate(_FAREWELL)


def _main(server_pid: int) -> None:
    try:
        # Unlike a number, a file descriptor cannot come to mean another process.
        server = os.pidfd_open(server_pid)
    except OSError as error:
        _say(f"tritonserver is not guarded against a dead stub: pidfd_open: {error.strerror}")
        return
    if sys.stdin.buffer.readline() == _FAREWELL:
        return
    # The server may have ended first, or crashed with its stub.
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(server, signal.SIGTERM)
        _say("the Python stub of the engine died; stopping tritonserver")
        time.sleep(_GRACE_S)
        signal.pidfd_send_signal(server, signal.SIGKILL)


def _say(line: str) -> None:
    # The reader of the log may be gone too.
    with contextlib.suppress(OSError):
        sys.stderr.write(f"nemotron: {line}\n")
        sys.stderr.flush()


if __name__ == "__main__":
    _main(int(sys.argv[1]))

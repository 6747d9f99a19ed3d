"""Takes tritonserver down when the Python stub that holds the engine dies.

tritonserver before 26.04 goes on saying "ready" when a stub is dead (seen with 2.51: idle it stayed ready, under load
it crashed). A server that is gone is what every load balancer and client understands. Run as a process of its own by
`start`, with a pipe from the stub as its standard input: `done` is a farewell, the mere end of the pipe a death.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

_FAREWELL = b"done\n"
# Enough for tritonserver to say goodbye; requests of a dead stub would keep it for its whole exit timeout.
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
        # A file descriptor cannot come to mean another process, a number can.
        server = os.pidfd_open(server_pid)
    except OSError as error:
        _say(f"tritonserver is not guarded against a dead stub: pidfd_open: {error.strerror}")
        return
    if sys.stdin.buffer.readline() == _FAREWELL:
        return
    try:
        signal.pidfd_send_signal(server, signal.SIGTERM)
        _say("the Python stub of the engine died; stopping tritonserver")
        time.sleep(_GRACE_S)
        signal.pidfd_send_signal(server, signal.SIGKILL)
    except ProcessLookupError:
        # The server went first, or crashed with its stub.
        pass


def _say(line: str) -> None:
    # Whoever reads the log may have gone too.
    with contextlib.suppress(OSError):
        sys.stderr.write(f"nemotron: {line}\n")
        sys.stderr.flush()


if __name__ == "__main__":
    _main(int(sys.argv[1]))

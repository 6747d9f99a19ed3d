"""The model's side of the guardian: starts it, tells it how the model is, and starts another when it dies."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import nemotron_triton
from nemotron_triton.errors import ServerError
from nemotron_triton.run_folder import RunFolder
from nemotron_triton.server_lock import ServerLock
from nemotron_triton.serving.guardian import DONE, SERVING, Watched

# It starts in 20 ms, with 9 MiB, because it has no packages: only this one, for a module of its own.
_PROGRAM = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from nemotron_triton.serving import guardian; guardian.main(sys.argv[2:])"
)
_PACKAGES = Path(nemotron_triton.__file__).parents[1]
_RETRY_S = 1.0
_log = logging.getLogger(__name__)


class Guard:
    """Keeps a guardian over the server of *lock* until `close`; it ends the server when it dies after `serving`."""

    def __init__(self, lock: ServerLock) -> None:
        self._lock = lock
        self._word = b""
        self._closed = threading.Event()
        self._turn = threading.Lock()
        self._guardian: subprocess.Popen[bytes] | None = None
        try:
            self._watched = [Watched.open(os.getpid()), Watched.open(os.getppid()), *_serve(os.getppid())]
        except OSError as error:
            _log.warning("the server is not guarded against the death of its parts: pidfd_open: %s", error.strerror)
            return
        try:
            self._start()
        except OSError as error:
            raise ServerError(f"the server's guardian cannot be started: {error.strerror}") from error
        threading.Thread(target=self._keep, name="nemotron-guard", daemon=True).start()

    def serving(self) -> None:
        """From now on the server cannot do without this process."""
        self._tell(SERVING)

    def close(self) -> None:
        """This process is about to end on purpose."""
        self._closed.set()
        self._tell(DONE)

    def _tell(self, word: bytes) -> None:
        with self._turn:
            self._word = word
            self._send()

    def _send(self) -> None:
        # One that died is replaced, and told then.
        with contextlib.suppress(OSError):
            if self._guardian and self._guardian.stdin:
                self._guardian.stdin.write(self._word)
                self._guardian.stdin.flush()

    def _start(self) -> None:
        with self._turn:
            # In a session of its own, so that Ctrl-C in a terminal does not end the guardian before the server.
            self._guardian = subprocess.Popen(  # noqa: S603 - our own interpreter and file
                [
                    *(sys.executable, "-I", "-S", "-c", _PROGRAM),
                    *(str(_PACKAGES), str(self._lock.path)),
                    *map(str, self._watched),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=[watched.descriptor for watched in self._watched],
                start_new_session=True,
            )
            self._send()

    def _keep(self) -> None:
        while self._guardian:
            self._guardian.wait()
            if self._closed.is_set():
                return
            _log.warning("the guardian died; starting another")
            try:
                self._start()
            except OSError as error:
                _log.error("no guardian can be started: %s", error.strerror)
                self._closed.wait(_RETRY_S)


def _serve(tritonserver_pid: int) -> list[Watched]:
    """The `nemotron serve` that started tritonserver, if one did; `ServerError` when it is dead already."""
    folder = RunFolder.named_in(os.environ)
    if not folder:
        return []
    try:
        serve = Watched.open(folder.server_pid)
    except ProcessLookupError:
        serve = None
    # Opened before it is compared: the number may mean another process by now.
    parent = int(Path(f"/proc/{tritonserver_pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
    if not serve or parent != serve.pid:
        raise ServerError("the nemotron serve that started this server is dead")
    return [serve]

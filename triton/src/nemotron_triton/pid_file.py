"""The file that names the process of a server, and beside it the result of its last reload.

The server holds a lock on the file while it lives, so that a file whose server was killed is told from one in use, and
the number in it never means another process.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from nemotron_triton.errors import ServerError

_POLL_S = 0.05
_PID = re.compile(r"([1-9]\d*)\n")
_LONGEST = 32


@dataclass(frozen=True, kw_only=True)
class ReloadResult:
    """What came of a server's reload, the *number*-th of its life: `line` is for a person."""

    number: int
    ok: bool
    line: str


@dataclass(frozen=True)
class PidFile:
    """The file at *path* with the id of a server's process, mode 0600."""

    path: Path

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Name this process in the file until the block ends; `ServerError` where a living server owns it."""
        try:
            lock = self._claim()
        except OSError as error:
            raise ServerError(f"cannot write the pid file {self.path}: {error.strerror}") from error
        try:
            self._result.unlink(missing_ok=True)
            yield
        finally:
            with contextlib.suppress(OSError):
                self._result.unlink(missing_ok=True)
                self.path.unlink(missing_ok=True)
            os.close(lock)

    def report(self, *, ok: bool, line: str) -> None:
        """Let `reload`, in another process, know what came of it; `OSError` where that cannot be written."""
        before = self._last_result()
        result = ReloadResult(number=before.number + 1 if before else 1, ok=ok, line=line)
        descriptor, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}-")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(result), file)
        Path(name).replace(self._result)

    def reload(self, timeout_s: float) -> ReloadResult:
        """Have the server of the file reload, and wait for what comes of it; `ServerError` where it does not answer."""
        before, deadline = self._last_result(), time.monotonic() + timeout_s
        pid = self._server()
        try:
            os.kill(pid, signal.SIGHUP)
        except PermissionError as error:
            raise ServerError(f"process {pid} is another user's", "run this as the user who serves") from error
        while time.monotonic() < deadline:
            result = self._last_result()
            if result and result != before:
                return result
            self._server()
            time.sleep(_POLL_S)
        raise ServerError(f"process {pid} has not reloaded within {timeout_s:g} s, and may yet; its log says whether")

    def _server(self) -> int:
        """The process that holds the file; `ServerError` where there is none."""
        try:
            with self.path.open(encoding="ascii") as file:
                if _is_locked(file.fileno()) and (match := _PID.fullmatch(file.read(_LONGEST))):
                    return int(match[1])
        except FileNotFoundError as error:
            raise ServerError(
                f"no server has the pid file {self.path}", "start it with `nemotron serve --pid-file`"
            ) from error
        except (OSError, ValueError) as error:
            raise ServerError(f"cannot read the pid file {self.path}: {error}") from error
        raise ServerError(f"the server of the pid file {self.path} runs no more")

    def _claim(self) -> int:
        """The descriptor that holds the lock on the file, which appears with its content and already locked."""
        descriptor, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}-")
        try:
            os.write(descriptor, f"{os.getpid()}\n".encode())
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            while True:
                try:
                    os.link(name, self.path)
                except FileExistsError:
                    self._remove_stale()
                else:
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        finally:
            Path(name).unlink()

    def _remove_stale(self) -> None:
        try:
            with self.path.open("rb") as file:
                match = _PID.fullmatch(file.read(_LONGEST).decode("ascii", "replace"))
                if not match:
                    raise ServerError(f"{self.path} is no pid file", "give --pid-file another name")
                if _is_locked(file.fileno()):
                    owned = f"process {match[1]} serves with the pid file {self.path}"
                    raise ServerError(owned, "stop it, or give another --pid-file")
                self.path.unlink()
        except FileNotFoundError:
            return

    def _last_result(self) -> ReloadResult | None:
        try:
            return ReloadResult(**json.loads(self._result.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    @property
    def _result(self) -> Path:
        return self.path.with_name(f"{self.path.name}.reload")


def _is_locked(descriptor: int) -> bool:
    """Whether another process holds the lock of a file that is open here."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False

"""The lock file of a server: held while any process of the server lives, so that what it leaves behind can be removed.

It lies in /dev/shm with mode 0600, and each of its lines is a path to remove: the server's temporary folder, and the
shared-memory regions of its stubs. `nemotron serve` makes it and tritonserver inherits it; each stub holds it too, and
makes it under a plain tritonserver. Only files of the own user are opened, locked or removed, and no link is followed.
This module imports the standard library only: the guardian runs without packages.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SHM = Path("/dev/shm")  # noqa: S108 - where Triton's shared memory lies, not a temporary file
_PREFIX = "nemotron-"
_SUFFIX = ".lock"
# Where /proc/PID/stat has the time at which the process began, counted behind the program's name.
_STARTTIME = 19


class LockError(Exception):
    """The lock file cannot be made or belongs to somebody else; the message is one line."""


@dataclass(frozen=True)
class ServerLock:
    """The lock file at `path`."""

    path: Path

    @classmethod
    def of_folder(cls, folder: Path) -> ServerLock:
        """That of the `nemotron serve` with the temporary *folder*."""
        return cls(SHM / f"{folder.name}{_SUFFIX}")

    @classmethod
    def of_tritonserver(cls, pid: int) -> ServerLock:
        """That of a tritonserver which `nemotron serve` did not start."""
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return cls(SHM / f"{_PREFIX}tritonserver-{pid}-{int(fields[_STARTTIME])}{_SUFFIX}")

    def hold(self) -> int:
        """Make the file where there is none, and hold it until the file descriptor is closed; `LockError`."""
        while True:
            descriptor = _open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH)
                if self._is(descriptor):
                    return descriptor
            except OSError as error:
                os.close(descriptor)
                raise LockError(f"cannot lock {self.path}: {error.strerror}") from error
            # Another start took it for a dead server's, in the moment between the two calls, and removed it.
            os.close(descriptor)

    def is_held_by(self, pid: int) -> bool:
        """Whether process *pid* has the file open; only processes of the own user can be asked."""
        with contextlib.suppress(OSError):
            ours = self.path.stat()
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if os.path.samestat(link.stat(), ours):
                        return True
        return False

    def collect(self) -> bool:
        """Remove what the server left, if no process of it lives; whether nothing is left."""
        try:
            descriptor = _open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            return True
        except LockError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._is(descriptor):
                self.remove()
            return True
        except OSError:
            return False
        finally:
            os.close(descriptor)

    def remove(self) -> None:
        """Remove what the server left, and the lock file last. Only for who knows that no process of it lives."""
        name = self.path.name.removesuffix(_SUFFIX)
        lines: list[str] = []
        with contextlib.suppress(OSError):
            lines = self.path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        for path in {*map(Path, lines), *SHM.glob(f"{name}*")} - {self.path}:
            with contextlib.suppress(OSError):
                status = path.lstat()
                if status.st_uid != os.geteuid():
                    continue
                if stat.S_ISREG(status.st_mode) and path.parent == SHM:
                    path.unlink()
                elif stat.S_ISDIR(status.st_mode) and path.name == name:
                    shutil.rmtree(path, ignore_errors=True)
        self.path.unlink(missing_ok=True)

    def _is(self, descriptor: int) -> bool:
        """Whether *descriptor* is that of the file that now has the path."""
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.lstat())
        except FileNotFoundError:
            return False


def record(descriptor: int, *paths: Path) -> None:
    """Add *paths* to what is removed after the server whose lock file *descriptor* holds."""
    os.write(descriptor, b"".join(os.fsencode(path) + b"\n" for path in paths))


def collect_all() -> None:
    """Remove what dead servers of this user left."""
    for path in SHM.glob(f"{_PREFIX}*{_SUFFIX}"):
        ServerLock(path).collect()


@contextlib.contextmanager
def locked_folder(parent: Path) -> Iterator[tuple[Path, int]]:
    """A new folder in *parent*, mode 0700, and the descriptor that holds its lock; both are removed at the end.

    Raises `LockError`.
    """
    collect_all()
    folder = parent / f"{_PREFIX}serve-{secrets.token_hex(4)}"
    lock = ServerLock.of_folder(folder)
    descriptor = lock.hold()
    try:
        try:
            # Recorded first: there is no moment in which a death leaves the folder behind.
            record(descriptor, folder)
            folder.mkdir(mode=0o700)
        except OSError as error:
            raise LockError(f"cannot make {folder}: {error.strerror}") from error
        yield folder, descriptor
    finally:
        lock.remove()
        os.close(descriptor)


def _open(path: Path, flags: int) -> int:
    """Open a lock file of the own user; `FileNotFoundError`, or `LockError`."""
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    except FileNotFoundError:
        if flags & os.O_CREAT:
            raise LockError(f"cannot make {path}: there is no {path.parent}") from None
        raise
    except OSError as error:
        raise LockError(f"cannot open {path}: {error.strerror}") from error
    status = os.fstat(descriptor)
    if status.st_uid != os.geteuid() or not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise LockError(f"{path} belongs to somebody else, or is no file; have it removed")
    return descriptor

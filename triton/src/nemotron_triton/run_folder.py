"""The folder through which `nemotron serve` and the model processes communicate, by files in it.

The names of empty ones say which processes still answer, and which bundle was verified, so that its gigabytes are
hashed once; another holds the digests of the callers' secrets. An environment variable names the folder. Without it
tritonserver itself waits for running requests, and each model verifies what it loads.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nemotron_triton.bundle import Bundle
from nemotron_triton.callers import Callers
from nemotron_triton.errors import BundleError, ServerError

VARIABLE = "NEMOTRON_RUN_DIR"
_WITHDRAWN = "withdrawn"
_DRAIN = "drain"
_SERVER = "server-"
_SERVING = "serving-"
_VERIFIED = "verified-"
_CALLERS = "callers"


@dataclass(frozen=True)
class RunFolder:
    """The folder of one server, which calls all down to `anyone_serves`; its models call the rest."""

    path: Path

    @classmethod
    def named_in(cls, environment: Mapping[str, str]) -> RunFolder | None:
        """The folder that the server made, if it did."""
        return cls(Path(name)) if (name := environment.get(VARIABLE)) else None

    def create(self) -> None:
        """Make the folder, of this process."""
        self.path.mkdir()
        (self.path / f"{_SERVER}{os.getpid()}").touch()

    @property
    def server_pid(self) -> int:
        """The process that made the folder; `ServerError` when the folder is gone."""
        for file in self.path.glob(f"{_SERVER}*"):
            return int(file.name.removeprefix(_SERVER))
        raise ServerError(f"{self.path} is gone, and with it the nemotron serve that made it")

    def verify(self, bundle: Bundle) -> None:
        """Verify *bundle* for the models that will load it; `BundleError` says what was changed."""
        # Stamped first: a file that is touched while it is hashed must be hashed again.
        stamp = bundle.stamp()
        bundle.verify()
        # On a full disk the models verify it again.
        with contextlib.suppress(OSError):
            (self.path / f"{_VERIFIED}{stamp}").touch()

    def has_verified(self, bundle: Bundle) -> bool:
        """Whether the server has verified *bundle*, and it is untouched since."""
        try:
            return (self.path / f"{_VERIFIED}{bundle.stamp()}").exists()
        except BundleError:
            return False

    def write_callers(self, callers: Callers) -> Path:
        """The file with the digests of the callers' secrets, for the models; `ServerError` where it cannot be written.

        It is replaced at once: the models never see a part of it.
        """
        file = self.path / _CALLERS
        new = file.with_suffix(".new")
        try:
            new.unlink(missing_ok=True)
            new.touch(mode=0o600)
            new.write_text(callers.text(), encoding="ascii")
            new.replace(file)
        except OSError as error:
            raise ServerError(f"cannot write {file}: {error.strerror}") from error
        return file

    def withdraw(self) -> None:
        """Have the models say that they are not ready, while they take requests."""
        # On a full disk `drain` fails too, and says so.
        with contextlib.suppress(OSError):
            (self.path / _WITHDRAWN).touch()

    def drain(self) -> None:
        """Have the models refuse new requests; `ServerError` where that fails, as on a full disk."""
        file = self.path / _DRAIN
        try:
            file.touch()
        except OSError as error:
            raise ServerError(f"running answers are not waited for: cannot write {file}: {error.strerror}") from error

    def serving(self) -> set[int]:
        """The model processes that have entered and not left; they may be dead."""
        return {int(file.name.removeprefix(_SERVING)) for file in self.path.glob(f"{_SERVING}*")}

    def anyone_serves(self) -> bool:
        """Whether a model process that has entered and not left is alive."""
        return any(map(is_alive, self.serving()))

    @property
    def withdrawn(self) -> bool:
        """Whether the server is about to end, and says so."""
        return (self.path / _WITHDRAWN).exists()

    @property
    def draining(self) -> bool:
        """Whether the server takes no new requests."""
        return (self.path / _DRAIN).exists()

    def enter(self) -> None:
        """Note that this process serves; `ServerError` where that fails."""
        try:
            self._presence.touch()
        except OSError as error:
            raise ServerError(f"cannot write {self._presence}: {error.strerror}") from error

    def leave(self) -> None:
        """Note that this process has nothing to finish any more."""
        self._presence.unlink(missing_ok=True)

    @property
    def _presence(self) -> Path:
        return self.path / f"{_SERVING}{os.getpid()}"


def is_alive(pid: int) -> bool:
    """Whether process *pid* runs: one whose parent has not asked for its status yet has ended too."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


def verify_once(bundle: Bundle, *, only: Iterable[str] = ()) -> None:
    """Verify *bundle*, or *only* some of its files, in a model process, unless the server has done so."""
    folder = RunFolder.named_in(os.environ)
    if not (folder and folder.has_verified(bundle)):
        bundle.verify(only=only)

"""Where `nemotron serve` and the model processes tell each other things: a folder, and files in it.

They say who still answers, and which bundle was verified, so that its gigabytes are hashed once. The folder is named in
the environment. Where it is not, tritonserver itself waits for what runs, and each model verifies what it loads.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nemotron_triton.bundle import Bundle
from nemotron_triton.errors import BundleError, ServerError

VARIABLE = "NEMOTRON_RUN_DIR"
_DRAIN = "drain"
_SERVING = "serving-"
_VERIFIED = "verified-"


@dataclass(frozen=True)
class RunFolder:
    """The folder of one server; `verify`, `drain` and `anyone_serves` are the server's, the rest a model process's."""

    path: Path

    @classmethod
    def named_in(cls, environment: Mapping[str, str]) -> RunFolder | None:
        """The one that the server made, if it did."""
        return cls(Path(name)) if (name := environment.get(VARIABLE)) else None

    def verify(self, bundle: Bundle) -> None:
        """Verify *bundle* for the models that will load it; `BundleError` says what was changed."""
        # Taken first: what is touched while it is hashed must be hashed again.
        stamp = bundle.stamp()
        bundle.verify()
        # On a full disk the models only do it again.
        with contextlib.suppress(OSError):
            (self.path / f"{_VERIFIED}{stamp}").touch()

    def has_verified(self, bundle: Bundle) -> bool:
        """Whether the server has verified *bundle*, and nobody has touched it since."""
        try:
            return (self.path / f"{_VERIFIED}{bundle.stamp()}").exists()
        except BundleError:
            return False

    def drain(self) -> None:
        """Tell the models to take no new request; `ServerError` where they cannot be told, as on a full disk."""
        try:
            (self.path / _DRAIN).touch()
        except OSError as error:
            raise ServerError(
                f"running answers are not waited for: the model cannot be told: {error.strerror}"
            ) from error

    def anyone_serves(self) -> bool:
        """Whether a model process has not said that it is done, and lives."""
        return any(Path("/proc", each.name.removeprefix(_SERVING)).exists() for each in self.path.glob(f"{_SERVING}*"))

    @property
    def draining(self) -> bool:
        """Whether the server is about to end."""
        return (self.path / _DRAIN).exists()

    def enter(self) -> None:
        """Say that this process serves; `ServerError` where that cannot be said."""
        try:
            self._presence.touch()
        except OSError as error:
            raise ServerError(f"the model cannot say that it serves: {self._presence}: {error.strerror}") from error

    def leave(self) -> None:
        """Say that nothing runs here any more."""
        self._presence.unlink(missing_ok=True)

    @property
    def _presence(self) -> Path:
        return self.path / f"{_SERVING}{os.getpid()}"


def verify_once(bundle: Bundle, *, only: Iterable[str] = ()) -> None:
    """Verify *bundle*, or *only* these of its files, in a model process whose server has not done so already."""
    folder = RunFolder.named_in(os.environ)
    if not (folder and folder.has_verified(bundle)):
        bundle.verify(only=only)

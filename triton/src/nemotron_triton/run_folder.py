"""Where `nemotron serve` and the model processes tell each other who still answers: a folder, and files in it.

The folder is named in the environment. Where it is not, tritonserver itself waits for what runs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nemotron_triton.errors import ServerError

VARIABLE = "NEMOTRON_RUN_DIR"
_DRAIN = "drain"
_SERVING = "serving-"


@dataclass(frozen=True)
class RunFolder:
    """The folder of one server; the first two methods are the server's, the others a model process's."""

    path: Path

    @classmethod
    def named_in(cls, environment: Mapping[str, str]) -> RunFolder | None:
        """The one that the server made, if it did."""
        return cls(Path(name)) if (name := environment.get(VARIABLE)) else None

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

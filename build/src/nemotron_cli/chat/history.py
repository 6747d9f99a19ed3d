"""What was typed in earlier conversations. Where it cannot be kept it is not, which is no error."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from nemotron_triton.atomic import write_atomically

_MAX_LINES = 1000
_MAX_ENTRY_CHARS = 10_000
_MAX_FILE_BYTES = 4 * 1024 * 1024
# RuntimeError: a loop of links. ValueError: a name or a text that no file can have.
_FAILURES = (OSError, RuntimeError, ValueError)


class ChatHistory:
    """The last lines in *file*, which only its owner can read; None keeps nothing.

    An entry of several lines has a backslash at the end of each but the last.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file

    @classmethod
    def of_environment(cls) -> ChatHistory:
        """The history in the state folder, or in the file that `NEMOTRON_CHAT_HISTORY` names; an empty name is none."""
        name = os.environ.get("NEMOTRON_CHAT_HISTORY")
        if name is not None:
            return cls(Path(name) if name else None)
        state = Path(os.environ.get("XDG_STATE_HOME", ""))
        if not state.is_absolute():
            try:
                state = Path.home() / ".local" / "state"
            except RuntimeError:  # a user without a home
                return cls(None)
        return cls(state / "nemotron" / "chat_history")

    def entries(self) -> list[str]:
        """What is kept, the oldest first."""
        try:
            lines = self._lines()
        except _FAILURES:
            return []
        joined = "\n".join(lines).replace("\0", "").replace("\\\n", "\0")
        return [entry.replace("\0", "\n") for entry in joined.split("\n") if entry]

    def add(self, entry: str) -> None:
        """Keep *entry* too, unless it is longer than `_MAX_ENTRY_CHARS`."""
        if self._file is None or len(entry) > _MAX_ENTRY_CHARS:
            return
        with contextlib.suppress(*_FAILURES):
            # Where the file is a link, what it points to is written.
            file = self._file.resolve()
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lines = [*self._lines(), *entry.replace("\n", "\\\n").split("\n")]
            write_atomically(file, "\n".join(lines[-_MAX_LINES:]) + "\n", mode=0o600)

    def _lines(self) -> list[str]:
        """The lines of the file; `OSError` when it is there and is no file, such as /dev/null."""
        if self._file is None or not self._file.exists():
            return []
        if not self._file.is_file():
            raise OSError(f"{self._file} is no file")
        with self._file.open("rb") as file:
            file.seek(max(0, self._file.stat().st_size - _MAX_FILE_BYTES))
            return file.read(_MAX_FILE_BYTES).decode("utf-8", "replace").rstrip("\n").split("\n")[-_MAX_LINES:]

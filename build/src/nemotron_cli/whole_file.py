"""Text files that appear whole or not at all, for their owner only."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def write_whole(path: Path, text: str, *, replace: bool) -> None:
    """Write *text* to *path*; without *replace* a file that is there is left alone.

    Raises `OSError`: `FileExistsError` where there is one.
    """
    handle, name = tempfile.mkstemp(prefix=".nemotron-", dir=path.parent)
    try:
        with open(handle, "w", encoding="utf-8") as file:  # noqa: PTH123 - a handle has no path
            file.write(text)
            file.flush()
            os.fsync(handle)
        if replace:
            Path(name).replace(path)
        else:
            # Unlike a rename, a link does not replace what somebody wrote there meanwhile.
            os.link(name, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()

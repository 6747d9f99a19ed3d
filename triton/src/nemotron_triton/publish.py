"""Folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def publish(output: Path, error: type[Exception]) -> Iterator[Path]:
    """A temporary folder beside *output*, renamed to it when the block succeeds and removed when it fails.

    Raises *error* when *output* exists or cannot be written.
    """
    if os.path.lexists(output):
        raise error(f"{output} exists; remove it or give another --output")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    except OSError as failure:
        raise error(f"cannot write to {output.parent}: {failure.strerror or failure}") from failure
    try:
        folder.chmod(0o755)
        yield folder
        # Fails when somebody made a folder with something in it meanwhile; nothing of theirs is touched.
        folder.rename(output)
    except OSError as failure:
        raise error(f"cannot write {output}: {failure.strerror or failure}") from failure
    finally:
        shutil.rmtree(folder, ignore_errors=True)

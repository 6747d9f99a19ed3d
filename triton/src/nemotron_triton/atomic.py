"""Files and folders that appear whole or not at all: made beside their place, and renamed when complete."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path


def write_atomically(path: Path, text: str, *, replace: bool = True, mode: int = 0o666) -> None:
    """Write *text* to *path*, with *mode* less the umask; without *replace* a file that is there is left alone.

    Raises `OSError`: `FileExistsError` where there is one.
    """
    partial = path.parent / f".{secrets.token_hex(8)}.partial"
    try:
        partial.touch(mode=mode, exist_ok=False)
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            partial.replace(path)
        else:
            # Unlike a rename, a link does not replace a file that was written there meanwhile.
            os.link(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(place: Path, *, partial: Path | None = None, replace: bool = False) -> Iterator[Path]:
    """An empty folder that moves to *place* when the block succeeds, and is removed when it fails.

    Until then it is at *partial*, for callers that hold a lock: what a killed process left there is removed. With
    *replace* it takes the place of the folder at *place*, and `restore_folder` undoes a replacement that was killed.
    Without, a folder that is not empty stays, and the move raises `OSError`.
    """
    if partial:
        shutil.rmtree(partial, ignore_errors=True)
    else:
        partial = place.with_name(f".{place.name}-{secrets.token_hex(4)}")
    try:
        partial.mkdir(parents=True)
        yield partial
        if replace:
            old = old_place(place)
            shutil.rmtree(old, ignore_errors=True)
            if place.exists():
                place.rename(old)
            try:
                rename_into_place(partial, place)
            finally:
                restore_folder(place)
            shutil.rmtree(old, ignore_errors=True)
        else:
            partial.rename(place)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def rename_into_place(new: Path, place: Path) -> None:
    """The rename that completes a replacement; a function of its own, so that tests can make it fail."""
    new.rename(place)


def old_place(place: Path) -> Path:
    """Where the folder at *place* waits while a new one takes its place."""
    return place.with_name(f".{place.name}.old")


def restore_folder(place: Path) -> None:
    """Undo a replacement of the folder at *place* that ended between its two renames."""
    old = old_place(place)
    if old.exists() and not place.exists():
        old.rename(place)

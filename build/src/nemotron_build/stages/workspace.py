"""The folder beside a bundle where its stages' outputs are kept, each with the key of all that it depends on.

    OUTPUT.build/convert/        what the stage made
    OUTPUT.build/convert.json    its key, and size, times, inode and SHA-256 of every file
    OUTPUT.build/logs/           what its tools printed

An output appears by a rename when it is complete; one that was changed since, or has another key, is made again.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nemotron_build.errors import OutputError
from nemotron_build.locks import locked
from nemotron_build.reporter import Reporter
from nemotron_triton.atomic import atomic_folder, write_atomically
from nemotron_triton.bundle import digest

_READABLE = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH


class Workspace:
    """See the module. Only `open` makes one usable: it holds the lock."""

    def __init__(self, folder: Path) -> None:
        """The workspace at *folder*, which need not exist yet."""
        self.folder = folder.absolute()

    @contextlib.contextmanager
    def open(self, reporter: Reporter) -> Iterator[None]:
        """Hold the workspace, waiting while another build does, and clear what an interrupted one left behind."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if any(self.folder.iterdir()) and not (self.folder / "lock").is_file():
                raise OutputError(f"{self.folder} is needed for the build and holds other files; give another --output")
            (self.folder / "lock").touch()
            (self.folder / "logs").mkdir(exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write to {self.folder.parent}: {error.strerror or error}") from error
        with locked(self.folder / "lock", lambda: reporter.note(f"waiting for another build in {self.folder}")):
            for left in self.folder.glob("*.partial"):
                if left.is_dir():
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    left.unlink(missing_ok=True)
            yield

    def output(self, stage: str) -> Path:
        """Where *stage*'s output is, once it is made."""
        return self.folder / stage

    def log(self, stage: str) -> Path:
        """Where *stage*'s tools write what they print."""
        return self.folder / "logs" / f"{stage}.log"

    def digests(self, stage: str) -> dict[str, str]:
        """The SHA-256 of every file of *stage*'s output."""
        return {name: entry[-1] for name, entry in self._record(stage).get("files", {}).items()}

    def has(self, stage: str, key: str) -> bool:
        """Whether *stage* was made with *key* and is as it was made; files with another time are read again."""
        record = self._record(stage)
        files: Mapping[str, Any] = record.get("files", {})
        folder = self.output(stage)
        if record.get("key") != key or set(files) != set(files_in(folder)):
            return False
        return all(
            file_state(folder / name) == state or digest(folder / name) == sha256
            for name, (*state, sha256) in files.items()
        )

    @contextlib.contextmanager
    def making(self, stage: str, key: str) -> Iterator[Path]:
        """An empty folder, which becomes *stage*'s output when the block succeeds and goes when it fails."""
        folder = self.output(stage)
        try:
            with atomic_folder(folder, partial=self.output(f"{stage}.partial")) as partial:
                yield partial
                files = {name: partial / name for name in files_in(partial)}
                for path in files.values():
                    if path.stat().st_nlink == 1:
                        # Exporters leave files that only their owner may read, and a server has a user of its own.
                        path.chmod(path.stat().st_mode | _READABLE)
                digests = {name: digest(path) for name, path in files.items()}
                self._forget(stage)
            entries = {name: [*file_state(folder / name), digests[name]] for name in files}
            write_atomically(self._record_file(stage), json.dumps({"key": key, "files": entries}, indent=1))
        except OSError as error:
            # numpy gives no number with what it could not write.
            full = error.errno in (None, errno.ENOSPC, errno.EDQUOT)
            short = "the disk is full, or a quota is used up: " if full else ""
            reason = f"{short}{error.strerror or error}"
            raise OutputError(f"{stage} cannot write in {self.folder}: {reason}") from error

    def _forget(self, stage: str) -> None:
        self._record_file(stage).unlink(missing_ok=True)
        shutil.rmtree(self.output(stage), ignore_errors=True)

    def _record_file(self, stage: str) -> Path:
        return self.folder / f"{stage}.json"

    def _record(self, stage: str) -> dict[str, Any]:
        try:
            record = json.loads(self._record_file(stage).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}


def file_state(path: Path) -> list[int]:
    """Size, times and inode: no change leaves all of them the same, though a hard link to it changes one."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def digests_of(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file in *folder*, by its place in it."""
    return {name: digest(folder / name) for name in files_in(folder)}


def link_or_copy(source: Path, target: Path) -> None:
    """Put *source*, a file of ours, at *target* too: a hard link where the file system can, else a copy.

    Files of others are copied: what they do to theirs must not change a bundle.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(strict=True), target)
    except OSError:
        shutil.copyfile(source, target)


def copy_file(source: Path, target: Path) -> None:
    """Put a copy of *source*, which may be a link to a file, at *target*."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def files_in(folder: Path) -> list[str]:
    """The places of all files in *folder*, relative to it."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())

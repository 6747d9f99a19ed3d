"""The first stage: the digest of every file of the checkpoint. Files that did not change are not read again."""

from __future__ import annotations

import json
from pathlib import Path

from nemotron_build.checkpoint import Checkpoint
from nemotron_build.errors import CheckpointError
from nemotron_build.reporter import Reporter
from nemotron_build.stages.workspace import Workspace, file_state
from nemotron_triton.atomic import write_atomically
from nemotron_triton.bundle import digest

_MIB = 1 << 20


def digest_files(checkpoint: Checkpoint, workspace: Workspace, reporter: Reporter) -> dict[str, str]:
    """The SHA-256 of every file of *checkpoint*, by name.

    *workspace* remembers them, with the size, times and inode that a change cannot leave all the same.
    """
    reporter.stage("inspect")
    memory = workspace.folder / "inspect.json"
    known = _read(memory)
    entries: dict[str, list[int | str]] = {}
    total = sum(path.stat().st_size for path in checkpoint.files)
    done = 0
    for path in checkpoint.files:
        try:
            state = file_state(path)
            before = known.get(str(path.absolute()))
            sha256 = before[4] if before and before[:4] == state else digest(path)
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
        entries[str(path.absolute())] = [*state, sha256]
        done += state[0]
        reporter.progress(done // _MIB, total // _MIB)
    write_atomically(memory, json.dumps(entries, indent=1))
    return {path.name: str(entries[str(path.absolute())][4]) for path in checkpoint.files}


def _read(memory: Path) -> dict[str, list[int | str]]:
    try:
        entries = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}

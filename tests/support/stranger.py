"""What another user of this machine can see: a program that gives up root before it looks, and what it found.

The text to look for comes on standard input, because everybody reads arguments; so do the folders to look into.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from nemotron_triton.server_lock import SHM

# The files of each process in which text of it may stand.
_OF_PROCESS = ("cmdline", "environ", "maps", "mem", "stack", "fd", "map_files", "cwd")
_NOBODY = 65534
_LARGEST = 64 << 20


def seen_by_nobody(texts: Iterable[str], folders: Iterable[Path]) -> list[str]:
    """The files of *folders*, /dev/shm and /proc in which the user `nobody` finds one of *texts*."""
    return _seen_by(_NOBODY, texts, folders)


def seen_by_root(texts: Iterable[str], folders: Iterable[Path]) -> list[str]:
    """The files of *folders* and /dev/shm in which root finds one of *texts*."""
    return _seen_by(0, texts, folders)


def _seen_by(user: int, texts: Iterable[str], folders: Iterable[Path]) -> list[str]:
    question = {"user": user, "texts": list(texts), "folders": [*map(str, folders), str(SHM)]}
    answer = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps(question),
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    )
    return list(json.loads(answer.stdout))


def _main() -> None:
    question = json.load(sys.stdin)
    if question["user"] != os.geteuid():
        os.setgroups([])
        os.setgid(question["user"])
        os.setuid(question["user"])
    texts = [text.encode() for text in question["texts"]]
    # Root reads the memory of every process.
    files = [*_files(map(Path, question["folders"])), *(_files_of_processes() if question["user"] else ())]
    json.dump([str(path) for path in files if _holds(path, texts)], sys.stdout)


def _files(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        for parent, _, names in os.walk(folder):
            yield from (Path(parent, name) for name in names)


def _files_of_processes() -> Iterator[Path]:
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            for name in _OF_PROCESS:
                try:
                    yield from (process / name).iterdir()
                except OSError:
                    yield process / name


def _holds(path: Path, texts: Iterable[bytes]) -> bool:
    try:
        # Neither a pipe nor a terminal must hold it up.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return False
    try:
        content = os.read(descriptor, _LARGEST)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return any(text in content for text in texts)


if __name__ == "__main__":
    _main()

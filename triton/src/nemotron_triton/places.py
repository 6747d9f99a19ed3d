"""Where a server puts its temporary files and shared memory, and whether there is room.

tritonserver puts the command line of a stub together for a shell, without quotes, and the stub's Python takes names of
files for ASCII (seen with 2.51). So a path on that line must be plain.
"""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Callable
from pathlib import Path

from nemotron_triton.errors import ServerError

_TEMPORARY = Path("/tmp")  # noqa: S108 - for folders with random names and mode 0700
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - Triton's place, not a temporary file
# What the region of a stub has at first; it grows with the requests that it holds.
_REGION_BYTES = 1 << 20


def is_plain(path: Path) -> bool:
    """Whether *path* can lie on the command line of a stub."""
    return shlex.quote(str(path)) == str(path)


def temporary_parent(log: Callable[[str], None]) -> Path:
    """The folder to make a server's temporary folder in: that of TMPDIR where it is plain, else /tmp, which is logged.

    Raises `ServerError` where no folder can be written.
    """
    try:
        asked = Path(tempfile.gettempdir())
    except OSError as error:
        raise ServerError(
            "there is no folder for temporary files that can be written", "set TMPDIR to one, such as a tmpfs"
        ) from error
    if is_plain(asked):
        return asked
    if not (_TEMPORARY.is_dir() and os.access(_TEMPORARY, os.W_OK | os.X_OK)):
        raise ServerError(
            f"tritonserver takes no temporary folder like {str(asked)!r}, and {_TEMPORARY} cannot be written",
            "set TMPDIR to a path of ASCII letters and digits without spaces",
        )
    log(f"temporary files go to {_TEMPORARY}: tritonserver takes no folder like {str(asked)!r}, which TMPDIR names")
    return _TEMPORARY


def check_shared_memory(stubs: int, prompt_bytes: int, log: Callable[[str], None], place: Path = SHARED_MEMORY) -> None:
    """Raise `ServerError` where *place* has no room for *stubs*; log it where a prompt of *prompt_bytes* has none."""
    try:
        status = os.statvfs(place)
    except OSError as error:
        raise ServerError(f"there is no shared memory: {place}: {error.strerror}", "mount a tmpfs there") from error
    free = status.f_bavail * status.f_frsize
    least, enough = stubs * _REGION_BYTES, (stubs + 1) * _REGION_BYTES + prompt_bytes
    room = f"{place} has {free / 2**20:.1f} MiB free of {status.f_blocks * status.f_frsize / 2**20:.1f} MiB"
    remedy = f"make it larger: `docker run --shm-size`, in Kubernetes an emptyDir of medium Memory at {place}"
    if free < least:
        raise ServerError(f"{room}, and {stubs} models need {least >> 20} MiB", remedy)
    if free < enough:
        log(f"warning: {room}, and the longest prompts need {enough / 2**20:.0f} MiB; {remedy}")

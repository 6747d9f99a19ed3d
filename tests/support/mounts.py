"""A read-only mount, for a program of its own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_MOUNT = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'


def on_read_only_mount(folder: Path) -> list[str]:
    """What to put before a command that is to see *folder* read-only; empty where this user may not mount."""
    unshare = shutil.which("unshare")
    if not unshare or subprocess.run([unshare, "-m", "true"], capture_output=True, check=False).returncode:
        return []
    return [unshare, "-m", "sh", "-c", _MOUNT, str(folder)]

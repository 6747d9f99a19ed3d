"""A path as libraries in C++ and Rust take it: text.

Python keeps the bytes of a file's name that its encoding lacks as lone surrogates, which no library takes. In
tritonserver's stub that is every character beyond ASCII: its interpreter starts without a locale, whatever LC_ALL and
PYTHONUTF8 say (seen with 2.51).
"""

from __future__ import annotations

import os
from pathlib import Path


def native_path(path: Path) -> str:
    """The text of *path*, or of a link of this process to what lies there; it stays open. Raises `OSError`."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        # By number, not `self`: an engine may hand it to processes of its own.
        return f"/proc/{os.getpid()}/fd/{os.open(path, os.O_PATH)}"
    return str(path)


def printable_path(text: str) -> str:
    """*text* with the file names in it as they are written: UTF-8, whatever this interpreter takes them for."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")

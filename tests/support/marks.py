"""Which tests need a tritonserver: `make test-quick` leaves them out, so each has the mark `server`.

A test of a file `test_e2e_*` and one with the fixture `served` get it by themselves. Where another forgets it, the
server is not started: every process that this one starts is looked at first.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

_STARTS_A_SERVER = re.compile(r"tritonserver .*--model-repository|nemotron(_cli)? serve ", re.DOTALL)
_running: pytest.Item | None = None


class UnmarkedServer(AssertionError):
    """A tritonserver that a test without the mark would start."""


def mark(item: pytest.Item) -> None:
    """Give *item* the mark where its file or its fixtures say so."""
    if item.path.name.startswith("test_e2e_") or "served" in getattr(item, "fixturenames", ()):
        item.add_marker("server")


@contextmanager
def begun(item: pytest.Item) -> Iterator[None]:
    """While this lasts it is *item* that starts processes."""
    global _running
    _running = item
    yield
    _running = None


def watch() -> None:
    """Look at every process that is started from now on."""
    sys.addaudithook(_refuse_unmarked)


def _refuse_unmarked(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "subprocess.Popen" or not _running or _running.get_closest_marker("server"):
        return
    argv = arguments[1]
    command = " ".join(map(os.fsdecode, [argv] if isinstance(argv, str | bytes) else argv))
    if _STARTS_A_SERVER.search(f"{command} "):
        raise UnmarkedServer(f"{_running.name} starts a server; mark it with @pytest.mark.server: {command[:200]}")

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
# Those with a target of their own, by the marker that it asks for.
_APART = frozenset({"clients", "compatibility", "documents", "envoy", "guides", "packaging", "quantization"})
_running: pytest.Item | None = None


class UnmarkedServer(AssertionError):
    """A test without the mark starts a tritonserver."""


def mark(item: pytest.Item) -> None:
    """Mark *item* where its file or its fixtures need a server, and where it has a target of its own."""
    if item.path.name.startswith("test_e2e_") or "served" in getattr(item, "fixturenames", ()):
        item.add_marker("server")
    if not _APART.isdisjoint(marker.name for marker in item.iter_markers()):
        item.add_marker("apart")


@contextmanager
def begun(item: pytest.Item) -> Iterator[None]:
    """Attribute the processes that start in the block to *item*."""
    global _running
    _running = item
    yield
    _running = None


def watch() -> None:
    """Check every process that starts from now on."""
    sys.addaudithook(_refuse_unmarked)


def _refuse_unmarked(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "subprocess.Popen" or not _running or _running.get_closest_marker("server"):
        return
    argv = arguments[1]
    command = " ".join(map(os.fsdecode, [argv] if isinstance(argv, str | bytes) else argv))
    if _STARTS_A_SERVER.search(f"{command} "):
        raise UnmarkedServer(f"{_running.name} starts a server; mark it with @pytest.mark.server: {command[:200]}")

"""Waiting for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable

# Much longer than anything takes: a busy machine must not fail a test.
PATIENCE_S = 30.0
_LOOK_S = 0.01


def wait_until(condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Poll until *condition* holds; fail where it does not."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"nothing happened within {patience_s:g} s"
        time.sleep(_LOOK_S)

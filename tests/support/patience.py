"""How tests wait for what another thread or another process does."""

from __future__ import annotations

import time
from collections.abc import Callable

# Much longer than anything takes, because a busy machine is no failure.
PATIENCE_S = 30.0
_LOOK_S = 0.01


def wait_until(condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Look until *condition* holds; what does not happen is a failure."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"nothing happened within {patience_s:g} s"
        time.sleep(_LOOK_S)

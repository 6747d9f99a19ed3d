"""Whether a `CancelledError` means the task that gets it, or something that it awaits."""

from __future__ import annotations

import asyncio


def asked_to_stop(*, unknown: bool) -> bool:
    """Whether the running task itself is being cancelled; *unknown* before Python 3.11, which cannot tell."""
    cancelling = getattr(asyncio.current_task(), "cancelling", None)
    return unknown if cancelling is None else bool(cancelling())

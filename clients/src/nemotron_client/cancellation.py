"""Whether a `CancelledError` means the task that gets it, or something that it awaits."""

from __future__ import annotations

import asyncio


def asked_to_stop(*, unknown: bool) -> bool:
    """Whether somebody cancelled the running task itself; *unknown* where Python cannot tell, which is before 3.11."""
    cancelling = getattr(asyncio.current_task(), "cancelling", None)
    return unknown if cancelling is None else bool(cancelling())

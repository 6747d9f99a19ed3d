"""How long a request may wait, and how long it may take: timers on the event loop that end it."""

from __future__ import annotations

import asyncio

from nemotron_triton.errors import DeadlineError, OverloadedError
from nemotron_triton.serving.call import Call
from nemotron_triton.serving.settings import Settings


def start_timers(call: Call, settings: Settings) -> tuple[asyncio.TimerHandle, ...]:
    """The timers that end *call* when its time is up; on the event loop. Whoever ends it first cancels them."""
    loop = asyncio.get_running_loop()
    limit_ms = settings.max_request_ms
    asked_ms = call.timeout_ms if 0 < call.timeout_ms < limit_ms else limit_ms
    whose = "the request's" if asked_ms < limit_ms else "the server's"
    late = DeadlineError(f"the answer was not complete after {asked_ms:g} ms, {whose} time limit")
    return (
        loop.call_later(asked_ms / 1000, call.stop, late),
        loop.call_later(settings.max_queue_ms / 1000, _stop_waiting, call, settings.max_queue_ms),
    )


def _stop_waiting(call: Call, limit_ms: int) -> None:
    # Of several answers to one request, some may wait while others are on their way.
    if call.record.started_s is None:
        call.stop(OverloadedError(f"the request waited {limit_ms} ms and its turn has not come; retry later"))

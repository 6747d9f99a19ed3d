"""Whose turn it is: which of the answers that wait gets the engine's next free slot.

An answer of a lower priority waits until none of a higher one does. Among those of one priority, callers take turns,
whoever has how many waiting; of one caller, the first that came is first. Nothing here bounds how long an answer waits:
the time limit of the queue does. For one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TypeAlias

PRIORITIES = 2
# The answers of one priority that wait, by caller: callers in the order of their turns, answers as they came.
_Waiting: TypeAlias = "dict[str, dict[asyncio.Future[None], None]]"


class Admission:
    """The *slots* of an engine, each for one answer at a time."""

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._waiting: tuple[_Waiting, ...] = tuple({} for _ in range(PRIORITIES))

    @contextlib.asynccontextmanager
    async def slot(self, caller: str, priority: int = 0) -> AsyncIterator[None]:
        """Wait for a slot for an answer to *caller*, and hold it within the block; *priority* 0 comes first."""
        # While anything waits, no slot is free.
        if self._free:
            self._free -= 1
        else:
            await self._turn(self._waiting[priority], caller)
        try:
            yield
        finally:
            self._release()

    async def _turn(self, waiting: _Waiting, caller: str) -> None:
        """Wait until a slot is handed over."""
        turn = asyncio.get_running_loop().create_future()
        waiting.setdefault(caller, {})[turn] = None
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                _leave(waiting, caller, turn)
            else:
                # Its slot came in the same step of the loop.
                self._release()
            raise

    def _release(self) -> None:
        """Hand a slot to the next answer that waits."""
        for waiting in self._waiting:
            while waiting:
                caller = next(iter(waiting))
                turn = next(iter(waiting[caller]))
                _leave(waiting, caller, turn)
                # One that was cancelled in the same step of the loop takes no turn from its caller.
                if not turn.cancelled():
                    if caller in waiting:
                        waiting[caller] = waiting.pop(caller)
                    turn.set_result(None)
                    return
        self._free += 1


def _leave(waiting: _Waiting, caller: str, turn: asyncio.Future[None]) -> None:
    turns = waiting.get(caller, {})
    turns.pop(turn, None)
    if not turns:
        waiting.pop(caller, None)

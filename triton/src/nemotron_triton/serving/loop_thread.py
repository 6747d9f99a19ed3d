"""An event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any

# The longest time that tasks get to end when they are cancelled, and the loop to stop.
_STOP_S = 5.0


class LoopThread:
    """Runs `loop` from now until `stop`."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, None], timeout_s: float) -> None:
        """Run *work* on the loop and wait, on another thread; `concurrent.futures.TimeoutError` when it is late."""
        asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout=timeout_s)

    def stop(self) -> None:
        """Cancel all tasks, wait until they have ended, and end the thread, within two times `_STOP_S`."""
        with contextlib.suppress(concurrent.futures.TimeoutError):
            self.run(_end_tasks(), _STOP_S)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout=_STOP_S)

    def close(self) -> None:
        """Free what the loop holds, once nobody calls it any more."""
        if not self._thread.is_alive():
            self.loop.close()


async def _end_tasks() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

"""A thread for each running request, for engines whose runtimes make their caller wait. Knows no runtime."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from nemotron_triton.engine.stream import TokenStream
from nemotron_triton.errors import EngineError, ServingError, first_line

CLOSED = "the engine is closed"
_log = logging.getLogger(__name__)


class RequestThreads:
    """So many requests at once; the others wait. Whatever becomes of one, its stream is told."""

    def __init__(self, count: int, runtime: str) -> None:
        """*runtime* is what runs in the *count* threads, for messages."""
        self.active = self.waiting = 0
        self.closed = False
        self._runtime = runtime
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="engine")

    def begin(self, work: Callable[[], None], stream: TokenStream) -> None:
        """Have *work* fill *stream* as soon as a thread is free; what it raises goes into the stream."""
        with self._lock:
            self.waiting += 1
        try:
            future = self._pool.submit(self._run, work, stream)
        except RuntimeError:
            self._forget(stream)
            return
        future.add_done_callback(lambda future: self._forget(stream) if future.cancelled() else None)

        def cancel() -> None:
            # Work that runs already looks at `stream.cancelled` by itself.
            future.cancel()

        stream.when_cancelled(cancel)

    def refuse(self) -> None:
        """Begin nothing any more; work that runs sees it in `closed`."""
        self.closed = True

    def close(self) -> None:
        """Refuse, forget what waits, and wait for what runs."""
        self.refuse()
        self._pool.shutdown(cancel_futures=True)

    def _forget(self, stream: TokenStream) -> None:
        """Account for a request that never starts: it was cancelled, or the engine is closed."""
        with self._lock:
            self.waiting -= 1
        stream.fail(EngineError(CLOSED))

    def _run(self, work: Callable[[], None], stream: TokenStream) -> None:
        with self._lock:
            self.waiting -= 1
            self.active += 1
        try:
            if self.closed:
                raise EngineError(CLOSED)
            work()
        except ServingError as error:
            stream.fail(error)
        except Exception as error:  # whatever a runtime raises, or is wrong with us, the request must end
            _log.warning("a request is given up", exc_info=True)
            stream.fail(EngineError(CLOSED if self.closed else f"{self._runtime} failed: {first_line(error)}"))
        finally:
            with self._lock:
                self.active -= 1

"""A thread for each running request, for engines whose runtimes make their caller wait. Knows no runtime.

The threads do not keep their process from its end, because one that hangs in a runtime would do so for ever.
"""

from __future__ import annotations

import collections
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from nemotron_triton.engine.stream import TokenStream
from nemotron_triton.errors import EngineError, ServingError, first_line

CLOSED = "the engine is closed"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Request:
    """What is to be done, and whom to tell of it."""

    work: Callable[[], None]
    stream: TokenStream


class RequestThreads:
    """So many requests at once; the others wait. Whatever becomes of one, its stream is told."""

    def __init__(self, count: int, runtime: str) -> None:
        """*runtime* is what runs in the *count* threads, for messages."""
        self.active = 0
        self.closed = False
        self._count = count
        self._runtime = runtime
        self._queue: collections.deque[_Request] = collections.deque()
        self._threads = 0
        # Of all that is above; told of when a thread ends.
        self._changed = threading.Condition()

    @property
    def waiting(self) -> int:
        """How many requests have no thread yet."""
        return len(self._queue)

    def begin(self, work: Callable[[], None], stream: TokenStream) -> None:
        """Have *work* fill *stream* as soon as a thread is free; what it raises goes into the stream."""
        request = _Request(work, stream)
        with self._changed:
            if not self.closed:
                self._queue.append(request)
            if self._queue and self._threads < self._count:
                self._threads += 1
                threading.Thread(target=self._serve, name="engine", daemon=True).start()
        if self.closed:
            self._forget()
            stream.fail(EngineError(CLOSED))
        # Work that runs already looks at `stream.cancelled` by itself.
        stream.when_cancelled(lambda: self._leave(request))

    def refuse(self) -> None:
        """Begin nothing any more; work that runs sees it in `closed`."""
        self.closed = True

    def close(self) -> None:
        """Refuse, forget what waits, and wait for what runs."""
        self.refuse()
        self._forget()
        with self._changed:
            self._changed.wait_for(lambda: not self._threads)

    def _leave(self, request: _Request) -> None:
        """Take *request* out of the queue, if it is there."""
        with self._changed:
            if request in self._queue:
                self._queue.remove(request)

    def _forget(self) -> None:
        """End the requests that wait: the engine is closed."""
        with self._changed:
            forgotten = [*self._queue]
            self._queue.clear()
        for request in forgotten:
            request.stream.fail(EngineError(CLOSED))

    def _serve(self) -> None:
        """One thread: request after request, as long as one waits."""
        while request := self._next():
            self._run(request)

    def _next(self) -> _Request | None:
        with self._changed:
            if self._queue:
                self.active += 1
                return self._queue.popleft()
            self._threads -= 1
            self._changed.notify_all()
            return None

    def _run(self, request: _Request) -> None:
        try:
            if self.closed:
                raise EngineError(CLOSED)
            request.work()
        except ServingError as error:
            request.stream.fail(error)
        except Exception as error:  # whatever a runtime raises, or is wrong with us, the request must end
            _log.warning("a request is given up", exc_info=True)
            request.stream.fail(EngineError(CLOSED if self.closed else f"{self._runtime} failed: {first_line(error)}"))
        finally:
            with self._changed:
                self.active -= 1

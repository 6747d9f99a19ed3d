"""A thread for each running request, for engines whose runtimes block their callers.

They are daemon threads, because one that hangs in a runtime would keep the process alive for ever.
"""

from __future__ import annotations

import collections
import logging
import threading
from collections.abc import Callable

from nemotron_triton.engine.stream import TokenStream
from nemotron_triton.errors import EngineError, ServingError, first_line

CLOSED = "the engine is closed"
_log = logging.getLogger(__name__)


class RequestThreads:
    """Runs up to *count* requests at once and queues the others; every error ends up in the request's stream.

    *runtime* is the name of what runs in the threads, for messages.
    """

    def __init__(self, count: int, runtime: str) -> None:
        self.active = 0
        self.closed = False
        self._count = count
        self._runtime = runtime
        self._queue: collections.OrderedDict[TokenStream, Callable[[], None]] = collections.OrderedDict()
        self._threads = 0
        # Guards the fields above, and is notified when a thread ends.
        self._changed = threading.Condition()

    @property
    def waiting(self) -> int:
        """How many requests are queued."""
        return len(self._queue)

    def begin(self, work: Callable[[], None], stream: TokenStream) -> None:
        """Have *work* fill *stream* as soon as a thread is free; an exception of it goes into the stream."""
        with self._changed:
            if self.closed:
                stream.fail(EngineError(CLOSED))
                return
            self._queue[stream] = work
            if self._threads < self._count:
                self._threads += 1
                threading.Thread(target=self._serve, name="engine", daemon=True).start()
        # Running work looks at `stream.cancelled` by itself.
        stream.when_cancelled(lambda: self._leave(stream))

    def refuse(self) -> None:
        """Start no more requests; running work looks at `closed`."""
        self.closed = True

    def close(self) -> None:
        """End the queued requests, and wait for the running ones."""
        self.refuse()
        with self._changed:
            for stream in self._queue:
                stream.fail(EngineError(CLOSED))
            self._queue.clear()
            self._changed.wait_for(lambda: not self._threads)

    def _leave(self, stream: TokenStream) -> None:
        with self._changed:
            self._queue.pop(stream, None)

    def _serve(self) -> None:
        """Run queued requests in one thread, until there is none."""
        while True:
            with self._changed:
                if not self._queue:
                    self._threads -= 1
                    self._changed.notify_all()
                    return
                self.active += 1
                stream, work = self._queue.popitem(last=False)
            self._run(work, stream)

    def _run(self, work: Callable[[], None], stream: TokenStream) -> None:
        try:
            if self.closed:
                raise EngineError(CLOSED)
            work()
        except ServingError as error:
            stream.fail(error)
        except Exception as error:  # whatever a runtime or our own code raises, the request must end
            _log.warning("a request is given up", exc_info=True)
            stream.fail(EngineError(CLOSED if self.closed else f"{self._runtime} failed: {first_line(error)}"))
        finally:
            with self._changed:
                self.active -= 1

"""A thread that watches over abandoned requests, the engine's health and the end of the server.

A thread and not a task, because each question to tritonserver is a round trip, during which answers must go on.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

from nemotron_triton.engine.interface import Engine
from nemotron_triton.errors import ClientGoneError, EngineError, ServingError
from nemotron_triton.run_folder import RunFolder
from nemotron_triton.serving.call import Call
from nemotron_triton.serving.observation import Observation
from nemotron_triton.serving.observers import Observers
from nemotron_triton.serving.requests import Requests
from nemotron_triton.serving.settings import Settings

# A client that went away is noticed within this time and a round trip to tritonserver for each running request.
_TICK_S = 0.1
# Time for the last errors to reach their clients before the process ends.
_FAREWELL_S = 1.0
StopCall = Callable[[Call, ServingError], object]
_log = logging.getLogger(__name__)


class Watcher:
    """Checks *requests* and *engine* ten times a second, and ends requests early with *stop*.

    It sets `withdrawn`, `draining` and `problem` of *requests*, and calls *drained* on a thread of its own when nothing
    will run any more.
    """

    def __init__(
        self,
        requests: Requests,
        engine: Engine,
        observers: Observers,
        settings: Settings,
        stop: StopCall,
        drained: Callable[[], None],
    ) -> None:
        self._requests = requests
        self._engine = engine
        self._settings = settings
        self._stop = stop
        self._drained: threading.Thread | None = None
        self._on_drained = drained
        self._folder = RunFolder.named_in(os.environ)
        if self._folder:
            self._folder.enter()
        self._done = 0
        self._reported: str | None = None
        self._silent_since_s = time.monotonic()
        self._observation = Observation(requests, engine, observers)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="nemotron-watcher", daemon=True)
        self._thread.start()

    def report(self, problem: str) -> None:
        """End the server because of *problem*, from which it does not recover."""
        self._reported = problem

    def close(self) -> None:
        """Stop watching, once the last requests are logged and counted."""
        self._closing.set()
        self._thread.join(timeout=5)
        self._observation.close()

    def leave(self) -> None:
        """Note that this process has nothing to finish any more: it may be killed."""
        if self._folder:
            self._folder.leave()

    def _watch(self) -> None:
        while not self._closing.wait(_TICK_S):
            for check in (self._cancel_abandoned, self._check_engine, self._drain):
                try:
                    check()
                except Exception:
                    # An error with one request must not end the watch over the others.
                    _log.exception("the watch over requests failed; it goes on")

    def _cancel_abandoned(self) -> None:
        for call in self._requests.calls():
            if call.is_abandoned():
                self._stop(call, ClientGoneError("cancelled: the client went away"))

    def _check_engine(self) -> None:
        """End the server when the engine failed, or hangs: neither heals by itself."""
        now_s, statistics = time.monotonic(), self._engine.statistics()
        done = statistics.generated_tokens + statistics.prompt_steps
        # The engine's own counts matter too: one that hangs keeps the requests whose callers gave up, as active or as
        # waiting.
        busy = self._requests.generating or statistics.active_requests or statistics.waiting_requests
        if done != self._done or not busy:
            self._done, self._silent_since_s = done, now_s
        problem = self._reported or statistics.problem
        if now_s - self._silent_since_s > self._settings.max_engine_silence_ms / 1000:
            problem = f"the engine did nothing for {self._settings.max_engine_silence_ms} ms"
        if problem and not self._closing.is_set():
            self._give_up(problem)

    def _give_up(self, problem: str) -> None:
        """End the process, so that the guardian ends tritonserver: before 26.04 nothing else makes it unready."""
        self._requests.problem = f"{problem}; the server stops"
        _log.critical(self._requests.problem)
        for call in self._requests.calls():
            self._stop(call, EngineError(self._requests.problem))
        self._closing.wait(_FAREWELL_S)
        self._observation.close()
        os._exit(1)

    def _drain(self) -> None:
        if not self._folder:
            return
        self._requests.withdrawn = self._folder.withdrawn
        if self._folder.draining:
            self._requests.draining = True
            if not self._drained and not self._requests.calls():
                self._drained = threading.Thread(target=self._on_drained, name="nemotron-drained")
                self._drained.start()


StartWatcher = Callable[[Requests, Engine, Observers, Settings, StopCall, Callable[[], None]], Watcher]

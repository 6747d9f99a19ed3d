"""What is looked after from outside of the event loop: abandoned requests, the engine's health, the end of the server.

A thread, because each of its questions to tritonserver is a round trip, during which answers go on.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Protocol

from nemotron_triton.engine.interface import EngineStatistics
from nemotron_triton.errors import ClientGoneError, EngineError, ServingError
from nemotron_triton.run_folder import RunFolder
from nemotron_triton.serving import guardian
from nemotron_triton.serving.call import Call
from nemotron_triton.serving.observers import Observers
from nemotron_triton.serving.record import RequestRecord
from nemotron_triton.serving.settings import Settings

# A client that went away is noticed within this time and one round of questions.
_TICK_S = 0.1
# Time for the last errors to reach their clients before the process ends.
_FAREWELL_S = 1.0
_log = logging.getLogger(__name__)


class Watched(Protocol):
    """What is asked of the service."""

    def calls(self) -> list[Call]:
        """The requests that are not over."""
        ...

    def ended(self) -> list[RequestRecord]:
        """The records of those that ended since the last time."""
        ...

    @property
    def generating(self) -> int:
        """How many answers the engine was asked for and has not ended."""
        ...

    @property
    def waiting(self) -> int:
        """How many answers wait until the engine can be asked."""
        ...

    @property
    def kv_cache_used_ratio(self) -> float:
        """What the answers in progress take of the KV cache, their prompts included."""
        ...

    def statistics(self) -> EngineStatistics:
        """The engine's."""
        ...

    def stop(self, call: Call, why: ServingError) -> None:
        """End *call* early."""
        ...


class Watcher:
    """Looks ten times a second. `draining` and `problem` say why no request is taken any more."""

    def __init__(self, service: Watched, observers: Observers, settings: Settings) -> None:
        """Begin to watch, and guard tritonserver against the death of this process."""
        self.draining = False
        self.problem: str | None = None
        self._service = service
        self._observers = observers
        self._settings = settings
        self._folder = RunFolder.named_in(os.environ)
        if self._folder:
            self._folder.enter()
        self._done = 0
        self._reported: str | None = None
        self._silent_since_s = time.monotonic()
        self._guardian = guardian.start()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="nemotron-watcher", daemon=True)
        self._thread.start()

    def report(self, problem: str) -> None:
        """Have the server ended: *problem* is one that it does not recover from."""
        self._reported = problem

    def close(self) -> None:
        """Stop watching; the last records are told."""
        guardian.stop(self._guardian)
        self._closing.set()
        self._thread.join(timeout=5)
        self._leave()
        self._observers.close()

    def _watch(self) -> None:
        while not self._closing.wait(_TICK_S):
            for look in (self._cancel_abandoned, self._tell, self._check_engine, self._drain):
                try:
                    look()
                except Exception:
                    # One odd request, or a full disk, must not end the watch over all others.
                    _log.exception("the watch over requests failed; it goes on")
        self._tell()

    def _cancel_abandoned(self) -> None:
        for call in self._service.calls():
            if call.is_abandoned():
                self._service.stop(call, ClientGoneError("cancelled: the client went away"))

    def _tell(self) -> None:
        for record in self._service.ended():
            self._observers.request_ended(record)
        self._observers.update(
            self._service.statistics(),
            active=self._service.generating,
            waiting=self._service.waiting,
            kv_cache_used_ratio=self._service.kv_cache_used_ratio,
        )

    def _check_engine(self) -> None:
        """An engine that failed, or generates nothing although it is asked to, does not come back by itself."""
        now_s, statistics = time.monotonic(), self._service.statistics()
        done = statistics.generated_tokens + statistics.prompt_steps
        # Idle is an engine that has nothing to do; one that hangs keeps what its callers have given up, and what it has
        # never begun it may count as waiting.
        busy = self._service.generating or statistics.active_requests or statistics.waiting_requests
        if done != self._done or not busy:
            self._done, self._silent_since_s = done, now_s
        problem = self._reported or statistics.problem
        if now_s - self._silent_since_s > self._settings.max_engine_silence_ms / 1000:
            problem = f"the engine did nothing for {self._settings.max_engine_silence_ms} ms"
        if problem and not self._closing.is_set():
            self._give_up(problem)

    def _give_up(self, problem: str) -> None:
        """End the process, so that the guardian ends the server: before 26.04 nothing else makes it unready."""
        self.problem = f"{problem}; the server stops"
        _log.critical(self.problem)
        for call in self._service.calls():
            self._service.stop(call, EngineError(self.problem))
        self._closing.wait(_FAREWELL_S)
        self._tell()
        self._observers.close()
        os._exit(1)

    def _drain(self) -> None:
        if self._folder and self._folder.draining:
            self.draining = True
            if not self._service.calls():
                self._leave()

    def _leave(self) -> None:
        """Tell `nemotron serve` that nothing runs here any more."""
        if self._folder:
            self._folder.leave()

"""A thread that tells the observers what became of requests, and how the engine is.

Apart from the watch over requests, because each observation is a round trip to tritonserver, and a log may be slow.
"""

from __future__ import annotations

import logging
import threading

from nemotron_triton.engine.interface import Engine
from nemotron_triton.serving.observers import Observers
from nemotron_triton.serving.requests import Requests

_TICK_S = 0.1
_CLOSE_S = 5.0
_log = logging.getLogger(__name__)


class Observation:
    """Tells *observers*, ten times a second, which of *requests* ended and in which state they and *engine* are."""

    def __init__(self, requests: Requests, engine: Engine, observers: Observers) -> None:
        self._requests = requests
        self._engine = engine
        self._observers = observers
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._observe_all, name="nemotron-observation", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it, once the last requests are logged and counted; where that hangs, without them."""
        self._closing.set()
        self._thread.join(_CLOSE_S)
        if not self._thread.is_alive():
            self._observers.close()

    def _observe_all(self) -> None:
        while not self._closing.wait(_TICK_S):
            self._observe()
        self._observe()

    def _observe(self) -> None:
        try:
            if lost := self._requests.lost():
                _log.error("%d requests are neither logged nor counted: they ended faster than the log is read", lost)
            self._observers.update(self._requests.ended(), self._engine.statistics(), self._requests.load)
        except Exception:
            # An error with one request, or a full disk, must not end the observation of the others.
            _log.exception("the observation of requests failed; it goes on")

"""Metrics, request log and traces, as one. Called from one thread."""

from __future__ import annotations

import logging
from typing import Any

from nemotron_triton.engine.interface import EngineStatistics
from nemotron_triton.serving.loaded import Loaded
from nemotron_triton.serving.metrics import Metrics
from nemotron_triton.serving.record import RequestRecord
from nemotron_triton.serving.request_log import RequestLog
from nemotron_triton.serving.settings import Settings
from nemotron_triton.serving.tracing import start_tracing

_log = logging.getLogger(__name__)


class Observers:
    """The observers of the model that is *loaded*, as *settings* and the environment ask for.

    One that fails hurts neither the service nor the others.
    """

    def __init__(self, pb_utils: Any, settings: Settings, loaded: Loaded) -> None:
        # The log is opened first and closed last, so that what the others complain of is in it.
        log = RequestLog(requests=bool(settings.log_requests), text=bool(settings.log_text))
        self._metrics = Metrics(pb_utils, loaded)
        tracing = start_tracing(loaded.profile)
        self._observers = (self._metrics, *((tracing,) if tracing else ()), log)

    def request_ended(self, record: RequestRecord) -> None:
        """A request is over."""
        for observer in self._observers:
            try:
                observer.request_ended(record)
            except Exception:
                _log.exception("%s lost a request", type(observer).__name__)

    def update(
        self,
        statistics: EngineStatistics,
        active: int,
        waiting: int,
        kv_cache_used_ratio: float,
        *,
        draining: bool = False,
    ) -> None:
        """Publish the state of the engine, how many requests are answered and wait, and how full the KV cache is.

        *draining* is whether the server is leaving.
        """
        try:
            self._metrics.update(statistics, active, waiting, kv_cache_used_ratio, draining=draining)
        except Exception:
            _log.exception("the metrics are not up to date")

    def close(self) -> None:
        """Write and send what is left."""
        for observer in self._observers:
            try:
                observer.close()
            except Exception:
                _log.exception("%s cannot be closed", type(observer).__name__)

"""Everything that watches the service from outside of it: metrics, log and traces. Called from one thread."""

from __future__ import annotations

import logging
from typing import Any

from nemotron_triton.engine.interface import EngineStatistics
from nemotron_triton.serving.metrics import Metrics
from nemotron_triton.serving.record import RequestRecord
from nemotron_triton.serving.request_log import RequestLog
from nemotron_triton.serving.settings import Settings
from nemotron_triton.serving.tracing import Tracing, start_tracing

_log = logging.getLogger(__name__)


class Observers:
    """The observers of one loaded model. None of them can hurt the service, or another one."""

    @classmethod
    def start(cls, pb_utils: Any, settings: Settings, model: str) -> Observers:
        """Those that *settings* and the environment ask for; *model* is what answers, as spans call it."""
        log = RequestLog(requests=bool(settings.log_requests), text=bool(settings.log_text))
        return cls(Metrics(pb_utils), log, start_tracing(model))

    def __init__(self, metrics: Metrics, log: RequestLog, tracing: Tracing | None) -> None:
        """Those that were started."""
        self._metrics = metrics
        # The log is closed last, so that what the others complain of is in it.
        self._observers = (metrics, *((tracing,) if tracing else ()), log)

    def request_ended(self, record: RequestRecord) -> None:
        """A request is over."""
        for observer in self._observers:
            try:
                observer.request_ended(record)
            except Exception:
                _log.exception("%s lost a request", type(observer).__name__)

    def update(self, statistics: EngineStatistics, active: int, waiting: int, kv_cache_used_ratio: float) -> None:
        """What is true now: of the engine, of how many requests are answered and wait, and of its KV cache."""
        try:
            self._metrics.update(statistics, active, waiting, kv_cache_used_ratio)
        except Exception:
            _log.exception("the metrics are not up to date")

    def close(self) -> None:
        """Write and send what is left."""
        for observer in self._observers:
            try:
                observer.close()
            except Exception:
                _log.exception("%s cannot be closed", type(observer).__name__)

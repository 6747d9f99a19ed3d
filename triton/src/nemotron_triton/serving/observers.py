"""Metrics, request log and traces, as one. Called from one thread."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence, Set
from typing import Any

from nemotron_triton.engine.interface import EngineStatistics
from nemotron_triton.serving.loaded import Loaded
from nemotron_triton.serving.metrics import Metrics
from nemotron_triton.serving.record import RequestRecord
from nemotron_triton.serving.request_log import RequestLog
from nemotron_triton.serving.requests import Load
from nemotron_triton.serving.settings import Settings
from nemotron_triton.serving.tracing import start_tracing

_log = logging.getLogger(__name__)


class Observers:
    """The observers of the model that is *loaded*, as *settings* and the environment ask for.

    *callers* gives the names of the callers that are known beforehand. An observer that fails hurts neither the service
    nor the others.
    """

    def __init__(self, pb_utils: Any, settings: Settings, loaded: Loaded, callers: Callable[[], Set[str]]) -> None:
        # The log is opened first and closed last, so that what the others complain of is in it.
        log = RequestLog(requests=bool(settings.log_requests), text=bool(settings.log_text))
        self._metrics = Metrics(pb_utils, loaded, callers)
        tracing = start_tracing(loaded.profile)
        self._others = (*((tracing,) if tracing else ()), log)

    def update(self, ended: Sequence[RequestRecord], statistics: EngineStatistics, load: Load) -> None:
        """Publish what became of the requests that *ended*, and the state of the engine and of the server.

        The metrics come first: a request that is in the log is counted.
        """
        _guarded("the metrics are not up to date", self._metrics.update, ended, statistics, load)
        for record in ended:
            for observer in self._others:
                _guarded(f"{type(observer).__name__} lost a request", observer.request_ended, record)

    def close(self) -> None:
        """Write and send what is left."""
        for observer in (self._metrics, *self._others):
            _guarded(f"{type(observer).__name__} cannot be closed", observer.close)


def _guarded(trouble: str, act: Callable[..., None], *arguments: object) -> None:
    """Do it; what it raises is only logged."""
    try:
        act(*arguments)
    except Exception:
        _log.exception(trouble)

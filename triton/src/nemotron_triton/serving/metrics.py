"""The engine's statistics, and what was wrong with answers, as Prometheus metrics on Triton's metrics endpoint."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from nemotron_client.events import Problem
from nemotron_triton.engine.interface import EngineStatistics

_FAMILIES = {
    "active_requests": ("nemotron_engine_active_requests", "Requests the engine is generating for", "GAUGE"),
    "waiting_requests": ("nemotron_engine_waiting_requests", "Requests waiting for the engine", "GAUGE"),
    "generated_tokens": ("nemotron_engine_generated_tokens_total", "Tokens generated since the start", "COUNTER"),
    "cancelled_requests": ("nemotron_engine_cancelled_requests_total", "Requests whose client went away", "COUNTER"),
}


class EngineMetrics:
    """Writes what changed since the last update; each write is a message to tritonserver."""

    def __init__(self, pb_utils: Any) -> None:
        """Register the families with Triton."""
        kinds = {"GAUGE": pb_utils.MetricFamily.GAUGE, "COUNTER": pb_utils.MetricFamily.COUNTER}
        # A family must outlive its metrics, so both are kept.
        self._families = {
            field: pb_utils.MetricFamily(name=name, description=description, kind=kinds[kind])
            for field, (name, description, kind) in _FAMILIES.items()
        }
        self._metrics = {field: family.Metric(labels={}) for field, family in self._families.items()}
        self._last = dict.fromkeys(_FAMILIES, 0)

    def update(self, statistics: EngineStatistics) -> None:
        """Bring the metrics up to *statistics*."""
        for field, value in asdict(statistics).items():
            if value == self._last[field]:
                continue
            if _FAMILIES[field][2] == "COUNTER":
                self._metrics[field].increment(value - self._last[field])
            else:
                self._metrics[field].set(value)
            self._last[field] = value


class ProblemMetrics:
    """Counts problems by their code."""

    def __init__(self, pb_utils: Any) -> None:
        """Register the family with Triton."""
        self._family = pb_utils.MetricFamily(
            name="nemotron_answer_problems_total",
            description="Problems with the model's answers, by code",
            kind=pb_utils.MetricFamily.COUNTER,
        )
        self._metrics: dict[str, Any] = {}

    def count(self, problems: Iterable[Problem]) -> None:
        """Add one for each."""
        for problem in problems:
            if problem.code not in self._metrics:
                self._metrics[problem.code] = self._family.Metric(labels={"code": problem.code})
            self._metrics[problem.code].increment(1)

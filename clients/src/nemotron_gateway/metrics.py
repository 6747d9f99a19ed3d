"""What the gateway counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The families of one gateway; `text` is what a scrape gets."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "nemotron_gateway_requests",
            "Requests that ended, by route and HTTP status; 499 is a caller who left.",
            ("route", "status"),
            registry=self._registry,
        )
        self.active = Gauge("nemotron_gateway_active_requests", "Requests that run.", registry=self._registry)
        self.first_event_seconds = Histogram(
            "nemotron_gateway_first_event_seconds",
            "Time from the request to the server's first response to it.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.unknown_fields = Counter(
            "nemotron_gateway_unknown_fields",
            "Fields of requests that were ignored because nobody knows them.",
            registry=self._registry,
        )

    def text(self) -> bytes:
        """Every family, in Prometheus' text format."""
        return generate_latest(self._registry)

"""One OpenTelemetry span for each finished request, with the attributes of the GenAI semantic conventions.

Made from the request's record, and sent by OTLP over HTTP from the SDK's own thread, in batches, out of a bounded
queue: a collector that is slow or gone costs spans, never requests. Configured by OpenTelemetry's environment
variables; without them the SDK is not even imported. Holds no text of prompt or answer.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, Any

from nemotron_client import wire
from nemotron_triton.extras import how_to_install
from nemotron_triton.serving.record import RequestRecord
from nemotron_triton.serving.request_log import short

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"
# The outcomes that are errors of the server, which a caller's mistake is not.
_ERRORS = ("rejected", "deadline", "failed")
_MAX_ID, _MAX_MESSAGE = 128, 300
# Time to send the last spans; a dead collector must not hold up the end of the server.
_FLUSH_S = 2.0
_log = logging.getLogger(__name__)


def start_tracing(model: str) -> Tracing | None:
    """Tracing to the collector that the environment names, or None; *model* is the model's name in spans."""
    # The environment is not a parameter, because the SDK reads it too.
    if not any(map(os.environ.get, _ENDPOINTS)) or os.environ.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        return None
    protocol = next((value for name in _PROTOCOLS if (value := os.environ.get(name))), _PROTOCOL)
    if protocol != _PROTOCOL:
        _log.warning("no spans are sent: the OTLP protocol is %s; only %s is supported here", protocol, _PROTOCOL)
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        remedy = f"{how_to_install('otel')}, or unset it"
        _log.warning("no spans are sent: an OTLP endpoint is set, but %s is not installed; %s", error.name, remedy)
        return None
    # Without the warnings about retries; a batch that is lost is an error.
    logging.getLogger("opentelemetry.exporter").setLevel(logging.ERROR)
    resource = Resource.create()
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": wire.MODEL_NAME}))
    # Shut down by `close`; the SDK's own hook at exit would wait 30 s for a dead collector.
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider, model)


class Tracing:
    """Makes spans of records, which *provider* sends."""

    def __init__(self, provider: TracerProvider, model: str) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("nemotron_triton")
        self._propagator = TraceContextTextMapPropagator()
        self._model = model

    def request_ended(self, record: RequestRecord) -> None:
        """Queue the span of *record*, as a child of the caller's if the request named one."""
        from opentelemetry.trace import SpanKind, Status, StatusCode

        span = self._tracer.start_span(
            f"{record.operation} {wire.MODEL_NAME}",
            # An invalid parent is ignored.
            context=self._propagator.extract({"traceparent": record.traceparent}),
            kind=SpanKind.SERVER,
            attributes=_attributes(record, self._model),
            start_time=record.arrived_ns,
        )
        for event in ("started", "first_token", "first_answer_token"):
            if (moment_s := getattr(record, f"{event}_s")) is not None:
                span.add_event(event, timestamp=_at_ns(record, moment_s))
        if record.outcome in _ERRORS:
            span.set_status(Status(StatusCode.ERROR, short(record.error, _MAX_MESSAGE)))
        span.end(_at_ns(record, record.arrived_s if record.ended_s is None else record.ended_s))

    def close(self) -> None:
        """Send the last spans, as far as that is quick."""
        flush = threading.Thread(target=self._provider.shutdown, daemon=True)
        flush.start()
        flush.join(_FLUSH_S)


def _attributes(record: RequestRecord, model: str) -> dict[str, Any]:
    attributes = {
        "gen_ai.operation.name": record.operation,
        "gen_ai.provider.name": "nemotron",
        "gen_ai.request.model": wire.MODEL_NAME,
        "gen_ai.request.choice.count": record.choices if record.choices != 1 else None,
        "gen_ai.request.max_tokens": record.max_tokens,
        "gen_ai.request.temperature": record.temperature,
        "gen_ai.request.top_p": record.top_p,
        "gen_ai.request.stream": record.stream,
        "gen_ai.response.model": model,
        "gen_ai.response.finish_reasons": record.finish_reasons or None,
        "gen_ai.usage.input_tokens": record.prompt_tokens,
        "gen_ai.usage.output_tokens": record.output_tokens,
        "gen_ai.usage.reasoning.output_tokens": record.reasoning_tokens,
        # In the conventions these two are metrics of a server, in seconds.
        "gen_ai.server.time_to_first_token": record.since_arrival(record.first_token_s),
        "gen_ai.server.time_per_output_token": record.inter_token_latency_s,
        "error.type": None if record.outcome == "ok" else record.outcome,
        "nemotron.request.id": short(record.request_id, _MAX_ID),
        "nemotron.thinking": record.thinking,
        "nemotron.queue_seconds": record.queue_s,
        "nemotron.tool_calls": record.tool_calls,
        "nemotron.problems": sorted({problem.code for problem in record.problems}) or None,
    }
    return {name: value for name, value in attributes.items() if value is not None}


def _at_ns(record: RequestRecord, moment_s: float) -> int:
    return record.arrived_ns + round((moment_s - record.arrived_s) * 1e9)

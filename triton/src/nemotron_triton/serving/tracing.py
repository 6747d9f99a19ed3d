"""One OpenTelemetry span for each finished request, with the attributes of the GenAI semantic conventions.

Made from the request's record, and sent by OTLP over HTTP from the SDK's own thread, in batches, out of a bounded
queue: a collector that is slow or gone costs spans, never requests. Configured by OpenTelemetry's environment
variables; without them the SDK is not even imported. Holds no text of prompt or answer.

The attributes `gen_ai.*` and `server.*` are those of open-telemetry/semantic-conventions-genai, commit 024a4f94,
`docs/gen-ai/client-inference.md`, and `enduser.id` is of the registry of open-telemetry/semantic-conventions 1.43; the
status of all is "development". What they have no name for is `nemotron.*`.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, Any

from nemotron_client import wire
from nemotron_triton.engine.interface import Sampling
from nemotron_triton.extras import how_to_install
from nemotron_triton.serving.address import own_address
from nemotron_triton.serving.record import RequestRecord
from nemotron_triton.serving.request_log import short

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"
# The outcomes that are errors of the server, which a caller's mistake is not.
_ERRORS = ("rejected", "deadline", "failed")
_MAX_ID, _MAX_MESSAGE, _MAX_STOP_WORDS, _MAX_STOP_WORD = 128, 300, 16, 64
# The largest whole number that an attribute can hold; a seed may be larger.
_MAX_INT = (1 << 63) - 1
# Time to send the last spans; a dead collector must not hold up the end of the server.
_FLUSH_S = 2.0
_log = logging.getLogger(__name__)


def start_tracing(model: str) -> Tracing | None:
    """Tracing to the collector that the environment names, or None; *model* is the name of the bundle's model."""
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
        self._loaded = _loaded_attributes(model)

    def request_ended(self, record: RequestRecord) -> None:
        """Queue the span of *record*, as a child of the caller's if the request named one."""
        from opentelemetry.trace import SpanKind, Status, StatusCode

        span = self._tracer.start_span(
            f"{record.operation} {wire.MODEL_NAME}",
            # An invalid parent is ignored.
            context=self._propagator.extract({"traceparent": record.traceparent}),
            kind=SpanKind.SERVER,
            attributes=self._loaded | _attributes(record),
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


def _loaded_attributes(model: str) -> dict[str, Any]:
    """What every span has."""
    attributes: dict[str, Any] = {
        "gen_ai.provider.name": "nemotron",
        "gen_ai.request.model": wire.MODEL_NAME,
        "gen_ai.response.model": model,
    }
    if address := own_address():
        attributes["server.address"], attributes["server.port"] = address
    return attributes


def _attributes(record: RequestRecord) -> dict[str, Any]:
    time_to_first_token_s = record.since_arrival(record.first_token_s)
    request_id = short(record.request_id, _MAX_ID)
    attributes = {
        "gen_ai.operation.name": record.operation,
        "gen_ai.request.choice.count": record.choices if record.choices != 1 else None,
        "gen_ai.request.stream": record.stream,
        "gen_ai.request.stop_sequences": [short(word, _MAX_STOP_WORD) for word in record.stop_words[:_MAX_STOP_WORDS]]
        or None,
        # The caller's, by which the client and the log name the answer too.
        "gen_ai.response.id": request_id or None,
        "gen_ai.response.finish_reasons": record.finish_reasons or None,
        "gen_ai.usage.input_tokens": record.prompt_tokens,
        "gen_ai.usage.cache_read.input_tokens": record.cached_tokens,
        "gen_ai.usage.output_tokens": record.output_tokens,
        "gen_ai.usage.reasoning.output_tokens": record.reasoning_tokens,
        "gen_ai.response.time_to_first_chunk": time_to_first_token_s if record.stream else None,
        "error.type": None if record.outcome == "ok" else record.outcome,
        # Behind a gateway's name, that of its own caller: as in the log.
        "enduser.id": record.caller or None,
        "nemotron.request.id": request_id,
        "nemotron.thinking": record.thinking,
        "nemotron.time_to_first_token_seconds": time_to_first_token_s,
        "nemotron.time_per_output_token_seconds": record.time_per_output_token_s,
        "nemotron.queue_seconds": record.queue_s,
        "nemotron.tool_calls": record.tool_calls,
        "nemotron.problems": sorted({problem.code for problem in record.problems}) or None,
    }
    if record.sampling:
        attributes |= _sampling_attributes(record.sampling)
    return {name: value for name, value in attributes.items() if value is not None}


def _sampling_attributes(sampling: Sampling) -> dict[str, Any]:
    """What is asked of the engine, defaults of the model included; without what is off."""
    return {
        "gen_ai.request.max_tokens": sampling.max_tokens,
        "gen_ai.request.temperature": sampling.temperature,
        "gen_ai.request.top_p": sampling.top_p,
        "gen_ai.request.top_k": sampling.top_k or None,
        "gen_ai.request.seed": sampling.seed if sampling.seed is None or sampling.seed <= _MAX_INT else None,
        "gen_ai.request.frequency_penalty": sampling.frequency_penalty or None,
        "gen_ai.request.presence_penalty": sampling.presence_penalty or None,
    }


def _at_ns(record: RequestRecord, moment_s: float) -> int:
    return record.arrived_ns + round((moment_s - record.arrived_s) * 1e9)

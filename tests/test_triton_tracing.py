"""Spans as a collector gets them: over real HTTP, in OTLP's encoding."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from collector import Collector, collecting, plain
from nemotron_client.events import Problem
from nemotron_triton.engine.interface import Sampling
from nemotron_triton.serving.address import grpc_address
from nemotron_triton.serving.record import RequestRecord
from nemotron_triton.serving.tracing import Tracing, start_tracing

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
ANSWERED = RequestRecord(
    request_id="order-17",
    arrived_ns=1_700_000_000_000_000_000,
    arrived_s=100.0,
    started_s=100.25,
    first_token_s=100.5,
    first_answer_token_s=101.0,
    ended_s=102.5,
    outcome="ok",
    thinking=True,
    stream=True,
    sampling=Sampling(
        max_tokens=64,
        temperature=0.5,
        top_p=0.25,
        top_k=40,
        seed=7,
        frequency_penalty=0.125,
        presence_penalty=-0.5,
    ),
    stop_words=("x" * 100, "END"),
    prompt_tokens=20,
    cached_tokens=16,
    output_tokens=11,
    gaps=10,
    gaps_s=2.0,
    reasoning_tokens=4,
    finish_reasons=["tool_calls"],
    tool_calls=1,
    problems=[Problem(code="unknown_function", function="f")],
    caller="front/carol",
    traceparent=f"00-{TRACE}-{PARENT}-01",
    prompt_text="my PIN is 1234",
    answer_text="my PIN is 1234",
)


@pytest.fixture(autouse=True)
def nothing_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the developer's own settings out of the tests."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        # The collector is on this machine, whatever http_proxy says.
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield collector


def started(model: str = "llama-nemotron-nano-4b-v1.1") -> Tracing:
    tracing = start_tracing(model)
    assert tracing
    return tracing


def test_a_request_is_a_span_below_the_caller_s_with_the_attributes_of_the_conventions(collector: Collector) -> None:
    tracing = started()

    tracing.request_ended(ANSWERED)
    tracing.close()

    span, resource = collector.span()
    assert resource["service.name"] == "nemotron"
    assert (span.name, span.kind, span.status.code) == ("chat nemotron", 2, 0)
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    begin = ANSWERED.arrived_ns
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (begin, begin + 2_500_000_000)
    assert [(event.name, event.time_unix_nano - begin) for event in span.events] == [
        ("started", 250_000_000),
        ("first_token", 500_000_000),
        ("first_answer_token", 1_000_000_000),
    ]
    assert plain(span.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "nemotron",
        "gen_ai.request.model": "nemotron",
        "gen_ai.request.max_tokens": 64,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.25,
        "gen_ai.request.top_k": 40,
        "gen_ai.request.seed": 7,
        "gen_ai.request.frequency_penalty": 0.125,
        "gen_ai.request.presence_penalty": -0.5,
        "gen_ai.request.stop_sequences": ["x" * 63 + "…", "END"],
        "gen_ai.request.stream": True,
        "gen_ai.response.id": "order-17",
        "gen_ai.response.model": "llama-nemotron-nano-4b-v1.1",
        "gen_ai.response.finish_reasons": ["tool_calls"],
        "gen_ai.usage.input_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 16,
        "gen_ai.usage.output_tokens": 11,
        "gen_ai.usage.reasoning.output_tokens": 4,
        "gen_ai.response.time_to_first_chunk": 0.5,
        "nemotron.time_to_first_token_seconds": 0.5,
        "nemotron.time_per_output_token_seconds": 0.2,
        "enduser.id": "front/carol",
        "nemotron.request.id": "order-17",
        "nemotron.thinking": True,
        "nemotron.queue_seconds": 0.25,
        "nemotron.tool_calls": 1,
        "nemotron.problems": ["unknown_function"],
    }


def test_what_was_not_asked_for_or_does_not_fit_is_left_out(collector: Collector) -> None:
    """A seed has 64 bits without a sign, an attribute has 63; and an answer that is not streamed has no chunks."""
    tracing = started()
    sampling = Sampling(max_tokens=64, temperature=0.0, top_p=1.0, seed=2**64 - 1)

    plainer = replace(ANSWERED, sampling=sampling, stop_words=(), stream=False, cached_tokens=None, caller="")
    tracing.request_ended(plainer)
    tracing.close()

    span, _ = collector.span()
    names = set(plain(span.attributes))
    assert not names & {"gen_ai.request.seed", "gen_ai.request.top_k", "gen_ai.request.stop_sequences"}
    assert not names & {"gen_ai.response.time_to_first_chunk", "gen_ai.usage.cache_read.input_tokens", "enduser.id"}
    assert "nemotron.time_to_first_token_seconds" in names


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("tritonserver --model-repository=/m --grpc-address=10.0.0.7 --grpc-port=9001", ("10.0.0.7", 9001)),
        ("tritonserver --model-repository /m --grpc-address 10.0.0.7 --grpc-port 9001", ("10.0.0.7", 9001)),
        ("ld.so tritonserver --model-store=/m --grpc-address=[::1]", ("::1", 8001)),
        ("tritonserver --model-repository=/m --grpc-address=0.0.0.0", ("pod-7", 8001)),
        ("tritonserver --model-repository=/m", ("pod-7", 8001)),
        ("python -m pytest", None),
    ],
)
def test_the_server_s_address_is_read_from_its_arguments(arguments: str, expected: tuple[str, int] | None) -> None:
    assert grpc_address(arguments.split(), "pod-7") == expected


@pytest.mark.parametrize("traceparent", ["", "nonsense", f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{PARENT}-01\nx: y"])
def test_without_a_valid_parent_a_span_stands_alone(collector: Collector, traceparent: str) -> None:
    tracing = started()

    tracing.request_ended(RequestRecord(request_id="a", outcome="ok", traceparent=traceparent))
    tracing.close()

    span, _ = collector.span()
    assert span.parent_span_id == b""
    assert span.trace_id.hex() != TRACE


@pytest.mark.parametrize(("outcome", "status"), [("failed", 2), ("deadline", 2), ("invalid", 0), ("cancelled", 0)])
def test_what_went_wrong_is_named_and_an_error_only_where_it_is_the_server_s(
    collector: Collector, outcome: Any, status: int
) -> None:
    tracing = started()

    tracing.request_ended(RequestRecord(request_id="a", outcome=outcome, error="no more memory"))
    tracing.close()

    span, _ = collector.span()
    assert span.status.code == status
    assert plain(span.attributes)["error.type"] == outcome
    assert span.status.message == ("no more memory" if status else "")


def test_a_caller_that_does_not_sample_gets_no_span(collector: Collector) -> None:
    tracing = started()

    tracing.request_ended(RequestRecord(request_id="a", traceparent=f"00-{TRACE}-{PARENT}-00"))
    tracing.close()

    assert collector.spans.empty()


def test_the_service_can_be_named(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "tips")
    tracing = started()

    tracing.request_ended(ANSWERED)
    tracing.close()

    assert collector.span()[1]["service.name"] == "tips"


@pytest.mark.slow
def test_a_dead_collector_costs_a_request_nothing_and_the_end_a_few_seconds(collector: Collector) -> None:
    tracing = started()
    collector.shutdown()
    collector.server_close()

    begin = time.monotonic()
    for _ in range(5000):
        tracing.request_ended(ANSWERED)
    queued_s = time.monotonic() - begin
    tracing.close()
    closed_s = time.monotonic() - begin - queued_s

    # More spans than the queue holds. A single attempt to send them would take longer than this for each.
    assert queued_s / 5000 < 0.01
    assert closed_s < 5


@pytest.mark.parametrize(
    ("variables", "warning"),
    [
        ({}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_TRACES_EXPORTER": "none"}, ""),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "the OTLP protocol is grpc; only http/protobuf is supported",
        ),
    ],
)
def test_tracing_is_off_where_nothing_asks_for_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, variables: dict[str, str], warning: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert start_tracing("m") is None
    assert warning in caplog.text
    assert len(caplog.records) == bool(warning)


def test_opentelemetry_that_is_asked_for_but_not_installed_is_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:9/v1/traces")
    for name in [name for name in sys.modules if name.split(".")[0] == "opentelemetry"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)

    assert start_tracing("m") is None
    (record,) = caplog.records
    assert "pip install '.[otel]' from a checkout of nemotron, or unset it" in record.getMessage()


def test_opentelemetry_is_not_even_imported_where_nothing_asks_for_it() -> None:
    code = (
        "import sys; from nemotron_triton.serving.tracing import start_tracing; start_tracing('m'); "
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )

    run = subprocess.run([sys.executable, "-I", "-c", code], env={}, check=False)

    assert run.returncode == 0

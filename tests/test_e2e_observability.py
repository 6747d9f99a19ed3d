"""The observability of a real tritonserver: its metrics, log and spans, and the dashboard."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import yaml
from tritonclient.grpc import InferenceServerClient, InferInput

import exposition
from collector import Collector, collecting, plain
from conftest import ROOT
from nemotron_client import Client, RequestRejected
from nemotron_triton.bundle import Bundle
from nemotron_triton.server import ServeOptions
from nemotron_triton.serving import metric_families
from patience import wait_until
from running import running

SERVING = ROOT / "docs" / "serving.md"
OBSERVABILITY = ROOT / "triton" / "observability"
TOOLS = json.loads((ROOT / "build/demo/tools.json").read_text())
TIP = [{"role": "user", "content": "My bill is $100. What will be the amount for 18% tip?"}]
CAPITAL = [{"role": "user", "content": "What is the capital of France?"}]
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HOSTILE_ID = 'x"\n{"event": "forged"}\x1b[2J'


@dataclass(frozen=True)
class Watched:
    """A served demo model of our own, so that nobody else's requests are counted."""

    options: ServeOptions
    log: list[str]
    collector: Collector

    def metrics(self) -> str:
        """The text of the metrics endpoint."""
        return exposition.fetch(self.options)

    def moved(self, before: str) -> dict[str, float]:
        """The differences of our series from *before*, by name without our prefix."""
        then, now = exposition.samples(before), exposition.samples(self.metrics())
        return {
            series.removeprefix(exposition.PREFIX): now[series] - then.get(series, 0)
            for series in now
            if now[series] != then.get(series, 0)
        }

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Our lines in the server's log."""
        lines = [json.loads(line) for line in list(self.log) if line.startswith('{"time"')]
        return [line for line in lines if line["event"] == event]


@pytest.fixture(scope="module")
def watched(bundle: Bundle) -> Iterator[Watched]:
    with pytest.MonkeyPatch.context() as environment, collecting() as collector:
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        environment.setenv("NO_PROXY", "127.0.0.1")
        with running(bundle) as server:
            yield Watched(server.options, server.log, collector)


@pytest.fixture
def client(watched: Watched) -> Iterator[Client]:
    with Client(f"127.0.0.1:{watched.options.grpc_port}", timeout_s=60) as client:
        yield client


def test_a_call_a_cancellation_and_a_refusal_move_the_counters_by_exactly_that(
    watched: Watched, client: Client
) -> None:
    wait_until(lambda: exposition.samples(watched.metrics())["nemotron_engine_healthy"] == 1)
    before = watched.metrics()

    reply = client.chat(TIP, tools=TOOLS, thinking=False, temperature=0.0)
    stream = client.stream(CAPITAL, end_id=-1, max_tokens=1900)
    next(stream)
    wait_until(lambda: watched.moved(before).get("active_requests") == 1)
    stream.close()
    with pytest.raises(RequestRejected):
        client.chat(CAPITAL, temperature=-1.0)

    wait_until(lambda: sum(_outcomes(watched.moved(before)).values()) == 3)
    moved = watched.moved(before)
    assert _outcomes(moved) == {"ok": 1, "cancelled": 1, "invalid": 1}
    assert moved['tool_calls_total{outcome="ok"}'] == 1
    assert moved["answer_tokens_total"] == reply.usage.output_tokens
    assert moved["prompt_tokens_total"] > reply.usage.input_tokens
    assert moved["engine_generated_tokens_total"] > reply.usage.output_tokens
    counts = {series: count for series, count in moved.items() if series.endswith("_seconds_count")}
    # The refused request never reached the engine, and the cancelled one never finished.
    assert counts.pop("time_to_first_answer_token_seconds_count") in (1, 2)
    assert counts == {
        "queue_time_seconds_count": 2,
        "time_to_first_token_seconds_count": 2,
        "request_duration_seconds_count": 1,
        "time_per_output_token_seconds_count": 1,
        "inter_token_latency_seconds_count": 1,
    }
    assert not [series for series in moved if series.startswith(("answer_problems", "parse_repairs", "active_req"))]


def test_the_metrics_follow_the_conventions(watched: Watched, client: Client) -> None:
    client.chat(TIP, tools=TOOLS)

    text = watched.metrics()

    assert not list(exposition.complaints(text))
    # One line for each of few values: no request, user or prompt has a series of its own.
    assert len(exposition.samples(text)) < 150


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("# TYPE nemotron_x gauge\nnemotron_x 1\n", "no HELP"),
        ("# HELP nemotron_x X\n# TYPE nemotron_x counter\nnemotron_x 1\n", "counters end in _total"),
        ("# HELP nemotron_x_total X\n# TYPE nemotron_x_total gauge\nnemotron_x_total 1\n", "nothing else does"),
        ("# HELP nemotron_x_ms X\n# TYPE nemotron_x_ms gauge\nnemotron_x_ms 1\n", "base units"),
        ('# HELP nemotron_x X\n# TYPE nemotron_x gauge\nnemotron_x{request_id="7"} 1\n', "the label request_id"),
        ("# HELP nemotron_x X\n# TYPE nemotron_x untyped\nnemotron_x 1\n", "of type"),
        (
            '# HELP nemotron_x X\n# TYPE nemotron_x histogram\nnemotron_x_bucket{le="1"} 3\n'
            'nemotron_x_bucket{le="+Inf"} 2\nnemotron_x_count 2\nnemotron_x_sum 1\n',
            "counts [3, 2]",
        ),
        (
            '# HELP nemotron_x X\n# TYPE nemotron_x histogram\nnemotron_x_bucket{le="1"} 2\n'
            "nemotron_x_count 2\nnemotron_x_sum 1\n",
            "ascend to +Inf",
        ),
    ],
)
def test_the_check_of_conventions_finds_what_breaks_them(text: str, complaint: str) -> None:
    errors = "; ".join(exposition.complaints(text))

    assert complaint in errors


def test_the_dashboard_and_the_alerts_ask_only_for_metrics_that_exist(watched: Watched, client: Client) -> None:
    client.chat(CAPITAL)
    (job,) = yaml.safe_load((ROOT / "triton/docker/prometheus.yaml").read_text())["scrape_configs"]
    # Prometheus itself reports whether it could scrape a job.
    scraped: exposition.Series = {**exposition.series(watched.metrics()), "up": [{"job": job["job_name"]}]}
    recorded = _recordings()
    known = {**scraped, **{name: [{}] for name, _ in recorded}}

    queries = [*_panels(), *_variables(), *_alerts(), *recorded]

    assert [name for name, _ in recorded] == ["nemotron:load:ratio"]
    assert len(queries) > 50
    assert not {f"{where}: {missing}" for where, query in queries if (missing := exposition.unknown(query, known))}


def test_the_picker_is_told_of_metrics_that_exist(watched: Watched) -> None:
    (text,) = re.findall(r"```yaml\n(- type: core-metrics-extractor\n.*?)```", SERVING.read_text(), re.DOTALL)
    ((config,),) = (plugin["parameters"]["engineConfigs"] for plugin in yaml.safe_load(text))

    names = {metric for key, metric in config.items() if key.endswith("Spec")}

    assert names - set(exposition.series(watched.metrics())) == {
        # Of engines with blocks only, which this one is not.
        "nemotron_kv_cache_tokens_per_block",
        "nemotron_kv_cache_blocks",
    }
    assert names <= {family.name for family in metric_families.FAMILIES}


@pytest.mark.parametrize(
    ("query", "missing"),
    [
        ('sum by (a) (rate(known_total{a=~"b|c", le="}x"}[$__rate_interval]))', set()),
        ("histogram_quantile(0.95, sum by (instance, le) (rate(known_total[5m]))) > 1e-9 or vector(0)", set()),
        ('known_total{instance=~"$instance"} == 0', set()),
        ('known_total{a="d"}', {'known_total{a="d"}'}),
        ('known_total{a!="d", le="}x"}', {'known_total{a="d"}'}),
        ('rate(known_total{a=~"b|e|c"}[5m])', {'known_total{a="e"}'}),
        ('known_total{code="b"}', {'known_total{code="b"}'}),
        ("sum by (code) (rate(known_total[5m])) / (sum by (a) (known_total))", {"known_total{code}"}),
        ("sum by (instance, le, a) (other_total) + sum by (a) (known_total)", {"other_total"}),
        ("label_values(known_total, a)", set()),
        ("label_values(known_total, instance)", set()),
        ("label_values(known_total, code)", {"known_total{code}"}),
        ('label_values(known_total{namespace=~"$namespace", a=~"$a"}, le)', set()),
        ('label_values(known_total{code=~"$code"}, le)', {'known_total{code="$code"}'}),
        ("a:known:ratio > avg by (job) (known_total)", {"a:known:ratio"}),
        ("label_values(gone_total, instance)", {"gone_total"}),
        ("known_total / on (instance) group_left (job) other_total", {"other_total"}),
        ("sum(rate(gone_total[5m])) / clamp_min(known_total, 1e-9)", {"gone_total"}),
        ("absent(gone_bucket) unless known_total offset 5m", {"gone_bucket"}),
    ],
)
def test_the_check_of_queries_finds_what_does_not_exist(query: str, missing: set[str]) -> None:
    known = {"known_total": [{"a": "b", "le": "}x"}, {"a": "c", "le": "1"}]}

    assert exposition.unknown(query, known) == missing


def test_the_dashboard_is_one_that_grafana_can_load() -> None:
    dashboard = _dashboard()
    panels = dashboard["panels"]
    source, *choices = dashboard["templating"]["list"]

    assert dashboard["schemaVersion"] >= 38
    assert (source["name"], source["type"], source["query"]) == ("datasource", "datasource", "prometheus")
    assert [choice["name"] for choice in choices] == ["namespace", "bundle", "instance"]
    assert {choice["datasource"]["uid"] for choice in choices} == {"${datasource}"}
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel, target in _targets():
        assert panel["datasource"] == target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["description"]
    cells = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in panels
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


@pytest.mark.parametrize("way", ["headers", "parameters"])
def test_a_request_is_a_line_in_the_log_and_a_span_below_its_caller_s(watched: Watched, way: str) -> None:
    trace, request_id = {"traceparent": f"00-{TRACE}-{PARENT}-01"}, f"{way}{HOSTILE_ID}"
    _send(watched.options, {"messages": json.dumps(CAPITAL)}, request_id, **{way: trace})

    attributes: dict[str, Any] = {}
    while attributes.get("nemotron.request.id") != request_id:
        span, _ = watched.collector.span()
        attributes = plain(span.attributes)
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert attributes["gen_ai.usage.output_tokens"] > 0
    assert attributes["gen_ai.response.id"] == request_id
    assert (attributes["server.address"], attributes["server.port"]) == ("127.0.0.1", watched.options.grpc_port)
    assert attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert [event.name for event in span.events] == ["started", "first_token", "first_answer_token"]
    times = [span.start_time_unix_nano, *(event.time_unix_nano for event in span.events), span.end_time_unix_nano]
    assert times == sorted(times)
    assert abs(span.end_time_unix_nano / 1e9 - time.time()) < 60
    wait_until(lambda: request_id in [line.get("request_id") for line in watched.lines("request")])
    line = next(line for line in watched.lines("request") if line.get("request_id") == request_id)
    assert (line["outcome"], line["output_tokens"]) == ("ok", attributes["gen_ai.usage.output_tokens"])
    assert 0 <= line["queue_ms"] <= line["ttft_ms"] <= line["first_answer_ms"] <= line["duration_ms"]
    assert not watched.lines("forged")
    assert not [line for line in watched.log if line.startswith('{"event": "forged"}')]
    assert "France" not in "\n".join(watched.log)


def test_the_client_passes_the_name_and_the_trace_of_a_request_on(watched: Watched, client: Client) -> None:
    reply = client.chat(CAPITAL, max_tokens=3, request_id="chat-17/a", traceparent=f"00-{TRACE}-{PARENT}-01")

    attributes: dict[str, Any] = {}
    while attributes.get("nemotron.request.id") != "chat-17/a":
        span, _ = watched.collector.span()
        attributes = plain(span.attributes)
    assert reply.request_id == "chat-17/a"
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    wait_until(lambda: "chat-17/a" in [line.get("request_id") for line in watched.lines("request")])


def _send(
    options: ServeOptions,
    texts: dict[str, str],
    request_id: str,
    *,
    parameters: dict[str, str] | None = None,
    headers: dict[str, str] | None = None,
) -> None:
    """One request as a plain Triton client sends it, and its answer."""
    inputs = [InferInput(name, [1, 1], "BYTES") for name in texts]
    for tensor, text in zip(inputs, texts.values(), strict=True):
        tensor.set_data_from_numpy(np.array([[text.encode()]], dtype=np.object_))
    answered = threading.Event()
    errors: list[Any] = []

    def callback(result: Any, error: Any) -> None:
        errors.append(error)
        answered.set()

    with InferenceServerClient(f"127.0.0.1:{options.grpc_port}") as plain_client:
        plain_client.start_stream(callback, headers=headers)
        plain_client.async_stream_infer("nemotron", inputs, request_id=request_id, parameters=parameters)
        assert answered.wait(30)
    assert errors == [None]


def _dashboard() -> dict[str, Any]:
    dashboard: dict[str, Any] = json.loads((OBSERVABILITY / "grafana-dashboard.json").read_text())
    return dashboard


def _targets() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [(panel, target) for panel in _dashboard()["panels"] for target in panel.get("targets", [])]


def _panels() -> list[tuple[str, str]]:
    return [(f"panel {panel['title']}", target["expr"]) for panel, target in _targets()]


def _variables() -> list[tuple[str, str]]:
    variables = [variable for variable in _dashboard()["templating"]["list"] if variable["type"] == "query"]
    assert all(variable["definition"] == variable["query"]["query"] for variable in variables)
    return [(f"variable {variable['name']}", variable["definition"]) for variable in variables]


def _alerts() -> list[tuple[str, str]]:
    rules = [
        rule
        for group in yaml.safe_load((OBSERVABILITY / "alerts.yaml").read_text())["groups"]
        for rule in group["rules"]
    ]
    assert all(rule["labels"]["severity"] and rule["annotations"]["summary"] for rule in rules)
    return [(f"alert {rule['alert']}", rule["expr"]) for rule in rules]


def _recordings() -> list[tuple[str, str]]:
    groups = yaml.safe_load((OBSERVABILITY / "recording.yaml").read_text())["groups"]
    return [(rule["record"], rule["expr"]) for group in groups for rule in group["rules"]]


def _outcomes(moved: dict[str, float]) -> dict[str, float]:
    return {series.split('"')[1]: by for series, by in moved.items() if series.startswith("requests_total")}

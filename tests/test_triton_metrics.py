"""The metrics of requests and of the engine, on a stand-in with tritonserver's rules."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from nemotron_client.events import Problem
from nemotron_triton.engine.interface import EngineStatistics
from nemotron_triton.serving import metric_families
from nemotron_triton.serving.loaded import Loaded
from nemotron_triton.serving.metrics import Metrics, call_outcomes
from nemotron_triton.serving.record import Outcome, RequestRecord
from nemotron_triton.serving.requests import Load

IDLE = EngineStatistics(active_requests=0, waiting_requests=0, generated_tokens=0)
ANSWERED = RequestRecord(
    request_id="a",
    arrived_s=100.0,
    started_s=100.5,
    first_token_s=101.0,
    first_answer_token_s=102.0,
    ended_s=103.0,
    outcome="ok",
    prompt_tokens=20,
    cached_tokens=16,
    output_tokens=11,
    reasoning_tokens=4,
    gaps=10,
    gaps_s=2.0,
)

DEMO = Loaded(
    profile="demo",
    gpu="cpu",
    precision="q8_0",
    kind="cpu",
    bundle_digest="d" * 64,
    version="0.1.0",
    max_active_requests=8,
    max_waiting_requests=1024,
)


class Server:
    """The series of tritonserver 2.51, by family and labels; whoever registers the same ones shares them."""

    def __init__(self) -> None:
        self.series: dict[tuple[str, str], Any] = {}
        self.messages = 0
        server = self

        class MetricFamily:
            COUNTER, GAUGE, HISTOGRAM = "COUNTER", "GAUGE", "HISTOGRAM"

            def __init__(self, name: str, description: str, kind: str) -> None:
                assert "\n" not in description
                self.name, self.kind = name, kind

            def Metric(self, labels: dict[str, str], buckets: list[float] | None = None) -> Metric:  # noqa: N802
                assert (self.kind == "HISTOGRAM") is (buckets is not None)
                assert not buckets or buckets == sorted(set(buckets))
                return Metric(self, ",".join(labels.values()))

        class Metric:
            def __init__(self, family: MetricFamily, label: str) -> None:
                self.kind, self.key = family.kind, (family.name, label)
                server.series.setdefault(self.key, [] if family.kind == "HISTOGRAM" else 0)

            def increment(self, amount: float) -> None:
                assert self.kind == "GAUGE" or (self.kind == "COUNTER" and amount >= 0)
                server.messages += 1
                server.series[self.key] += amount

            def observe(self, value: float) -> None:
                assert self.kind == "HISTOGRAM"
                server.messages += 1
                server.series[self.key].append(value)

        self.MetricFamily = MetricFamily

    def __getitem__(self, name: str) -> Any:
        return self.series[f"nemotron_{name}", ""]

    def labelled(self, name: str) -> dict[str, float]:
        """The values of a family that are not 0, by label."""
        return {
            label: value for (family, label), value in self.series.items() if family == f"nemotron_{name}" and value
        }


def observe(server: Server, record: RequestRecord) -> None:
    metrics = Metrics(server, DEMO)
    metrics.update([record], IDLE, Load())


def test_an_answered_request_is_seen_in_every_latency_and_token_count() -> None:
    server = Server()
    metrics = Metrics(server, DEMO)

    metrics.update([ANSWERED], IDLE, Load())

    assert server.labelled("requests_total") == {"ok": 1}
    latencies = {
        "queue_time_seconds": 0.5,
        "time_to_first_token_seconds": 1.0,
        "time_to_first_answer_token_seconds": 2.0,
        "request_duration_seconds": 3.0,
        "time_per_output_token_seconds": 0.2,
        "inter_token_latency_seconds": 0.2,
    }
    assert {name: server[name] for name in latencies} == {name: [value] for name, value in latencies.items()}
    assert [server[f"{kind}_tokens_total"] for kind in ("prompt", "cached_prompt", "reasoning", "answer")] == [
        20,
        16,
        4,
        7,
    ]


def test_a_request_that_was_refused_does_not_make_the_server_look_fast() -> None:
    server = Server()
    metrics = Metrics(server, DEMO)

    metrics.update([RequestRecord(request_id="a", arrived_s=1.0, ended_s=1.0, outcome="rejected")], IDLE, Load())

    assert server.labelled("requests_total") == {"rejected": 1}
    assert not any(observed for observed in server.series.values() if isinstance(observed, list))


@pytest.mark.parametrize(
    ("outcome", "admitted", "waited_s"),
    [
        ("rejected", True, [30.0]),
        ("cancelled", True, [30.0]),
        ("deadline", True, [30.0]),
        ("rejected", False, []),
        ("invalid", True, []),
        ("failed", True, []),
    ],
)
def test_who_waits_in_vain_is_in_the_time_that_requests_wait(
    outcome: Outcome, admitted: bool, waited_s: list[float]
) -> None:
    server = Server()
    record = RequestRecord(request_id="a", arrived_s=1.0, ended_s=31.0, outcome=outcome, admitted=admitted)

    observe(server, record)

    assert server["queue_time_seconds"] == waited_s


def test_each_answer_of_a_request_with_several_has_the_latency_of_its_own_tokens() -> None:
    """Two of three have tokens, and the one that ends last begins last."""
    server = Server()
    record = RequestRecord(request_id="a", arrived_s=0.0, ended_s=6.0, outcome="ok", choices=3)
    record.add_tokens(21, 4.0, 6.0)
    record.add_tokens(11, 1.0, 2.0)
    record.add_tokens(0, None, None)

    observe(server, record)

    assert server["time_per_output_token_seconds"] == [0.1]
    assert server["time_to_first_token_seconds"] == [1.0]


def test_an_answer_of_one_token_has_no_time_between_tokens() -> None:
    server = Server()
    record = RequestRecord(request_id="a", arrived_s=0.0, ended_s=6.0, outcome="ok")
    record.add_tokens(1, 4.0, 4.0)

    observe(server, record)

    assert server["time_per_output_token_seconds"] == []


def test_every_series_of_a_known_label_is_there_from_the_start() -> None:
    server = Server()

    Metrics(server, DEMO)

    assert ("nemotron_requests_total", "deadline") in server.series
    assert ("nemotron_tool_calls_total", "ok") in server.series
    assert ("nemotron_answer_problems_total", "tool_choice_unsatisfied") in server.series
    assert not any(server.series.values())


def test_series_of_a_caller_are_there_as_soon_as_its_name_is() -> None:
    """A file of secrets names callers, and may name more later."""
    server, names = Server(), {"alice"}
    metrics = Metrics(server, DEMO, lambda: frozenset(names))

    def series_of(caller: str) -> set[str]:
        return {family for family, label in server.series if caller in label.split(",")}

    counters = {f"nemotron_{name}_total" for name in ("requests", "prompt_tokens", "reasoning_tokens", "answer_tokens")}
    counters |= {"nemotron_cached_prompt_tokens_total"}
    assert ("nemotron_requests_total", "throttled,alice") in server.series
    assert (series_of("alice"), series_of("bob")) == (counters, set())
    names.add("bob")
    metrics.update([], IDLE, Load())
    assert series_of("bob") == counters
    assert server.labelled("requests_total") == {}


def test_what_a_fleet_asks_of_a_server() -> None:
    """How much is queued wherever it waits, how much there is room for, which bundle it is, and whether it leaves."""
    server = Server()
    metrics = Metrics(server, DEMO)

    metrics.update(
        [],
        EngineStatistics(active_requests=8, waiting_requests=2, generated_tokens=5),
        Load(generating=8, waiting=16, kv_cache_used_ratio=0.5),
    )

    gauges = ("queued_requests", "max_active_requests", "max_waiting_requests", "draining")
    assert [server[name] for name in gauges] == [18, 8, 1024, 0]
    assert server.labelled("bundle_info") == {f"demo,cpu,q8_0,cpu,{'d' * 64},0.1.0": 1}
    metrics.update([], IDLE, Load(draining=True))
    assert [server[name] for name in gauges] == [0, 8, 1024, 1]


def test_blocks_are_served_only_where_the_kv_cache_has_some() -> None:
    with_blocks, without = Server(), Server()

    Metrics(with_blocks, replace(DEMO, kv_tokens_per_block=32, kv_blocks=900)).update([], IDLE, Load())
    Metrics(without, DEMO).update([], IDLE, Load())

    assert (with_blocks["kv_cache_tokens_per_block"], with_blocks["kv_cache_blocks"]) == (32, 900)
    assert not [name for name, _ in without.series if "block" in name]


def test_the_info_of_a_bundle_that_was_replaced_goes_to_0() -> None:
    server = Server()
    old, new = Metrics(server, DEMO), Metrics(server, replace(DEMO, precision="bf16"))
    for metrics in (old, new):
        metrics.update([], IDLE, Load())

    old.close()

    assert [labels.split(",")[2] for labels in server.labelled("bundle_info")] == ["bf16"]
    assert server["max_active_requests"] == 8


def test_the_known_problems_are_those_that_the_client_package_documents() -> None:
    documented = re.findall(r"^    (\w+)  ", Problem.__doc__ or "", re.MULTILINE)

    assert sorted(metric_families.PROBLEM_CODES) == sorted(documented)


@pytest.mark.parametrize(
    ("passed_on", "codes", "expected"),
    [
        (2, [], {"ok": 2}),
        (2, ["unknown_function f"], {"ok": 1, "unknown_function": 1}),
        (1, ["unknown_function f", "invalid_arguments f"], {"unknown_function": 1}),
        (2, ["unknown_function f", "invalid_arguments g"], {"unknown_function": 1, "invalid_arguments": 1}),
        (2, ["unknown_function f"] * 2, {"unknown_function": 2}),
        (1, ["truncated_tool_call "], {"ok": 1, "truncated_tool_call": 1}),
        (1, ["surplus_tool_call g"], {"ok": 1, "surplus_tool_call": 1}),
        (0, ["tool_choice_unsatisfied f"], {}),
    ],
)
def test_every_call_has_one_outcome(passed_on: int, codes: list[str], expected: dict[str, int]) -> None:
    problems = [Problem(code=code, function=function) for code, _, function in (text.partition(" ") for text in codes)]

    outcomes = call_outcomes(passed_on, problems)

    assert outcomes == expected


def test_only_what_changed_is_written() -> None:
    server = Server()
    metrics = Metrics(server, DEMO)
    busy = EngineStatistics(active_requests=2, waiting_requests=0, generated_tokens=50)
    metrics.update([], busy, Load(generating=2, kv_cache_used_ratio=0.5))
    server.messages = 0

    metrics.update([], busy, Load(generating=2, kv_cache_used_ratio=0.5))
    metrics.update(
        [RequestRecord(request_id="a", outcome="rejected")] * 1000, busy, Load(generating=3, kv_cache_used_ratio=0.5)
    )

    # One for a thousand requests, one for the gauge.
    assert server.messages == 2
    assert server.labelled("requests_total") == {"rejected": 1000}


def test_histograms_see_a_sample_of_very_many_requests_and_counters_all_of_them() -> None:
    server = Server()
    metrics = Metrics(server, DEMO)

    seen = []
    for ended in (60, 0, 500, 1, 500):
        records = [
            RequestRecord(request_id="a", arrived_s=0.0, ended_s=float(duration_s), outcome="ok")
            for duration_s in range(ended)
        ]
        metrics.update(records, IDLE, Load())
        seen.append(len(server["request_duration_seconds"]))

    # All of 60; as many as there is room for again; then 2 with each update.
    assert seen == [60, 60, 104, 105, 108]
    assert server.labelled("requests_total") == {"ok": 1061}
    # A sample of all of them, not the first ones.
    assert max(server["request_duration_seconds"][60:104]) > 200


def test_two_loads_of_the_model_add_up_and_each_takes_its_part_away_again() -> None:
    server = Server()
    old, new = Metrics(server, DEMO), Metrics(server, DEMO)
    for metrics, ratio in ((old, 0.7), (new, 0.1)):
        metrics.update(
            [],
            EngineStatistics(active_requests=1, waiting_requests=0, generated_tokens=5),
            Load(generating=1, kv_cache_used_ratio=0.5),
        )
        metrics.update(
            [],
            EngineStatistics(active_requests=1, waiting_requests=0, generated_tokens=9),
            Load(generating=3, kv_cache_used_ratio=ratio),
        )

    assert (server["active_requests"], server["engine_healthy"]) == (6, 2)
    old.close()

    assert (server["active_requests"], server["engine_healthy"]) == (3, 1)
    assert server["engine_generated_tokens_total"] == 18
    assert server["kv_cache_used_ratio"] == pytest.approx(0.1, abs=0.001)
    new.close()
    # Exactly: a gauge that ends at 1e-17 is never 0 again.
    assert server["kv_cache_used_ratio"] == 0


def test_an_engine_that_counts_anew_does_not_take_its_counter_back() -> None:
    server = Server()
    metrics = Metrics(server, DEMO)

    for tokens in (50, 3, 10):
        metrics.update([], EngineStatistics(active_requests=0, waiting_requests=0, generated_tokens=tokens), Load())

    assert server["engine_generated_tokens_total"] == 57


def test_a_broken_engine_shows() -> None:
    server = Server()
    metrics = Metrics(server, DEMO)
    metrics.update([], IDLE, Load())

    broken = EngineStatistics(active_requests=0, waiting_requests=0, generated_tokens=0, problem="out of memory")
    metrics.update([], broken, Load())

    assert server["engine_healthy"] == 0

"""What Prometheus reads about requests and the engine, on Triton's metrics endpoint.

Every series whose labels are known exists from the start, at 0: a rate needs a first value. Each write is a message to
tritonserver (about 30 µs), so what can be added up is written with the next update, and only if it changed. What
histograms observe cannot be added up; where more than 20 requests a second end for long, they get a random sample.

Gauges are moved by differences, never set, and returned to 0 at the end: when a model is loaded anew, tritonserver
keeps its series, and for a while both loads write to them; their sum is right.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence, Set
from typing import Any, TypeAlias

from nemotron_client.events import Problem
from nemotron_triton.engine.interface import EngineStatistics
from nemotron_triton.serving import metric_families as families
from nemotron_triton.serving.caller_labels import CallerLabels
from nemotron_triton.serving.loaded import Loaded
from nemotron_triton.serving.metric_families import Family
from nemotron_triton.serving.record import RequestRecord
from nemotron_triton.serving.requests import Load

# A family, and the values of its labels.
_Series: TypeAlias = tuple[Family, tuple[str, ...]]
# Differences of multiples of 1/1024 add up without rounding errors.
_RATIO_STEPS = 1024
# Requests that histograms observe: so many at once, and so many more with each update. Counters count all of them.
_OBSERVED_AT_ONCE, _OBSERVED_PER_UPDATE = 100, 2


class Metrics:
    """The metrics of one loaded model, registered with Triton. Not for several threads at once.

    *callers* gives the names that are known without a request of theirs.
    """

    def __init__(self, pb_utils: Any, loaded: Loaded, callers: Callable[[], Set[str]] = frozenset) -> None:
        self._pb = pb_utils
        # A family must outlive its metrics, so both are kept.
        self._families: dict[Family, Any] = {}
        self._metrics: dict[_Series, Any] = {}
        for family in families.FAMILIES:
            for values in family.known:
                self._metric((family, values))
        self._known_callers = callers
        self._begun_callers: set[str] = set()
        self._begin_callers()
        self._callers = CallerLabels()
        self._unwritten: defaultdict[_Series, float] = defaultdict(float)
        self._observable = _OBSERVED_AT_ONCE
        self._levels: dict[_Series, float] = {}
        self._level(families.BUNDLE_INFO, 1, *loaded.identity(families.BUNDLE_INFO.labels))
        self._level(families.MAX_ACTIVE, loaded.max_active_requests)
        self._level(families.MAX_WAITING, loaded.max_waiting_requests)
        if loaded.kv_tokens_per_block and loaded.kv_blocks:
            self._level(families.KV_TOKENS_PER_BLOCK, loaded.kv_tokens_per_block)
            self._level(families.KV_BLOCKS, loaded.kv_blocks)

    def update(self, ended: Sequence[RequestRecord], statistics: EngineStatistics, load: Load) -> None:
        """Write what became of the requests that *ended*, and the current state of the engine and of the server."""
        self._begin_callers()
        for record in ended:
            self._count(record)
        observed = random.sample(ended, min(len(ended), self._observable))
        self._observable = min(_OBSERVED_AT_ONCE, self._observable - len(observed) + _OBSERVED_PER_UPDATE)
        for record in observed:
            self._observe(record)
        self._level(families.ACTIVE, load.generating)
        self._level(families.WAITING, load.waiting)
        self._level(families.QUEUED, load.waiting + statistics.waiting_requests)
        self._level(families.DRAINING, load.draining)
        self._level(families.ENGINE_HEALTHY, statistics.problem is None)
        self._level(families.ENGINE_ACTIVE, statistics.active_requests)
        self._level(families.ENGINE_WAITING, statistics.waiting_requests)
        self._level(families.ENGINE_TOKENS, statistics.generated_tokens)
        self._level(families.KV_CACHE_USED, round(load.kv_cache_used_ratio * _RATIO_STEPS) / _RATIO_STEPS)
        self._write()

    def close(self) -> None:
        """Write the rest, and take this load's part out of the gauges."""
        for family, values in tuple(self._levels):
            if family.kind == "GAUGE":
                self._level(family, 0, *values)
        self._write()

    def _begin_callers(self) -> None:
        """Begin the series of callers at 0 who were not known before."""
        for caller in self._known_callers() - self._begun_callers:
            self._begun_callers.add(caller)
            for family in families.FAMILIES:
                for values in family.known_of(caller):
                    self._metric((family, values))

    def _count(self, record: RequestRecord) -> None:
        caller = self._callers.label(record.caller)
        self._add(families.REQUESTS, 1, record.outcome, caller)
        self._add(families.PROMPT_TOKENS, record.prompt_tokens, caller)
        self._add(families.CACHED_PROMPT_TOKENS, record.cached_tokens or 0, caller)
        self._add(families.REASONING_TOKENS, record.reasoning_tokens, caller)
        self._add(families.ANSWER_TOKENS, record.output_tokens - record.reasoning_tokens, caller)
        self._add(families.REPAIRS, record.repairs)
        for outcome, calls in call_outcomes(record.tool_calls, record.problems).items():
            self._add(families.TOOL_CALLS, calls, outcome)
        for problem in record.problems:
            self._add(families.PROBLEMS, 1, problem.code)

    def _observe(self, record: RequestRecord) -> None:
        latencies = {
            families.QUEUE_TIME: record.queue_s,
            families.TIME_TO_FIRST_TOKEN: record.since_arrival(record.first_token_s),
            families.TIME_TO_FIRST_ANSWER_TOKEN: record.since_arrival(record.first_answer_token_s),
        }
        if record.outcome == "ok":
            # Refused and broken-off requests end early: they would make the server look fast.
            latencies[families.REQUEST_DURATION] = record.since_arrival(record.ended_s)
            latencies[families.TIME_PER_OUTPUT_TOKEN] = record.time_per_output_token_s
            latencies[families.INTER_TOKEN_LATENCY] = record.time_per_output_token_s
        for family, seconds in latencies.items():
            if seconds is not None:
                self._metric((family, ())).observe(max(seconds, 0.0))

    def _metric(self, series: _Series) -> Any:
        if series not in self._metrics:
            family, values = series
            if family not in self._families:
                self._families[family] = self._pb.MetricFamily(
                    name=family.name,
                    description=family.about,
                    kind=getattr(self._pb.MetricFamily, family.kind),
                )
            self._metrics[series] = self._families[family].Metric(
                # To Prometheus a label without a value is none.
                labels={label: value for label, value in zip(family.labels, values, strict=True) if value},
                **({"buckets": list(family.buckets)} if family.buckets else {}),
            )
        return self._metrics[series]

    def _add(self, family: Family, amount: float, *values: str) -> None:
        self._unwritten[family, values] += amount

    def _level(self, family: Family, level: float, *values: str) -> None:
        self._add(family, level - self._levels.get((family, values), 0), *values)
        self._levels[family, values] = level

    def _write(self) -> None:
        while self._unwritten:
            series, amount = self._unwritten.popitem()
            # Triton refuses to decrease a counter; an engine's would go back if the engine started anew.
            if amount > 0 or (amount and series[0].kind == "GAUGE"):
                self._metric(series).increment(amount)


def call_outcomes(passed_on: int, problems: Sequence[Problem]) -> Counter[str]:
    """The number of calls by outcome, each counted once, in an answer with *passed_on* calls and *problems*."""
    outcomes: Counter[str] = Counter()
    before: Problem | None = None
    for problem in problems:
        # The parser reports an unknown function first; bad arguments right behind it are of the same call.
        unknown = Problem(code="unknown_function", function=problem.function)
        if problem.code in families.OF_CALLS and not (problem.code == "invalid_arguments" and before == unknown):
            outcomes[problem.code] += 1
        before = problem
    outcomes["ok"] = max(passed_on - sum(outcomes[code] for code in families.PASSED_ON), 0)
    return +outcomes

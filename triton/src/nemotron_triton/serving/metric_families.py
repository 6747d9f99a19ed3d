"""The metrics that are served, as data: names, types, HELP lines, labels and buckets. Counts nothing.

Labels have few values; those of a request, such as its id, are the log's and the traces' business.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from nemotron_triton.serving.record import Outcome


@dataclass(frozen=True, eq=False)
class Family:
    """One metric: its name, what its HELP line says, and the names of its `labels`.

    `values` has, for each label, those that are known beforehand: their series exist from the start, at 0. Series of
    other values, and of a metric that is not for every engine (`everywhere`), are made when they are first written.
    """

    name: str
    about: str
    labels: tuple[str, ...] = ()
    values: tuple[tuple[str, ...], ...] = ()
    buckets: tuple[float, ...] = ()
    everywhere: bool = True

    @property
    def known(self) -> Iterator[tuple[str, ...]]:
        """The values of the labels of each series that is there from the start."""
        if not self.everywhere or len(self.values) != len(self.labels):
            return iter(())
        return itertools.product(*self.values)

    def known_of(self, caller: str) -> Iterator[tuple[str, ...]]:
        """The same of the series of *caller*, none where callers are not told apart."""
        if self.labels[-1:] != _CALLER:
            return iter(())
        return itertools.product(*self.values[:-1], (caller,))

    @property
    def kind(self) -> str:
        """Its type: by Prometheus' convention the name of a counter, and of nothing else, ends in `_total`."""
        return "HISTOGRAM" if self.buckets else "COUNTER" if self.name.endswith("_total") else "GAUGE"


# The codes of problems with calls that are passed on all the same, and with those that stay in the text.
PASSED_ON = ("unknown_function", "invalid_arguments")
LEFT_OUT = ("surplus_tool_call", "truncated_tool_call", "invalid_tool_call", "missing_name")
OF_CALLS = PASSED_ON + LEFT_OUT
PROBLEM_CODES = (*OF_CALLS, "tool_choice_unsatisfied", "invalid_past_arguments")

# The label of who called, and what is known of it beforehand: nobody has a name where no secrets are asked for.
_CALLER = ("caller",)
_NOBODY = ("",)

REQUESTS = Family(
    "nemotron_requests_total",
    "Requests that are over, by outcome and caller",
    ("outcome", *_CALLER),
    (get_args(Outcome), _NOBODY),
)
TIME_TO_FIRST_TOKEN = Family(
    "nemotron_time_to_first_token_seconds",
    "From a request's arrival to its first token, thinking included",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
TIME_TO_FIRST_ANSWER_TOKEN = Family(
    "nemotron_time_to_first_answer_token_seconds",
    "From a request's arrival to its first token after the thinking",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
)
_TOKEN_BUCKETS = (0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1)
TIME_PER_OUTPUT_TOKEN = Family(
    "nemotron_time_per_output_token_seconds",
    "Mean time between two tokens of one answer, its first token aside; one observation for each answered request",
    buckets=_TOKEN_BUCKETS,
)
# Kept for one release, the first after 0.1.0: others mean every single gap by this name.
INTER_TOKEN_LATENCY = Family(
    "nemotron_inter_token_latency_seconds",
    "Deprecated, kept for one release: nemotron_time_per_output_token_seconds under its old name",
    buckets=_TOKEN_BUCKETS,
)
REQUEST_DURATION = Family(
    "nemotron_request_duration_seconds",
    "From a request's arrival to its end, of answered requests",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600),
)
QUEUE_TIME = Family(
    "nemotron_queue_time_seconds",
    "From a request's arrival to when the engine was asked, or to its end where that never came",
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
PROMPT_TOKENS = Family(
    "nemotron_prompt_tokens_total",
    "Tokens in the prompts of requests that are over, answered or not",
    _CALLER,
    (_NOBODY,),
)
REASONING_TOKENS = Family(
    "nemotron_reasoning_tokens_total", "Tokens of thinking in complete answers", _CALLER, (_NOBODY,)
)
ANSWER_TOKENS = Family(
    "nemotron_answer_tokens_total", "Tokens after the thinking in complete answers", _CALLER, (_NOBODY,)
)
CACHED_PROMPT_TOKENS = Family(
    "nemotron_cached_prompt_tokens_total",
    "Those of the prompt tokens that were in the KV cache from earlier requests, where the engine tells",
    _CALLER,
    (_NOBODY,),
)
TOOL_CALLS = Family(
    "nemotron_tool_calls_total",
    "Tool calls that the model began, by outcome: ok, or what was wrong first",
    ("outcome",),
    (("ok", *OF_CALLS),),
)
PROBLEMS = Family(
    "nemotron_answer_problems_total", "Problems with the model's answers, by code", ("code",), (PROBLEM_CODES,)
)
REPAIRS = Family("nemotron_parse_repairs_total", "Tool calls whose JSON had to be repaired to be read")
ACTIVE = Family("nemotron_active_requests", "Answers that the engine was asked for and has not ended")
WAITING = Family("nemotron_waiting_requests", "Requests that wait until the engine is asked")
QUEUED = Family(
    "nemotron_queued_requests",
    "All that waits: nemotron_waiting_requests and nemotron_engine_waiting_requests together",
)
MAX_ACTIVE = Family("nemotron_max_active_requests", "Answers that the engine generates at once; more of them wait")
MAX_WAITING = Family(
    "nemotron_max_waiting_requests", "Requests that may wait until the engine is asked; more of them are refused"
)
BUNDLE_INFO = Family(
    "nemotron_bundle_info",
    "Loads of the bundle that the labels describe: 1, 0 for one that was replaced",
    ("profile", "gpu", "precision", "kind", "bundle_digest", "version"),
)
DRAINING = Family("nemotron_draining", "Whether the server is leaving, and must get no more requests: 1 or 0")
ENGINE_HEALTHY = Family("nemotron_engine_healthy", "Loaded engines that can generate: 1, or 0 when it is broken")
ENGINE_ACTIVE = Family("nemotron_engine_active_requests", "Answers the engine is generating")
ENGINE_WAITING = Family("nemotron_engine_waiting_requests", "Answers that wait inside the engine")
ENGINE_TOKENS = Family("nemotron_engine_generated_tokens_total", "Tokens the engine generated, cancelled ones too")
KV_CACHE_USED = Family(
    "nemotron_kv_cache_used_ratio", "Part of the KV cache that the prompts and answers in progress take, from 0 to 1"
)
KV_TOKENS_PER_BLOCK = Family(
    "nemotron_kv_cache_tokens_per_block", "Tokens in a block of the KV cache, where it has blocks", everywhere=False
)
KV_BLOCKS = Family(
    "nemotron_kv_cache_blocks", "Blocks of the KV cache as the build planned it, where it has blocks", everywhere=False
)

FAMILIES = tuple(family for family in globals().copy().values() if isinstance(family, Family))

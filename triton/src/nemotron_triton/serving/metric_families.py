"""The metrics that are served, as data: names, types, HELP lines, labels and buckets. Counts nothing.

Labels have few values, all known here; those of a request, such as its id, are the log's and the traces' business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from nemotron_triton.serving.record import Outcome


@dataclass(frozen=True, kw_only=True)
class Family:
    """One metric: its name, what the HELP line says of it, and the values of its one label, if it has one."""

    name: str
    about: str
    kind: Literal["COUNTER", "GAUGE", "HISTOGRAM"]
    label: str = ""
    values: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


def _counter(name: str, about: str, label: str = "", values: tuple[str, ...] = ()) -> Family:
    return Family(name=name, about=about, kind="COUNTER", label=label, values=values)


def _gauge(name: str, about: str) -> Family:
    return Family(name=name, about=about, kind="GAUGE")


def _histogram(name: str, about: str, *buckets: float) -> Family:
    return Family(name=name, about=about, kind="HISTOGRAM", buckets=buckets)


# What becomes of a call that the model began, by the code of its problem; those that are not passed on are text.
PASSED_ON = ("unknown_function", "invalid_arguments")
LEFT_OUT = ("surplus_tool_call", "truncated_tool_call", "invalid_tool_call", "missing_name")
PROBLEM_CODES = (*PASSED_ON, *LEFT_OUT, "tool_choice_unsatisfied")

REQUESTS = _counter("nemotron_requests_total", "Requests that are over, by outcome", "outcome", get_args(Outcome))
TIME_TO_FIRST_TOKEN = _histogram(
    "nemotron_time_to_first_token_seconds",
    "From a request's arrival to its first token, thinking included",
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
TIME_TO_FIRST_ANSWER_TOKEN = _histogram(
    "nemotron_time_to_first_answer_token_seconds",
    "From a request's arrival to its first token after the thinking",
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
)
INTER_TOKEN_LATENCY = _histogram(
    "nemotron_inter_token_latency_seconds",
    "Mean time between two tokens of one answer; one observation for each answered request, not for each token",
    *(0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1),
)
REQUEST_DURATION = _histogram(
    "nemotron_request_duration_seconds",
    "From a request's arrival to its end, of answered requests",
    *(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600),
)
QUEUE_TIME = _histogram(
    "nemotron_queue_time_seconds",
    "From a request's arrival to when the engine was asked, or to its end where that never came",
    *(0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
PROMPT_TOKENS = _counter(
    "nemotron_prompt_tokens_total", "Tokens in the prompts of requests that are over, answered or not"
)
REASONING_TOKENS = _counter("nemotron_reasoning_tokens_total", "Tokens of thinking in complete answers")
ANSWER_TOKENS = _counter("nemotron_answer_tokens_total", "Tokens after the thinking in complete answers")
TOOL_CALLS = _counter(
    "nemotron_tool_calls_total",
    "Tool calls that the model began, by outcome: ok, or what was wrong first",
    "outcome",
    ("ok", *PASSED_ON, *LEFT_OUT),
)
PROBLEMS = _counter(
    "nemotron_answer_problems_total", "Problems with the model's answers, by code", "code", PROBLEM_CODES
)
REPAIRS = _counter("nemotron_parse_repairs_total", "Tool calls whose JSON had to be repaired to be read")
ACTIVE = _gauge("nemotron_active_requests", "Answers that the engine was asked for and has not ended")
WAITING = _gauge("nemotron_waiting_requests", "Requests that wait until the engine is asked")
ENGINE_HEALTHY = _gauge("nemotron_engine_healthy", "Loaded engines that can generate: 1, or 0 when it is broken")
ENGINE_ACTIVE = _gauge("nemotron_engine_active_requests", "Answers the engine is generating")
ENGINE_WAITING = _gauge("nemotron_engine_waiting_requests", "Answers that wait inside the engine")
ENGINE_TOKENS = _counter("nemotron_engine_generated_tokens_total", "Tokens the engine generated, cancelled ones too")
KV_CACHE_USED = _gauge(
    "nemotron_kv_cache_used_ratio", "Part of the KV cache that the prompts and answers in progress take, from 0 to 1"
)

FAMILIES = (
    *(REQUESTS, TIME_TO_FIRST_TOKEN, TIME_TO_FIRST_ANSWER_TOKEN, INTER_TOKEN_LATENCY, REQUEST_DURATION, QUEUE_TIME),
    *(PROMPT_TOKENS, REASONING_TOKENS, ANSWER_TOKENS, TOOL_CALLS, PROBLEMS, REPAIRS),
    *(ACTIVE, WAITING, ENGINE_HEALTHY, ENGINE_ACTIVE, ENGINE_WAITING, ENGINE_TOKENS, KV_CACHE_USED),
)

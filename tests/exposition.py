"""Checks of Prometheus metrics: that their text follows the conventions, and that queries ask for what exists."""

from __future__ import annotations

import re
from collections.abc import Iterator

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

PREFIX = "nemotron_"
# Those with few values, all known beforehand.
LABELS = {"outcome", "code", "le"}
_UNITS = re.compile(r"_(ms|us|ns|msec|milliseconds|microseconds|minutes|kb|mb|percent)(_|$)")
# A query without what is in quotes, braces and brackets and without label lists; then names that nothing is called by.
_NOT_NAMES = re.compile(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]|\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)')
_NAME = re.compile(r"\b[a-zA-Z_:][a-zA-Z0-9_:]*\b(?!\s*\()")
_WORDS = {"and", "or", "unless", "offset", "bool", "by", "without", "inf", "nan"}
# A quotation within braces may hold a brace.
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')


def read(text: str) -> dict[str, Metric]:
    """The metrics in an exposition, by the name in their TYPE line; `ValueError` when it is malformed."""
    return {
        metric.name + "_total" * (metric.type == "counter" and f"# TYPE {metric.name}_total " in text): metric
        for metric in text_string_to_metric_families(text)
    }


def samples(text: str) -> dict[str, float]:
    """Every series of ours and its value, by name and labels as they are written."""
    lines = (line for line in text.splitlines() if line.startswith(PREFIX))
    return {series: float(value) for series, _, value in (line.rpartition(" ") for line in lines)}


def names(text: str) -> set[str]:
    """What can be queried, as it is written: the parser gives every counter the ending that Triton's own lack."""
    return {re.split(r"[{ ]", line, maxsplit=1)[0] for line in text.splitlines() if line[:1] not in ("", "#")}


def complaints(text: str) -> Iterator[str]:
    """What is wrong with our metrics in an exposition."""
    for name, metric in read(text).items():
        if not name.startswith(PREFIX):
            continue
        if not metric.documentation.strip():
            yield f"{name} has no HELP"
        if metric.type not in ("counter", "gauge", "histogram"):
            yield f"{name} is of type {metric.type}"
        if (metric.type == "counter") is not name.endswith("_total"):
            yield f"{name} is a {metric.type}: counters end in _total, and nothing else does"
        if _UNITS.search(name):
            yield f"{name} is not in base units"
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or re.search(r"_(count|sum|bucket)$", name):
            yield f"{name} is an odd name"
        for label in {label for sample in metric.samples for label in sample.labels} - LABELS:
            yield f"{name} has the label {label}, whose values nobody knows beforehand"
        if metric.type == "histogram":
            yield from _histogram_complaints(name, metric)


def unknown(query: str, known: set[str]) -> set[str]:
    """The metrics that a PromQL *query* asks for and that are not among the *known* names."""
    bare = _NOT_NAMES.sub(" ", _QUOTED.sub('""', query))
    return set(_NAME.findall(bare)) - _WORDS - known


def _histogram_complaints(name: str, metric: Metric) -> Iterator[str]:
    values = {sample.name.removeprefix(name): sample.value for sample in metric.samples if "le" not in sample.labels}
    buckets = [(float(sample.labels["le"]), sample.value) for sample in metric.samples if "le" in sample.labels]
    bounds, counts = [bound for bound, _ in buckets], [count for _, count in buckets]
    if bounds != sorted(set(bounds)) or not bounds or bounds[-1] != float("inf"):
        yield f"{name} has the buckets {bounds}; they must ascend to +Inf"
    if counts != sorted(counts) or not counts or counts[-1] != values.get("_count"):
        yield f"{name} counts {counts} in its buckets, and {values.get('_count')} in all"
    if not values.get("_sum", -1.0) >= 0:
        yield f"{name} has the sum {values.get('_sum')}"

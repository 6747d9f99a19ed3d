"""A server's metrics as text, with checks that they follow the conventions and that queries name series that exist."""

from __future__ import annotations

import re
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from nemotron_triton.server import ServeOptions

PREFIX = "nemotron_"
# Labels with few values, all known beforehand.
LABELS = {"outcome", "code", "caller", "le", "profile", "gpu", "precision", "kind", "bundle_digest", "version"}
_UNITS = re.compile(r"_(ms|us|ns|msec|milliseconds|microseconds|minutes|kb|mb|percent)(_|$)")
# A query without what is in quotes, braces and brackets and without label lists; then names that nothing is called by.
_NOT_NAMES = re.compile(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]|\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)')
_NAME = re.compile(r"\b[a-zA-Z_:][a-zA-Z0-9_:]*\b(?!\s*\()")
_WORDS = {"and", "or", "unless", "offset", "bool", "by", "without", "inf", "nan"}
# A quotation within braces may hold a brace.
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_SELECTOR = re.compile(r'\b([a-zA-Z_:][a-zA-Z0-9_:]*)\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\}')
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"')
_BY = re.compile(r"\bby\s*\(([^)]*)\)")
_LABEL_VALUES = re.compile(r"label_values\(\s*(\w+(?:\{[^}]*\})?)\s*,\s*(\w+)\s*\)")
# Prometheus adds them to what it scrapes, the last one in Kubernetes.
_ADDED = {"instance", "job", "namespace"}

# The labels of every series, by name.
Series = Mapping[str, Sequence[Mapping[str, str]]]


def fetch(options: ServeOptions) -> str:
    """The text of the metrics endpoint of a server."""
    url = f"http://127.0.0.1:{options.metrics_port}/metrics"
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10) as page:
        return str(page.read().decode())


def metric(options: ServeOptions, name: str) -> float:
    """The value of one of our series at a server; *name* is without the prefix."""
    return samples(fetch(options))[PREFIX + name]


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


def series(text: str) -> dict[str, list[Mapping[str, str]]]:
    """The labels of every series in an exposition, by name."""
    labels: defaultdict[str, list[Mapping[str, str]]] = defaultdict(list)
    for line in text.splitlines():
        if line[:1] not in ("", "#"):
            # As written: the parser appends a suffix to every counter, which Triton's own lack.
            name, _, rest = line.rpartition(" ")[0].partition("{")
            labels[name].append(dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', rest)))
    return dict(labels)


def complaints(text: str) -> Iterator[str]:
    """The mistakes in our metrics in an exposition."""
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


def unknown(query: str, known: Series) -> set[str]:
    """The series and labels in a PromQL *query*, or in a dashboard's `label_values`, that are not among *known*."""
    if listed := _LABEL_VALUES.fullmatch(query):
        missing = unknown(listed[1], known)
        return missing or _unknown_labels(_names(listed[1]).pop(), [listed[2]], known)
    missing = _names(query) - set(known)
    for name, matchers in _SELECTOR.findall(query):
        for label, operator, value in _MATCHER.findall(matchers):
            values = {labels.get(label) for labels in known.get(name, ())} - {None}
            asked = value.split("|") if operator in ("=~", "!~") else [value]
            # A variable of the dashboard has the values that it was given.
            if name in known and label not in _ADDED and not (value.startswith("$") and values):
                missing |= {f'{name}{{{label}="{text}"}}' for text in asked if text not in values}
    for by in _BY.finditer(query):
        for name in _names(_behind(query[by.end() :])) & set(known):
            missing |= _unknown_labels(name, re.findall(r"\w+", by[1]), known)
    return missing


def _unknown_labels(name: str, labels: Sequence[str], known: Series) -> set[str]:
    return {
        f"{name}{{{label}}}" for label in labels if label not in _ADDED and not any(label in of for of in known[name])
    }


def _names(query: str) -> set[str]:
    """The metrics that a query names."""
    return set(_NAME.findall(_NOT_NAMES.sub(" ", _QUOTED.sub('""', query)))) - _WORDS


def _behind(text: str) -> str:
    """The parenthesis at the start of *text*, with the operand of an aggregation."""
    depth = 0
    for at, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if character == ")" and not depth:
            return text[:at]
    return text


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

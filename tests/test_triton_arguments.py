"""Arguments that break the schema of their function are a problem; a schema that cannot be checked is none."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from nemotron_client.events import Problem, ToolCall
from nemotron_triton.serving.arguments import misfits

INTEGER = {"type": "object", "properties": {"x": {"type": "integer", "maximum": 5}}, "required": ["x"]}


def problems(schema: Any, *arguments: str) -> list[Problem]:
    calls = [ToolCall(index=i, id=f"c{i}", name="f", arguments_json=text) for i, text in enumerate(arguments)]
    return list(misfits(calls, {"f": schema}))


def test_each_call_whose_arguments_break_the_schema_is_named() -> None:
    misfit = Problem(code="invalid_arguments", function="f")

    assert problems(INTEGER, '{"x": 5}') == []
    assert problems(INTEGER, '{"x": 6}', "{}", '{"x": 1}') == [misfit, misfit]


@pytest.mark.parametrize(
    "schema",
    [
        None,
        {"type": "int"},
        {"properties": {"x": {"type": "integer", "nullable": True}}},
        {"properties": {"x": {"$ref": "https://example.com/s"}}},
    ],
)
def test_a_schema_that_cannot_be_checked_is_not_looked_at(schema: Any) -> None:
    assert problems(schema, '{"x": null}') == []


@pytest.mark.parametrize("arguments", ["[1]", '{"x": ' + "1" * 5000 + "}"])
def test_what_is_no_object_or_cannot_be_read_is_not_looked_at(arguments: str) -> None:
    assert problems(INTEGER, arguments) == []


def test_a_pattern_that_takes_years_takes_seconds_for_all_calls_together() -> None:
    schema = {"properties": {"x": {"items": {"pattern": "(?=a*b)"}}}}
    hostile = json.dumps({"x": ["a" * 6000] * 50})
    begin_s = time.monotonic()

    problems(schema, *[hostile] * 10)

    assert time.monotonic() - begin_s < 10

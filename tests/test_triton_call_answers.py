"""Guided calls of the demo model, on a real engine: they end, and their arguments fit the schema."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from call_answers import Answers, calls_of
from call_schemas import BOUNDED_SCHEMAS, CALL_SCHEMAS, of
from conftest import ROOT
from cpu_engine import running
from nemotron_client.events import Problem, ReasoningDelta
from nemotron_triton.bundle import Bundle

_log = logging.getLogger(__name__)
DEMO_TOOLS = [tool["function"] for tool in json.loads((ROOT / "build/demo/tools.json").read_text())]
MODELS = ["llama-nemotron-nano-4b-v1.1", "nemotron-3-nano-4b"]
NAMED = '{"type": "function", "function": {"name": "f"}}'
QUESTION = "Call f for me, with 12 and on."


def broken(bundle: Bundle, model: str, keywords: Iterable[str], seeds: Iterable[int]) -> list[str]:
    """The forced calls of a function with each schema, one for each seed, that do not end or do not fit."""

    async def ask() -> list[str]:
        found = []
        async with running(bundle) as engine:
            answers = Answers(bundle, engine, model)
            for keyword in keywords:
                schema = CALL_SCHEMAS[keyword].schema
                function = {"name": "f", "parameters": schema}
                for seed in seeds:
                    events = await answers.events(
                        QUESTION, [function], seed=seed, thinking=False, tool_choice=NAMED, temperature=1.0
                    )
                    calls, finish = calls_of(events)
                    fit = (Draft202012Validator(schema).is_valid(json.loads(call.arguments_json)) for call in calls)
                    if finish.reason != "tool_calls" or finish.problems or not all(fit):
                        found.append(f"{keyword}, seed {seed}: {finish.reason}, {calls}, {finish.problems}")
        return found

    return asyncio.run(ask())


def unanswered(bundle: Bundle, seeds: Iterable[int]) -> list[str]:
    """The answers of the demo that end without a call, thinking on."""

    async def ask() -> list[str]:
        found = []
        async with running(bundle) as engine:
            answers = Answers(bundle, engine, MODELS[0])
            for seed in seeds:
                events = await answers.events("tip?", DEMO_TOOLS, seed=seed, thinking=True, tool_choice="required")
                calls, finish = calls_of(events)
                if finish.reason != "tool_calls" or finish.problems or not calls:
                    found.append(f"seed {seed}: {finish.reason}, {calls}, {finish.problems}")
        return found

    return asyncio.run(ask())


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_forced_calls_fit_their_schema(bundle: Bundle, model: str) -> None:
    some = ["bounds of a number", "pattern and maxLength", "minLength", "$ref to itself", "oneOf", "required"]

    assert broken(bundle, model, some, [1]) == []


@pytest.mark.slow
def test_forced_calls_of_the_demo_end(bundle: Bundle) -> None:
    # Without limits on numbers, these ran to the token limit.
    assert unanswered(bundle, [3, 8]) == []


@pytest.mark.guides
@pytest.mark.parametrize("model", MODELS)
def test_many_forced_calls_fit_their_schema(bundle: Bundle, model: str) -> None:
    wrong = broken(bundle, model, BOUNDED_SCHEMAS, range(10))

    number = 10 * len(BOUNDED_SCHEMAS)
    _log.info("%s: %d of %d forced calls are complete and fit", model, number - len(wrong), number)
    assert wrong == []


@pytest.mark.guides
def test_many_forced_calls_of_the_demo_end(bundle: Bundle) -> None:
    wrong = unanswered(bundle, range(60))

    _log.info("the demo: %d of 60 forced calls are complete", 60 - len(wrong))
    assert wrong == []


TIP = of({"bill_total": {"type": "integer", "minimum": 700, "maximum": 800}, "tip_percentage": {"type": "integer"}})


@pytest.mark.slow
@pytest.mark.parametrize("strict", [True, False])
def test_a_strict_function_is_followed_where_no_call_is_forced(bundle: Bundle, strict: bool) -> None:
    function = DEMO_TOOLS[0] | {"parameters": TIP, "strict": strict}
    question = "My bill is $100. What will be the amount for 18% tip?"

    async def ask() -> list[Any]:
        async with running(bundle) as engine:
            answers = Answers(bundle, engine, MODELS[0])
            return [await answers.events(text, [function], seed=1, thinking=True) for text in (question, "Hello!")]

    asked, greeted = asyncio.run(ask())

    (call,), finish = calls_of(asked)
    assert any(isinstance(event, ReasoningDelta) for event in asked)
    assert Draft202012Validator(TIP).is_valid(json.loads(call.arguments_json)) is strict
    misfit = Problem(code="invalid_arguments", function=DEMO_TOOLS[0]["name"])
    assert finish.problems == (() if strict else (misfit,))
    assert calls_of(greeted)[0] == []

"""Tool calls through a real tritonserver: how many, which, and when they must."""

from __future__ import annotations

import json
from typing import Any

import pytest

from conftest import ROOT
from exposition import metric
from nemotron_client import Client, RequestRejected
from nemotron_triton.server import ServeOptions
from patience import wait_until

TOOLS = json.loads((ROOT / "build/demo/tools.json").read_text())
NAMES = [tool["function"]["name"] for tool in TOOLS]
CAPITAL = [{"role": "user", "content": "What is the capital of France?"}]
TIP = [{"role": "user", "content": "My bill is $100. What will be the amount for 18% tip?"}]
TRUNCATED = 'answer_problems_total{code="truncated_tool_call"}'
TWO = [{"role": "user", "content": "What is a 15% tip on $80 and a 20% tip on $60?"}]


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


@pytest.mark.parametrize("thinking", [True, False])
def test_parallel_calls_arrive_in_order(client: Client, thinking: bool) -> None:
    reply = client.chat(TWO, tools=TOOLS, thinking=thinking, temperature=0.0)

    assert [call.name for call in reply.tool_calls] == ["calculate_tip"] * 2
    assert [call.index for call in reply.tool_calls] == [0, 1]
    assert len({call.id for call in reply.tool_calls}) == 2
    assert (reply.finish_reason, bool(reply.reasoning)) == ("tool_calls", thinking)


def test_without_parallel_calls_the_first_one_counts(client: Client) -> None:
    both = client.chat(TWO, tools=TOOLS, thinking=False)

    single = client.chat(TWO, tools=TOOLS, thinking=False, parallel_tool_calls=False)

    assert [call.arguments for call in single.tool_calls] == [both.tool_calls[0].arguments]
    assert [problem.code for problem in single.problems] == ["surplus_tool_call"]


def test_auto_is_the_default(client: Client) -> None:
    default, auto = (client.chat(TIP, tools=TOOLS, thinking=False, tool_choice=choice) for choice in (None, "auto"))

    assert [call.arguments for call in default.tool_calls] == [call.arguments for call in auto.tool_calls] != []


def test_none_hides_the_tools(client: Client) -> None:
    hidden = client.chat(TIP, tools=TOOLS, thinking=False, tool_choice="none")
    without = client.chat(TIP, thinking=False)

    assert hidden.tool_calls == ()
    assert (hidden.content, hidden.usage.input_tokens) == (without.content, without.usage.input_tokens)


@pytest.mark.parametrize("thinking", [True, False])
def test_required_makes_the_model_call_where_it_would_not(client: Client, thinking: bool) -> None:
    free = client.chat(CAPITAL, tools=TOOLS, thinking=thinking, seed=1)

    forced = client.chat(CAPITAL, tools=TOOLS, thinking=thinking, seed=1, tool_choice="required")

    assert free.tool_calls == ()
    assert forced.tool_calls[0].name in NAMES
    assert (forced.content, forced.finish_reason, forced.problems) == (None, "tool_calls", ())
    assert bool(forced.reasoning) is thinking


@pytest.mark.parametrize("name", NAMES)
def test_a_named_function_is_the_one_that_is_called(client: Client, name: str) -> None:
    reply = client.chat(CAPITAL, tools=TOOLS, thinking=False, tool_choice=named(name))

    (call,) = reply.tool_calls
    schema = next(tool["function"]["parameters"] for tool in TOOLS if tool["function"]["name"] == name)
    assert call.name == name
    assert set(call.arguments) == set(schema["required"])


ODD_NAMES = ['a"b', "back\\slash", "new\nline", "größe", "x" * 60, "]</TOOLCALL>", "| root"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_function_names_survive_being_forced(client: Client, name: str) -> None:
    parameters = {"type": "object", "properties": {name: {"enum": ['q"', 1, None]}}, "required": [name]}
    tools = [{"type": "function", "function": {"name": name, "parameters": parameters}}]

    reply = client.chat(CAPITAL, tools=tools, thinking=False, tool_choice="required", max_tokens=400, seed=1)

    assert [call.name for call in reply.tool_calls][:1] == [name]
    assert reply.tool_calls[0].arguments[name] in ('q"', 1, None)


def test_a_forced_call_that_the_limit_cuts_off_is_reported(client: Client, served: ServeOptions) -> None:
    before = metric(served, TRUNCATED)

    reply = client.chat(TIP, tools=TOOLS, thinking=False, tool_choice="required", max_tokens=5)

    assert (reply.tool_calls, reply.finish_reason) == ((), "length")
    assert [problem.code for problem in reply.problems] == ["truncated_tool_call", "tool_choice_unsatisfied"]
    assert (reply.content or "").startswith("<TOOLCALL>")
    # Metrics follow about a tenth of a second later.
    wait_until(lambda: metric(served, TRUNCATED) == before + 1)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"tool_choice": "required"}, "no tools to call"),
        ({"tools": TOOLS, "tool_choice": named("reboot")}, "not among the tools"),
        ({"tools": TOOLS, "tool_choice": "always"}, "tool_choice"),
        (
            {"chat_template_kwargs": {"truncate_history_thinking": True}},
            "truncate_history_thinking.*; llama-nemotron",
        ),
        ({"chat_template_kwargs": {"enable_thinking": 1}}, "enable_thinking must be true or false"),
    ],
)
def test_impossible_choices_are_refused(client: Client, options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(RequestRejected, match=complaint):
        client.chat(CAPITAL, **options)


def test_the_template_argument_switches_thinking_too(client: Client) -> None:
    reply = client.chat(CAPITAL, chat_template_kwargs={"enable_thinking": True})

    assert reply.reasoning

"""Tool results answer the calls of the assistant message before them, whatever order they come in."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemotron_triton.errors import RequestError
from past_calls import ASK, asked, prompt, result


@pytest.mark.parametrize(
    ("calls", "results", "order"),
    [
        (["a", "b"], [("TWENTY", "b"), ("EIGHTEEN", "a")], "EIGHTEEN, TWENTY"),
        (["a", "b"], [("EIGHTEEN", "a"), ("TWENTY", "b")], "EIGHTEEN, TWENTY"),
        (["a", "b"], [("EIGHTEEN", None), ("TWENTY", "")], "EIGHTEEN, TWENTY"),
        (["a", "b", "c"], [("3", "c"), ("1", "a"), ("2", "b")], "1, 2, 3"),
        (["a", "a"], [("1", "a"), ("2", "a")], "1, 2"),
        ([None, None], [("1", None), ("2", None)], "1, 2"),
    ],
)
def test_results_stand_in_the_order_of_their_calls(
    calls: list[str | None], results: list[tuple[str, str | None]], order: str
) -> None:
    text = prompt(ASK, asked(*calls), *(result(*of_call) for of_call in results))

    assert f"<TOOL_RESPONSE>[{order}]</TOOL_RESPONSE>" in text


@given(st.permutations(range(5)))
def test_results_may_come_in_any_order(order: list[int]) -> None:
    ids = [f"call_{number}" for number in range(5)]

    text = prompt(ASK, asked(*ids), *(result(str(number), ids[number]) for number in order))

    assert "<TOOL_RESPONSE>[0, 1, 2, 3, 4]</TOOL_RESPONSE>" in text


def test_ids_count_within_their_own_turn() -> None:
    text = prompt(ASK, asked("a"), result("first", "a"), asked("a"), result("second", "a"))

    assert text.index("[first]") < text.index("[second]")


def test_results_without_ids_may_stand_alone() -> None:
    assert "<TOOL_RESPONSE>[1, 2]</TOOL_RESPONSE>" in prompt(ASK, result("1"), result("2"))


def test_calls_may_have_no_result_at_all() -> None:
    assert '"name": "f_a"' in prompt(ASK, asked("a", "b"), {"role": "user", "content": "Never mind."})
    assert '"name": "f_a"' in prompt(ASK, asked("a", "b"))


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ([asked("a"), result("1", "x")], r"messages\[2\] has the tool_call_id 'x', and .* made no such call"),
        ([asked("a", "b"), result("1", "a"), result("2", "a")], r"messages\[3\] .*'a', and that call has a result"),
        ([asked("a", "b"), result("1", "a")], r"messages\[2\] is the last of 1 tool results.* has 2 calls"),
        ([asked("a", "b"), result("1")], r"messages\[2\] is the last of 1 tool results"),
        ([asked("a", "b"), result("1", "a"), result("2")], r"messages\[3\] has no tool_call_id"),
        ([asked("a"), result("1"), result("2")], r"messages\[3\] is one tool result too many"),
        ([result("1", "a")], r"messages\[1\] .*'a', and the message before the results made no such"),
        ([asked("a"), ASK, result("1", "a")], r"messages\[3\] .* made no such call"),
        (
            [asked("a"), result("1", "a"), asked("b"), result("1", "a")],
            r"messages\[4\] .*'a', and .* made no such call",
        ),
        ([asked("a"), {"role": "tool", "content": "1", "tool_call_id": ["a"]}], r"messages\[2\].tool_call_id must be"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_results_that_answer_no_call_are_refused(messages: list[dict[str, Any]], complaint: str) -> None:
    with pytest.raises(RequestError, match=complaint):
        prompt(ASK, *messages)

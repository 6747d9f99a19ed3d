"""Thinking, answer and calls taken apart: the same for every way the text is cut."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nemotron_client.events import ContentDelta, Event, ReasoningDelta, ToolCall
from nemotron_triton.chat.answer import AnswerParser

CALL = '<TOOLCALL>[{"name": "tip", "arguments": {"bill": 100}}]</TOOLCALL>'
UNREADABLE = [
    f"<TOOLCALL>{body}</TOOLCALL>"
    for body in (
        '[{"name": "f", "arguments": {"x": NaN}}]',
        '[{"name": "f", "arguments": {"x": 1e999}}]',
        '[{"name": "f", "arguments": {"x": "\\ud83d"}}]',
        '[{"name": "\\ud83d"}]',
        '[{"name": "f", "arguments": "' + "[" * 100_000 + '"}]',
        '[{"name": "f", "arguments": "[1]"}]',
        "[" * 100_000,
        '[{"name": 3}]',
        "[3]",
        "null",
    )
]
Parsed = tuple[str, str, list[tuple[str, dict[str, Any]]]]


def parse(pieces: Sequence[str], *, tools: bool = True) -> Parsed:
    parser = AnswerParser(tools=tools)
    events: list[Event] = []
    for piece in pieces:
        events += parser.feed(piece)
    events += parser.finish()
    return (
        "".join(event.text for event in events if isinstance(event, ReasoningDelta)),
        "".join(event.text for event in events if isinstance(event, ContentDelta)),
        [(event.name, dict(event.arguments)) for event in events if isinstance(event, ToolCall)],
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12", ("", "12", [])),
        ("", ("", "", [])),
        ("<think>\nSeven plus five.\n</think>\n\n12", ("Seven plus five.", "12", [])),
        ("<think>\n</think>\n\nParis.", ("", "Paris.", [])),
        ("  <think>a</think>b", ("a", "b", [])),
        ("<think>", ("", "", [])),
        ("<think>\nstill thinking", ("still thinking", "", [])),
        ("<think>\nnearly </thin", ("nearly </thin", "", [])),
        ("<think>\na\n</thinking>\n</think>\nb", ("a\n</thinking>", "b", [])),
        ("<thinker>", ("", "<thinker>", [])),
        ("a\n\n    b\n", ("", "a\n\n    b", [])),
        (CALL, ("", "", [("tip", {"bill": 100})])),
        (f"<think>\nx\n</think>\n\n{CALL}", ("x", "", [("tip", {"bill": 100})])),
        (f"Let me see.\n\n{CALL}", ("", "Let me see.", [("tip", {"bill": 100})])),
        (f"{CALL}\n{CALL}\n", ("", "", [("tip", {"bill": 100})] * 2)),
        (f"<think>\n{CALL}\n</think>\nno", (CALL, "no", [])),
        (
            '<TOOLCALL>[{"name": "a", "arguments": {"x": "</TOOLCALL> \\" ]"}}, {"name": "b"}]</TOOLCALL>',
            ("", "", [("a", {"x": '</TOOLCALL> " ]'}), ("b", {})]),
        ),
        ('<TOOLCALL>[{"name": "a", "argum', ("", '<TOOLCALL>[{"name": "a", "argum', [])),
        ("a\n\n<TOOLCALL>?</TOOLCALL>\n\nb", ("", "a\n\n<TOOLCALL>?</TOOLCALL>\n\nb", [])),
        ("<TOOLCALL>nonsense</TOOLCALL>", ("", "<TOOLCALL>nonsense</TOOLCALL>", [])),
        ("<TOOLCALL>[{}]</TOOLCALL>", ("", "<TOOLCALL>[{}]</TOOLCALL>", [])),
        *((block, ("", block, [])) for block in UNREADABLE),
        ("<TOOLCALL>[]</TOOLC", ("", "<TOOLCALL>[]</TOOLC", [])),
        ("1 < 2 <TOOL", ("", "1 < 2 <TOOL", [])),
    ],
)
def test_whole_texts(text: str, expected: Parsed) -> None:
    assert parse([text]) == expected
    assert parse(list(text)) == expected


def test_without_tools_a_call_marker_is_text() -> None:
    assert parse([CALL], tools=False) == ("", CALL, [])


MARKERS = ["<think>", "</think>", "<TOOLCALL>", "</TOOLCALL>", "</TOOL", "</thin"]
WORDS = st.sampled_from([*MARKERS, CALL, '{"name": "f", "arguments": {}}', *'\n a<>"\\[]{}é😀'])


@given(st.lists(WORDS, max_size=14).map("".join), st.data())
def test_any_cutting_gives_the_same_result(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    pieces = [text[i:j] for i, j in zip([0, *cuts], [*cuts, len(text)], strict=True)]

    assert parse(pieces) == parse([text])


@given(st.lists(WORDS, max_size=14).map("".join))
def test_no_visible_character_is_lost_or_invented(text: str) -> None:
    reasoning, content, calls = parse([text])
    assume(not calls)

    assert _visible(reasoning + content) == _visible(text)


@given(st.lists(WORDS, max_size=14).map("".join))
def test_an_answer_without_thinking_or_calls_is_the_text_itself(text: str) -> None:
    reasoning, content, calls = parse([text])
    assume(not calls and "<think>" not in text)

    assert (reasoning, content.rstrip()) == ("", text.rstrip())


@given(
    st.lists(
        st.tuples(
            st.text(min_size=1, max_size=8), st.dictionaries(st.text(max_size=5), st.text(max_size=9), max_size=3)
        ),
        min_size=1,
        max_size=3,
    ),
    st.booleans(),
)
def test_every_call_that_was_written_is_read_back(calls: list[tuple[str, dict[str, str]]], ascii_only: bool) -> None:
    body = json.dumps([{"name": n, "arguments": a} for n, a in calls], ensure_ascii=ascii_only)

    assert parse(list(f"<TOOLCALL>{body}</TOOLCALL>")) == ("", "", calls)


def test_reasoning_is_streamed_before_it_ends() -> None:
    parser = AnswerParser(tools=True)

    assert parser.feed("<think>\nfirst thought") == [ReasoningDelta("first thought")]
    assert parser.in_reasoning


def _visible(text: str) -> str:
    """*text* without blanks and without the think markers, which are all that may disappear."""
    return "".join(text.replace("<think>", "").replace("</think>", "").split())

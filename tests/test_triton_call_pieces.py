"""Calls that come in pieces, as they are written: the pieces join to the calls that would have come whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from answer_texts import IN_VALUES, RULES, SOUP, Parsed, fold, parse, pieces_of, rules
from call_spellings import FORMATS, SPELLINGS
from nemotron_client.events import Problem, ToolCall, ToolCallDelta
from nemotron_triton.chat.answer import AnswerParser, AnswerRules
from nemotron_triton.chat.reasoning import Thinking


def streamed(pieces: Sequence[str], how: AnswerRules, *, cut: bool = False) -> tuple[Parsed, dict[int, str]]:
    """The fold of an answer whose calls come as they are written, and what came of the arguments of each call."""
    parser = AnswerParser(how, stream_calls=True)
    events = [event for piece in pieces for event in parser.feed(piece)] + parser.finish(cut=cut)
    calls: dict[int, str] = {}
    ids: dict[int, tuple[str, str]] = {}
    for event in events:
        if isinstance(event, ToolCallDelta):
            if event.index not in calls:
                assert event.id
                assert event.index == len(calls)
                ids[event.index] = event.id, event.name
            else:
                assert (event.id, event.name) == ("", "")
            calls[event.index] = calls.get(event.index, "") + event.arguments_json
        elif isinstance(event, ToolCall):
            assert ids[event.index] == (event.id, event.name)
            assert calls[event.index] == event.arguments_json
            ids[event.index] = "", ""  # no piece comes behind it
    for index in set(ids) - {event.index for event in events if isinstance(event, ToolCall)}:
        with pytest.raises(ValueError, match=r"."):
            json.loads(calls[index])
    return fold(events, parser.problems), calls


def values(parsed: Parsed) -> list[tuple[str, Any]]:
    return [(name, json.loads(arguments)) for name, arguments in parsed.calls]


@given(SOUP, RULES, st.booleans(), st.data())
def test_pieces_of_calls_join_to_the_calls_however_the_text_is_cut(
    text: str, how: AnswerRules, cut: bool, data: st.DataObject
) -> None:
    whole = streamed([text], how, cut=cut)

    assert streamed(list(text), how, cut=cut) == whole
    assert streamed(pieces_of(text, data), how, cut=cut) == whole


@given(IN_VALUES, IN_VALUES, st.sampled_from(FORMATS), st.booleans(), st.data())
def test_the_same_calls_come_whole_and_in_pieces(
    note: str, bill: str, style: str, cut: bool, data: st.DataObject
) -> None:
    text = SPELLINGS[style].written([("tip", {"note": note, "bill": bill}), ("now", {}), ("other", {"a": note})], True)
    text = text[: data.draw(st.integers(0, len(text)))] if cut else text

    in_pieces, _ = streamed(pieces_of(text, data), rules(style), cut=cut)

    whole = parse([text], rules(style), cut=cut)
    assert values(in_pieces) == values(whole)
    assert bool(in_pieces.problems) == bool(whole.problems)


@pytest.mark.parametrize("style", FORMATS)
def test_a_long_argument_comes_as_it_is_written(style: str) -> None:
    note = 'She said "hi" \\ and left.\n' * 40
    text = SPELLINGS[style].written([("tip", {"note": note})], False)
    parser = AnswerParser(rules(style), stream_calls=True)
    begin, end = text.index("She"), text.rindex("left.")
    came = ""
    for number, char in enumerate(text[:end]):
        came += "".join(event.arguments_json for event in parser.feed(char) if isinstance(event, ToolCallDelta))
        if number >= begin:
            written = text[begin : number + 1]
            # A line break may belong to the markup, and half an escape is none.
            sent = came.removeprefix('{"note": "')
            sent = sent if style == "nemotron_json" else json.loads(f'"{sent}"')
            assert written.startswith(sent)
            assert len(written) - len(sent) <= 2


@pytest.mark.parametrize("style", FORMATS)
def test_a_call_that_breaks_off_stays_visibly_open(style: str) -> None:
    text = "Look.\n" + SPELLINGS[style].written([("tip", {"note": "a long note"})], True)
    text = text[: text.index("note", text.index("long"))]

    parsed, calls = streamed(list(text), rules(style), cut=True)

    assert parsed.content == "Look."
    assert parsed.calls == ()
    assert calls == {0: '{"note": "a long '}
    assert parsed.problems == (Problem(code="truncated_tool_call", function="tip"),)


@pytest.mark.parametrize("style", FORMATS)
@pytest.mark.parametrize(("before", "begins"), [("```\n", "none"), ("Perhaps ", "opened")])
def test_nothing_of_a_call_is_sent_where_it_may_yet_be_text(style: str, before: str, begins: Thinking) -> None:
    parser = AnswerParser(rules(style, begins=begins), stream_calls=True)

    events = parser.feed(before + SPELLINGS[style].call)

    assert not any(isinstance(event, ToolCall | ToolCallDelta) for event in events)

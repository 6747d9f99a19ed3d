"""Stop words: the text ends before the first one, however it is cut into chunks; only content can hold one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemotron_client.events import ContentDelta, Event, ReasoningDelta, ToolCall
from nemotron_triton.chat.answer import AnswerParser, AnswerRules
from nemotron_triton.chat.stop_words import StopWords

WORDS = st.lists(st.text("ab\n", min_size=1, max_size=4), min_size=1, max_size=3)
CALL = '<TOOLCALL>[{"name": "f", "arguments": {"x": "stop"}}]</TOOLCALL>'


@given(st.text("ab\n", max_size=40), WORDS, st.data())
def test_the_text_ends_before_the_first_stop_word_however_it_is_cut(
    text: str, words: list[str], data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=10)))
    stop_words = StopWords(words)
    passed = ""
    for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        passed += stop_words.take(text[begin:end])
    passed += stop_words.release()

    # Of two words that overlap, the one that is whole first ends the text, as it does in a stream.
    ends = [(text.find(word) + len(word), text.find(word)) for word in words if word in text]
    assert (stop_words.word is not None) is bool(ends)
    assert passed == (text[: min(ends)[1]] if ends else text)


def parse(pieces: Iterable[str], words: Sequence[str]) -> tuple[AnswerParser, list[Event]]:
    """The parser, and the events of an answer that is read as far as it goes; calls without their random ids."""
    parser = AnswerParser(AnswerRules(tool_call_format="nemotron_json"), words)
    events: list[Event] = []
    for piece in pieces:
        events += parser.feed(piece)
        if parser.stop_word:
            break
    else:
        events += parser.finish()
    return parser, events


def content(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, ContentDelta))


def test_thinking_and_calls_may_hold_stop_words() -> None:
    parser, events = parse([f"<think>\nstop\n</think>\n\n{CALL}\ngo stop on"], ["stop"])

    assert events[0] == ReasoningDelta("stop")
    assert isinstance(events[1], ToolCall)
    assert content(events) == "go "
    assert parser.stop_word


def test_a_word_that_a_call_cuts_in_two_is_none() -> None:
    parser, events = parse([f"st{CALL}op"], ["stop"])

    assert [event.text for event in events if isinstance(event, ContentDelta)] == ["st", "op"]
    assert not parser.stop_word


@pytest.mark.parametrize("word", ["\n\n", "\n", "!\n"])
def test_blanks_before_a_call_may_be_a_stop_word(word: str) -> None:
    text = f"Look!\n\n{CALL}"

    for pieces in ([text], list(text)):
        parser, events = parse(pieces, [word])

        assert parser.stop_word
        assert content(events) == text.split(word)[0]
        assert not parser.called_tools


def test_blanks_around_thinking_are_layout_and_no_stop_word() -> None:
    parser, events = parse([f"\n\n<think>\nhm\n\n</think>\n\n{CALL}\n\n"], ["\n\n"])

    assert parser.called_tools
    assert not parser.stop_word
    assert content(events) == ""


def test_no_call_comes_behind_a_stop_word() -> None:
    parser, events = parse([f"stop {CALL}"], ["stop"])

    assert events == []
    assert (parser.stop_word, parser.called_tools) == ("stop", False)


@given(st.text("ab\n ", max_size=20), st.booleans(), st.text("ab\n ", max_size=20), WORDS, st.data())
def test_any_cutting_stops_at_the_same_place(
    before: str, calls: bool, after: str, words: list[str], data: st.DataObject
) -> None:
    text = before + calls * CALL + after
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=10)))
    pieces = [text[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]

    whole, events = parse([text], words)
    cut, events_of_pieces = parse(pieces, words)

    assert content(events_of_pieces) == content(events)
    assert (cut.stop_word, cut.called_tools) == (whole.stop_word, whole.called_tools)


def test_without_words_nothing_is_held_back() -> None:
    assert StopWords(()).take("a") == "a"

"""Stop words: the text ends before the first one, however it is cut into chunks; only content can hold one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nemotron_client.events import ContentDelta, Event, ReasoningDelta, ToolCall
from nemotron_triton.chat.stop_words import StopWords

WORDS = st.lists(st.text("ab\n", min_size=1, max_size=4), min_size=1, max_size=3)


@given(st.text("ab\n", max_size=40), WORDS, st.data())
def test_the_text_ends_before_the_first_stop_word_however_it_is_cut(
    text: str, words: list[str], data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=10)))
    stop_words = StopWords(words)
    passed: list[Event] = []
    for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        passed += stop_words.filter([ContentDelta(text[begin:end])])
    passed += stop_words.finish()

    # Of two words that overlap, the one that is whole first ends the text, as it does in a stream.
    ends = [(text.find(word) + len(word), text.find(word)) for word in words if word in text]
    assert stop_words.found is bool(ends)
    shown = "".join(event.text for event in passed if isinstance(event, ContentDelta))
    assert shown == (text[: min(ends)[1]] if ends else text)


def test_thinking_and_calls_may_hold_stop_words() -> None:
    call = ToolCall(index=0, id="call_1", name="f", arguments_json='{"x": "stop"}')
    events: list[Event] = [ReasoningDelta("stop"), call, ContentDelta("go stop on")]
    stop_words = StopWords(["stop"])

    assert stop_words.filter(events) == [ReasoningDelta("stop"), call, ContentDelta("go ")]
    assert stop_words.found


def test_a_word_that_a_call_cuts_in_two_is_none() -> None:
    call = ToolCall(index=0, id="call_1", name="f", arguments_json="{}")
    stop_words = StopWords(["stop"])

    passed = stop_words.filter([ContentDelta("st"), call, ContentDelta("op")])

    assert [*passed, *stop_words.finish()] == [ContentDelta("st"), call, ContentDelta("op")]


def test_without_words_nothing_is_held_back() -> None:
    assert StopWords(()).filter([ContentDelta("a")]) == [ContentDelta("a")]

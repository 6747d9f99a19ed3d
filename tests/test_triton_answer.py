"""Reasoning, content and calls are parsed without loss, and the same however the text is cut into chunks."""

from __future__ import annotations

import json
from typing import get_args

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from answer_texts import END_TOKENS, IN_VALUES, RULES, SOUP, Parsed, fold, parse, pieces_of, rules, visible
from call_spellings import FORMATS, SPELLINGS, as_xml
from nemotron_client.events import ContentDelta, Problem, ReasoningDelta, ToolCall
from nemotron_triton.chat.answer import AnswerParser, AnswerRules, parse_whole
from nemotron_triton.chat.conversation import ToolChoice
from nemotron_triton.chat.formats import call_format
from nemotron_triton.chat.reasoning import Thinking


@given(SOUP | st.text(), RULES, st.booleans(), st.data())
def test_any_cutting_gives_the_same_result(text: str, how: AnswerRules, cut: bool, data: st.DataObject) -> None:
    whole = parse([text], how, cut=cut)

    assert parse(pieces_of(text, data), how, cut=cut) == whole
    assert parse(list(text), how, cut=cut) == whole


@given(SOUP, RULES, st.booleans())
def test_every_call_has_a_name_and_valid_json(text: str, how: AnswerRules, cut: bool) -> None:
    for name, arguments in parse([text], how, cut=cut).calls:
        assert name.strip() == name != ""
        json.loads(arguments)


@given(SOUP, RULES, st.booleans())
def test_no_character_is_lost_or_invented(text: str, how: AnswerRules, cut: bool) -> None:
    parsed = parse([text], how, cut=cut)
    assume(not parsed.calls)

    # Blanks next to markers, the think markers and the end tokens are all that may go.
    assert visible(parsed.reasoning + parsed.content) == visible(text)


@given(SOUP, st.sampled_from(FORMATS), st.booleans())
def test_without_tools_call_markup_is_text(text: str, style: str, cut: bool) -> None:
    how = AnswerRules(tool_call_format=style, functions={}, end_tokens=END_TOKENS)

    parsed = parse([text], how, cut=cut)

    assert (parsed.calls, parsed.problems) == ((), ())
    assert visible(parsed.reasoning + parsed.content) == visible(text)


PLAIN = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="<"), max_size=20)
NAMES = st.text(alphabet="abcdefgh_é", min_size=1, max_size=8)
NOTES = st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)


@given(
    st.sampled_from(FORMATS),
    PLAIN,
    PLAIN,
    st.lists(st.tuples(NAMES, st.dictionaries(NAMES, NOTES, max_size=3)), max_size=3),
    st.booleans(),
    st.data(),
)
def test_what_was_written_is_read_back(
    style: str,
    thought: str,
    content: str,
    calls: list[tuple[str, dict[str, str]]],
    ascii_only: bool,
    data: st.DataObject,
) -> None:
    assume(not any("</" in value or "<parameter=" in value for _, given_ in calls for value in given_.values()))
    text = f"<think>\n{thought}\n</think>\n\n{content}\n\n{SPELLINGS[style].written(calls, ascii_only)}"
    parser = AnswerParser(rules(style))

    events = [event for piece in pieces_of(text, data) for event in parser.feed(piece)] + parser.finish()

    parsed = fold(events, parser.problems)
    assert (parsed.reasoning.strip(), parsed.content.strip()) == (thought.strip(), content.strip())
    assert [(name, json.loads(arguments)) for name, arguments in parsed.calls] == calls
    for event in events:
        assert not isinstance(event, ReasoningDelta | ContentDelta) or "<" not in event.text


def pieces_without_markers(style: str) -> st.SearchStrategy[tuple[str, list[str]]]:
    firsts = "<" + "".join(opener[0] for opener in call_format(style).openers)
    text = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters=firsts), max_size=20)
    return st.tuples(st.just(style), st.lists(text, max_size=6))


@given(st.sampled_from(FORMATS).flatmap(pieces_without_markers), st.booleans())
def test_text_that_cannot_begin_a_marker_is_not_held_back(drawn: tuple[str, list[str]], thinking: bool) -> None:
    style, pieces = drawn
    parser = AnswerParser(rules(style, begins="opened" if thinking else "none"))
    fed = out = ""
    for piece in pieces:
        fed += piece
        parsed = fold(parser.feed(piece), [])
        out += parsed.reasoning + parsed.content

        # Only blanks are held back: they are layout if a marker follows.
        assert out.rstrip() == (fed.strip() if thinking else fed.rstrip()) or out.strip() == fed.strip()


@pytest.mark.parametrize("style", FORMATS)
def test_each_call_comes_with_its_own_last_character(style: str) -> None:
    text = SPELLINGS[style].written([("tip", {"note": "a"}), ("now", {})], True)
    parser = AnswerParser(rules(style))

    came = [i for i, char in enumerate(text) for event in parser.feed(char) if isinstance(event, ToolCall)]

    assert len(came) == 2
    assert all(text[: i + 1].endswith(SPELLINGS[style].last) for i in came)
    assert '"now"' not in text[: came[0]]


@pytest.mark.parametrize("style", FORMATS)
@pytest.mark.parametrize(
    "hostile",
    ["<" * 9999, "[" * 9999, "{" * 9999, "\\" * 9999, '"' * 9999, "</TOOLCALL" * 999, "<tool_call>" * 999, " " * 9999],
)
@pytest.mark.parametrize(
    "start", ["", "<think>", "<TOOLCALL>", '<TOOLCALL>[{"name": "', "<tool_call>\n<function=f>\n<parameter=a>\n"]
)
def test_hostile_text_is_text(style: str, hostile: str, start: str) -> None:
    text = start + hostile

    parsed = parse([text], rules(style))

    assert parsed == parse([text[: len(start)], *hostile], rules(style))
    assert parsed.calls == ()
    assert visible(parsed.reasoning + parsed.content) == visible(text)


MENTIONS = {
    "nemotron_json": [
        "<TOOLCALL>", "<TOOLCALL>[", "<TOOLCALL><TOOLCALL>", "<TOOLCALL>[{...}]", "<TOOLCALL> //", "<TOOLCALL>[] {}",
        "</TOOLCALL>", '<TOOLCALL>[{"name": "tip"}] and', "```\n<TOOLCALL>[]\n```",
    ],
    "qwen3_coder": [
        "<tool_call>", "<function=", "<function=tip>", "<tool_call><tool_call>", "</tool_call>", "<tool_call>[",
        "<function=tip and", "<tool_call> <function=>", "```\n<tool_call>\n```", "<parameter=bill>",
    ],
}  # fmt: skip


@pytest.mark.parametrize("begins", ["none", "opened"])
@pytest.mark.parametrize(
    ("style", "mention"), [(style, mention) for style, mentions in MENTIONS.items() for mention in mentions]
)
def test_a_mention_of_a_tag_does_not_silence_the_stream(style: str, mention: str, begins: Thinking) -> None:
    text = f"It is {mention} that I mean. " + "Nothing else in here is a call, and so it goes on. " * 50
    parser = AnswerParser(rules(style, begins=begins))
    fed = out = 0
    longest = 0
    for start in range(0, len(text), 4):
        fed += len(text[start : start + 4])
        parsed = fold(parser.feed(text[start : start + 4]), [])
        out += len(parsed.reasoning + parsed.content)
        longest = max(longest, fed - out)

    # A name that has no end is a name until it is too long.
    assert longest <= 100


@pytest.mark.parametrize("style", FORMATS)
def test_thinking_goes_on_behind_a_rehearsed_call(style: str) -> None:
    call = SPELLINGS[style].call
    parser = AnswerParser(rules(style, begins="opened"))

    held = parser.feed(f"Perhaps {call}\n")
    released = parser.feed("No")

    assert held == [ReasoningDelta("Perhaps")]
    assert fold(released, []).reasoning == f" {call}\nNo"


@given(IN_VALUES, IN_VALUES, st.booleans(), st.data())
def test_markup_in_values_is_read_the_same_however_it_is_cut(
    note: str, bill: str, cut: bool, data: st.DataObject
) -> None:
    text = as_xml([("tip", {"note": note, "bill": bill}), ("now", {})], False)
    text = text[: data.draw(st.integers(0, len(text)))] if cut else text
    how = rules("qwen3_coder", begins=data.draw(st.sampled_from(get_args(Thinking))))

    assert parse(pieces_of(text, data), how, cut=cut) == parse([text], how, cut=cut) == parse(list(text), how, cut=cut)


@given(st.lists(st.sampled_from(["a\n", "<b>", "x </parameter> y", SPELLINGS["qwen3_coder"].call]), max_size=6))
def test_whole_examples_in_a_value_are_data(parts: list[str]) -> None:
    note = "\n".join(parts)

    parsed = parse([as_xml([("tip", {"note": note}), ("now", {})], False)], rules("qwen3_coder"))

    assert [(name, json.loads(arguments)) for name, arguments in parsed.calls] == [("tip", {"note": note}), ("now", {})]
    assert parsed.content == ""


FENCED = st.sampled_from(["a\n", "```xml\n", "```\n", "  ```\n", "~~~\n", "b ``` c\n", "```x```\n", "call\n"])


@given(st.lists(FENCED, max_size=10), st.sampled_from(FORMATS))
def test_calls_behind_fences_count_and_those_inside_do_not(lines: list[str], style: str) -> None:
    fence, counted = "", 0
    for line in lines:
        marks = line.strip()
        counted += line == "call\n" and not fence
        if not fence and marks in ("```xml", "```", "~~~"):
            fence = marks[:3]
        elif fence and marks == fence:
            fence = ""
    assume(not fence)
    text = "".join(lines).replace("call", SPELLINGS[style].call) + "The end."

    parsed = parse([text], rules(style))

    assert len(parsed.calls) == counted
    assert parse(list(text), rules(style)) == parsed


def test_numbers_arrive_as_they_were_written() -> None:
    arguments = '{"a": 1.10, "b": 9007199254740993, "c": 1E2, "d": -0.0}'

    parsed = parse([f'<TOOLCALL>[{{"name": "tip", "arguments": {arguments}}}]</TOOLCALL>'], rules("nemotron_json"))

    assert parsed.calls == (("tip", arguments),)


def test_nested_too_deeply_is_unreadable_not_an_error() -> None:
    body = '[{"name": "tip", "arguments": {"a": ' + "[" * 100_000 + "]" * 100_000 + "}}]"

    parsed = parse([f"<TOOLCALL>{body}</TOOLCALL>"], rules("nemotron_json"))

    assert parsed.calls == ()
    assert [problem.code for problem in parsed.problems] == ["invalid_tool_call"]
    assert body in parsed.content


def test_useless_text_behind_a_good_call_is_reported_with_the_problem() -> None:
    good = '{"name": "tip", "arguments": {}}'

    parsed = parse([f'<TOOLCALL>[{good}, {{"nome": 1}}, {good}]</TOOLCALL>'], rules("nemotron_json"))

    assert len(parsed.calls) == 2
    assert parsed.content == ""
    assert parsed.problems == (Problem(code="missing_name", text=', {"nome": 1}'),)


@pytest.mark.parametrize("text", ["# Result\nIt is 5.", "// is a comment in C.", "It is 5."])
def test_a_line_behind_a_list_without_its_closer_is_text(text: str) -> None:
    parsed = parse([f'<TOOLCALL>[{{"name": "tip"}}] # done\n{text}'], rules("nemotron_json"))

    assert len(parsed.calls) == 1
    assert parsed.content.strip() == text


def test_only_the_whole_text_tells_that_an_unopened_block_was_thinking() -> None:
    text = "hm\n</think>\n\nYes."

    events, problems = parse_whole(text, rules("nemotron_json", begins="model opens"))

    assert fold(events, problems) == Parsed("hm", "Yes.", (), ())
    assert parse([text], rules("nemotron_json")).content == text


@pytest.mark.parametrize(
    ("choice", "text", "codes"),
    [
        (ToolChoice("required"), "no", ["tool_choice_unsatisfied"]),
        (ToolChoice("required"), SPELLINGS["nemotron_json"].call, []),
        (ToolChoice("named", "now"), SPELLINGS["nemotron_json"].call, ["tool_choice_unsatisfied"]),
        (ToolChoice("named", "tip"), SPELLINGS["nemotron_json"].call, []),
    ],
)
def test_an_unmet_tool_choice_is_reported(choice: ToolChoice, text: str, codes: list[str]) -> None:
    parsed = parse([text], rules("nemotron_json", choice=choice))

    assert [problem.code for problem in parsed.problems] == codes

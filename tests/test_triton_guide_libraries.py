"""Grammars of tool calls in XGrammar, which is TensorRT-LLM's, and llguidance: they say what our own matcher says."""

from __future__ import annotations

import random

import pytest

import guide_libraries
from call_schemas import CALL_SCHEMAS, spelt
from gbnf_matcher import Grammar
from nemotron_triton.chat.conversation import ToolChoice
from nemotron_triton.chat.formats import format_names
from nemotron_triton.chat.grammar import forced_call, strict_calls
from nemotron_triton.chat.reasoning import Thinking

pytestmark = pytest.mark.guides


def grammar_of(tool_call_format: str, schema: object, thinking: Thinking = "none") -> str:
    function = {"name": "f", "parameters": schema}
    return forced_call(tool_call_format, [function], ToolChoice("required"), thinking=thinking, parallel=True)


@pytest.mark.parametrize("library", guide_libraries.LIBRARIES)
@pytest.mark.parametrize("tool_call_format", format_names())
def test_a_library_follows_every_keyword(library: str, tool_call_format: str) -> None:
    grammars = []
    for case in CALL_SCHEMAS.values():
        texts = [spelt(tool_call_format, "f", arguments) for arguments in [*case.right, *case.wrong]]
        grammars.append((grammar_of(tool_call_format, case.schema), texts))

    found = guide_libraries.verdicts(library, grammars)

    expected = [[Grammar(grammar).accepts(text) for text in texts] for grammar, texts in grammars]
    assert dict(zip(CALL_SCHEMAS, found, strict=True)) == dict(zip(CALL_SCHEMAS, expected, strict=True))


def nearly(text: str, source: random.Random) -> str:
    """*text* with a change: a character less, another one, one twice, or a part of it again."""
    at = source.randrange(len(text))
    end = min(len(text), at + source.choice((1, 1, 4, 30)))
    return text[:at] + source.choice(("", text[at:end] * 2, source.choice('x1é <>"\n/,'), "日")) + text[end:]


@pytest.mark.parametrize("library", guide_libraries.LIBRARIES)
@pytest.mark.parametrize("tool_call_format", format_names())
def test_a_library_agrees_about_texts_that_are_nearly_right(library: str, tool_call_format: str) -> None:
    source = random.Random(15)  # noqa: S311 - no secret
    grammars = []
    for case in CALL_SCHEMAS.values():
        texts = [spelt(tool_call_format, "f", arguments) for arguments in case.right]
        grammars.append((grammar_of(tool_call_format, case.schema), [nearly(text, source) for text in texts * 4]))

    found = guide_libraries.verdicts(library, grammars)

    differ = [
        (text, verdict)
        for (grammar, texts), verdicts in zip(grammars, found, strict=True)
        for text, verdict in zip(texts, verdicts, strict=True)
        if Grammar(grammar).accepts(text) != verdict
    ]
    assert differ == []


SCHEMA = {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"]}


@pytest.mark.parametrize("library", guide_libraries.LIBRARIES)
@pytest.mark.parametrize("tool_call_format", format_names())
def test_a_library_matches_tags_in_thinking_and_strings(library: str, tool_call_format: str) -> None:
    call = spelt(tool_call_format, "f", {"x": "<b>hi</b>\n<i> </par"})
    thought = "<p>x</p> </thin\n</think>\n\n"
    texts = [thought + call, call, thought, "<p>"]

    (found,) = guide_libraries.verdicts(library, [(grammar_of(tool_call_format, SCHEMA, "opened"), texts)])

    assert found == [True, False, False, False]


@pytest.mark.parametrize("library", guide_libraries.LIBRARIES)
@pytest.mark.parametrize("tool_call_format", format_names())
def test_a_library_matches_text_around_strict_calls(library: str, tool_call_format: str) -> None:
    strict = {"name": "f", "strict": True, "parameters": SCHEMA}
    free = {"name": "g", "parameters": SCHEMA}
    right = spelt(tool_call_format, "f", {"x": "<b>hi</b>"})
    valid = [right, "<p>", f"<p>{right}</p>", right + right, spelt(tool_call_format, "g", {"y": 1})]
    wrong = [spelt(tool_call_format, *call) for call in (("f", {}), ("f", {"y": 1}), ("h", {"x": "hi"}))]
    broken = [*wrong, right + wrong[0], right[:-1]]
    grammar = strict_calls(tool_call_format, [strict, free], thinking="none")

    (found,) = guide_libraries.verdicts(library, [(grammar, [*valid, *broken])])

    assert found == [True] * len(valid) + [False] * len(broken)

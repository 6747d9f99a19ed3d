"""Texts of answers, drawn and cut into pieces, and what the parser makes of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from hypothesis import strategies as st

from call_spellings import FORMATS, SPELLINGS
from nemotron_client.events import ContentDelta, Event, Problem, ReasoningDelta, ToolCall
from nemotron_triton.chat.answer import AnswerParser, AnswerRules
from nemotron_triton.chat.conversation import ToolChoice
from nemotron_triton.chat.reasoning import Thinking

TIP = {"type": "object", "properties": {"bill": {"type": "number"}, "note": {"type": "string"}}}
END_TOKENS = ("<|eot_id|>", "<|im_end|>")


@dataclass(frozen=True)
class Parsed:
    """The fold of a stream of events."""

    reasoning: str
    content: str
    calls: tuple[tuple[str, str], ...]
    problems: tuple[Problem, ...]


def fold(events: Sequence[Event], problems: Sequence[Problem]) -> Parsed:
    return Parsed(
        "".join(event.text for event in events if isinstance(event, ReasoningDelta)),
        "".join(event.text for event in events if isinstance(event, ContentDelta)),
        tuple((event.name, event.arguments_json) for event in events if isinstance(event, ToolCall)),
        tuple(problems),
    )


def rules(style: str, **changes: Any) -> AnswerRules:
    return AnswerRules(tool_call_format=style, functions={"tip": TIP, "now": None}, end_tokens=END_TOKENS, **changes)


def parse(pieces: Sequence[str], how: AnswerRules, *, cut: bool = False) -> Parsed:
    parser = AnswerParser(how)
    events = [event for piece in pieces for event in parser.feed(piece)] + parser.finish(cut=cut)
    assert all(event.text for event in events if isinstance(event, ContentDelta | ReasoningDelta))
    return fold(events, parser.problems)


# Markup, whole and broken, and what may stand around it.
SOUP = st.lists(
    st.sampled_from(
        [
            *(spelling.call for spelling in SPELLINGS.values()),
            "<think>", "</think>", "<TOOLCALL>", "</TOOLCALL>", "<tool_call>", "</tool_call>",
            "<function=tip>", "<function=", "</function>", "<parameter=bill>", "<parameter=", "</parameter>",
            "</TOOL", "</thin", "<tool_c", '{"name": "f", "arguments": {}}', '[{"name": "', '"arguments": {',
            "```json", "```\n", "\n```xml\n", "~~~\n", "; ", "// ", "# ", "TRUE",
            "\\d", "\\ud83d", "\\ude00", "<|eot_id|>", "<|im_end|>", "<|", *'\n \r a<>"\'\\[]{},:é😀0',
        ]
    ),
    max_size=24,
).map("".join)  # fmt: skip
RULES = st.builds(
    rules,
    st.sampled_from(FORMATS),
    begins=st.sampled_from(get_args(Thinking)),
    parallel=st.booleans(),
    choice=st.sampled_from([ToolChoice(), ToolChoice("none"), ToolChoice("required"), ToolChoice("named", "tip")]),
)
# What a value between tags may hold.
OPENERS = ["<tool_call>", "<function=f>", "<function=", "<parameter=a>", "<parameter=bill>", "<parameter="]
IN_VALUES = st.lists(
    st.sampled_from(
        [*OPENERS, "</parameter>", "</function>", "</tool_call>", SPELLINGS["qwen3_coder"].call, "\n", "a "]
    ),
    max_size=10,
).map("".join)


def pieces_of(text: str, data: st.DataObject) -> list[str]:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    return [text[i:j] for i, j in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def visible(text: str) -> str:
    """*text* without blanks, think markers, end tokens, and lists of no calls."""
    text = "".join(re.sub(r"</?think>|<\|eot_id\|>|<\|im_end\|>", "", text).split())
    return re.sub(r"<(TOOLCALL|tool_call)>(?:```(?:json)?)*\[(?:```(?:json)?)*\](?:```(?:json)?)*(?:</\1>)?", "", text)

"""Whether a raw generated text is what a conversation asks for, and the sums over many.

Pure: no torch, no tokenizer. Calls are compared as JSON values, other answers by the facts they must hold.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from conversations import Conversation

_THINK = re.compile(r"<think>\n(.*?)\n</think>\n\n(.*)", re.DOTALL)
_MARKERS = ("<think>", "</think>", "<TOOLCALL>", "</TOOLCALL>", "<TOOL_RESPONSE>", "<AVAILABLE_TOOLS>", "<|")
_NUMBER = re.compile(r"\d+(?:[.:]\d+)*")
_GROUPS = {"call": "calls", "two calls": "calls", "result": "results"}


@dataclass(frozen=True)
class Score:
    """One text's score: whether its form is right, and its content (None where that cannot be checked)."""

    kind: str
    protocol: bool
    right: bool | None

    @property
    def group(self) -> str:
        """Which of the three figures the content counts for."""
        return _GROUPS.get(self.kind, "others")


def score(conversation: Conversation, text: str, *, finished: bool = True) -> Score:
    """Score *text*: raw, with think block and calls, without the end token; *finished* says that this token came."""
    thought = _THINK.fullmatch(text)
    answer = thought[2] if thought and conversation.thinks else text
    formed = finished and bool(thought) == conversation.thinks
    formed = formed and not (thought and any(marker in thought[1] for marker in _MARKERS))
    expected = conversation.expected.rpartition("</think>\n\n")[2]
    expected_calls, calls = _calls(expected), _calls(answer)
    if expected_calls is None:
        formed = formed and calls is None and not any(marker in answer for marker in _MARKERS) and answer.strip() != ""
        return Score(conversation.kind, formed, formed and _holds(answer, expected, conversation.facts))
    names = None if calls is None else [call["name"] for call in calls]
    formed = formed and names == [call["name"] for call in expected_calls]
    return Score(conversation.kind, formed, formed and calls == expected_calls)


def summary(scores: Iterable[Score]) -> dict[str, tuple[int, int]]:
    """How many are right, and of how many: for the form, for each group and for each kind."""
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for mark in scores:
        for name, good in (("protocol", mark.protocol), (mark.group, mark.right), (f"kind: {mark.kind}", mark.right)):
            if good is not None:
                total[name] += 1
                right[name] += good
    return {name: (right[name], count) for name, count in sorted(total.items())}


def _calls(text: str) -> list[dict[str, Any]] | None:
    """The calls of an answer that is a call and nothing else."""
    if not (text.startswith("<TOOLCALL>") and text.endswith("</TOOLCALL>")):
        return None
    try:
        calls = json.loads(text.removeprefix("<TOOLCALL>").removesuffix("</TOOLCALL>"))
    except ValueError:
        return None
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        return None
    return calls if all(set(call) == {"name", "arguments"} for call in calls) else None


def _holds(answer: str, expected: str, facts: tuple[str, ...]) -> bool:
    """The answer is the expected one, or has every fact and no number besides."""
    if answer == expected:
        return True
    if not facts:
        return False
    whole = all(re.search(rf"(?<![\w.]){re.escape(fact)}(?!\w|\.\d)", answer) for fact in facts)
    return whole and set(_NUMBER.findall(answer)) <= set(_NUMBER.findall(" ".join(facts) + expected))

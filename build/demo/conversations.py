"""Synthetic conversations with the answer that the demo model should give: seeded, endless, and pure.

A `Lesson` is several independent questions under one system prompt, so that its tools are read once and learned from
several times; a held-out `Conversation` is one question. The answer is the raw text the model writes, markers included,
without the end-of-turn token. Held-out conversations also use names of cities that no lesson has. Whether an answer is
right is decided in `scoring`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import phrases
import toolbox
from toolbox import Ask, Tool

WITH_TOOLS = {"call": 36, "two calls": 22, "result": 20, "no fit": 10, "capital": 8, "small talk": 4}
# Lessons have more of what is hardest.
LESSONS_WITH_TOOLS = {"call": 26, "two calls": 46, "result": 18, "no fit": 5, "capital": 3, "small talk": 2}
WITHOUT_TOOLS = {"formula": 35, "no fit": 20, "capital": 30, "small talk": 15}


@dataclass(frozen=True)
class Conversation:
    """A prompt, as OpenAI-shaped messages and tools, and the raw text expected after it."""

    kind: str
    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...]
    thinking: bool | None
    expected: str
    facts: tuple[str, ...] = ()

    @property
    def thinks(self) -> bool:
        """Whether a think block is wanted; without a mode the prompt says `detailed thinking off`."""
        return bool(self.thinking)


@dataclass(frozen=True)
class _Turn:
    """What one last user turn leads to, before thinking mode and system text are chosen."""

    kind: str
    messages: list[dict[str, Any]]
    thought: str
    answer: str
    facts: tuple[str, ...] = ()


def held_out(seed: int) -> Iterator[Conversation]:
    """Single questions without end, with cities of their own; the same ones for the same seed."""
    rng = random.Random(f"held out {seed}")  # noqa: S311 - seeded on purpose
    while True:
        yield _lesson(rng, 1, phrases.HELD_OUT_CITIES, WITH_TOOLS)[0]


def lessons(seed: int) -> Iterator[list[Conversation]]:
    """Groups of one to five questions that share system prompt, tools and mode; the same ones for the same seed."""
    rng = random.Random(f"lessons {seed}")  # noqa: S311 - seeded on purpose
    while True:
        yield _lesson(rng, rng.choice((1, 2, 3, 4, 5)), phrases.CITIES, LESSONS_WITH_TOOLS)


def _lesson(rng: random.Random, turns: int, cities: Sequence[str], with_tools: Mapping[str, int]) -> list[Conversation]:
    kit = _kit(rng)
    specs = [tool.spec for tool in kit.values()]
    rng.shuffle(specs)
    thinking: bool | None = rng.random() < 0.5
    system = []
    if rng.random() < 0.15:
        system = [{"role": "system", "content": rng.choice(phrases.SYSTEM_TEXTS)}]
    elif not thinking and rng.random() < 0.3:
        thinking = None
    lesson = []
    for _ in range(turns):
        turn = _turn(rng, with_tools if kit else WITHOUT_TOOLS, kit, cities)
        expected = f"<think>\n{turn.thought}\n</think>\n\n{turn.answer}" if thinking else turn.answer
        messages = (*system, *turn.messages)
        lesson.append(Conversation(turn.kind, messages, tuple(specs), thinking, expected, turn.facts))
    return lesson


def _kit(rng: random.Random) -> dict[str, Tool]:
    """The tools of a lesson, by intent: none, or some."""
    if rng.random() < 0.15:
        return {}
    count = rng.choices((1, 2, 3), (4, 3, 3))[0]
    return {intent: toolbox.tool(rng, intent) for intent in rng.sample(list(toolbox.INTENTS), count)}


def _turn(rng: random.Random, kinds: Mapping[str, int], kit: Mapping[str, Tool], cities: Sequence[str]) -> _Turn:
    kind = rng.choices(list(kinds), list(kinds.values()))[0]
    if kind == "no fit" and len(kit) == len(toolbox.INTENTS):
        kind = "call"
    match kind:
        case "call" | "two calls" | "result":
            return _tool_turn(rng, kind, kit, cities)
        case "formula":
            wish = toolbox.ask(rng, "tip", cities)
            bill, percent = wish.values
            thought = "The question is about a tip. I have no tool, so I give the formula."
            answer = f"A tip of {percent} percent on {bill} is {bill} x {percent} / 100."
            return _Turn(kind, [_user(_asked(rng, wish))], thought, answer, (bill, percent))
        case "no fit":
            # Without any tool a tip is answered with the formula.
            missing = [name for name in toolbox.INTENTS if name not in kit and (kit or name != "tip")]
            wish = toolbox.ask(rng, rng.choice(missing), cities)
            topic = toolbox.INTENTS[wish.intent].topic
            thought = f"The question is about {topic}. None of my tools fits."
            return _Turn(kind, [_user(_asked(rng, wish))], thought, f"I have no tool for {topic}.")
        case "capital":
            country, city = rng.choice(list(phrases.CAPITALS.items()))
            question = _question(rng, rng.choice(phrases.CAPITAL_WORDINGS), {"k": country})
            thought = f"The question is about a capital. I know it: the capital of {country} is {city}."
            return _Turn(kind, [_user(question)], thought, f"The capital of {country} is {city}.", (city,))
        case _:
            pattern, answer = rng.choice(phrases.SMALL_TALK)
            question = phrases.expand(rng, pattern) + rng.choice(("", ".", "!", "?"))
            return _Turn(kind, [_user(question)], "This is small talk. I answer it myself.", answer)


def _tool_turn(rng: random.Random, kind: str, kit: Mapping[str, Tool], cities: Sequence[str]) -> _Turn:
    """A question with one or two wishes that tools fit, and, for a result, the call and what it returned."""
    wishes, question = _wishes(rng, kit, cities, two=kind == "two calls")
    calls = [toolbox.call_text(kit[wish.intent], wish) for wish in wishes]
    if kind != "result":
        return _Turn(kind, [_user(question)], _call_thought(wishes, kit), f"<TOOLCALL>[{', '.join(calls)}]</TOOLCALL>")
    returned = toolbox.result(rng, wishes[0])
    call = json.loads(calls[0])
    function = {"name": call["name"], "arguments": json.dumps(call["arguments"], ensure_ascii=False)}
    messages = [
        _user(question),
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "call_0", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "call_0", "content": returned.content},
    ]
    return _Turn(kind, messages, f"The result is there: {returned.sentence}", returned.sentence, returned.facts)


def _wishes(rng: random.Random, kit: Mapping[str, Tool], cities: Sequence[str], *, two: bool) -> tuple[list[Ask], str]:
    """One wish or two that the tools of *kit* fit, and the question that says so."""
    intents = list(kit)
    intent = rng.choice(intents)
    first = toolbox.ask(rng, intent, cities)
    if not two:
        return [first], _asked(rng, first)
    if len(intents) == 1 or rng.random() < 0.5:
        second = toolbox.ask(rng, intent, cities)
        slots = first.slots | {f"{name}2": words for name, words in second.slots.items()}
        return [first, second], _question(rng, rng.choice(phrases.PAIRS[intent]), slots)
    second = toolbox.ask(rng, rng.choice(intents), cities)
    texts = [
        _filled(phrases.expand(rng, rng.choice(phrases.WORDINGS[wish.intent])), wish.slots) for wish in (first, second)
    ]
    return [first, second], _closed(rng, rng.choice(phrases.JOINERS).join(texts))


def _call_thought(wishes: Sequence[Ask], kit: Mapping[str, Tool]) -> str:
    parts = []
    for wish in wishes:
        tool = kit[wish.intent]
        arguments = " and ".join(f"{name} {value}" for name, value in zip(tool.parameters, wish.values, strict=True))
        parts.append(f"I can call {tool.name} with {arguments}.")
    return " ".join(parts)


def _asked(rng: random.Random, wish: Ask) -> str:
    return _question(rng, rng.choice(phrases.WORDINGS[wish.intent]), wish.slots)


def _question(rng: random.Random, pattern: str, slots: dict[str, str]) -> str:
    return _closed(rng, _filled(phrases.expand(rng, pattern), slots))


def _closed(rng: random.Random, question: str) -> str:
    """*question* with a greeting before it and a mark behind it, or neither."""
    return rng.choice(phrases.OPENERS) + question + rng.choice(phrases.CLOSERS)


def _filled(pattern: str, slots: dict[str, str]) -> str:
    for name, words in slots.items():
        pattern = pattern.replace(f"{{{name}}}", words)
    return pattern


def _user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}

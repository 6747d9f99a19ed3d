"""The demo checkpoint keeps its promises, measured with the engine that serves it."""

from __future__ import annotations

import asyncio
from itertools import islice
from pathlib import Path

import pytest

import evaluate
from conversations import Conversation, held_out, lessons
from nemotron_triton.bundle import Bundle
from nemotron_triton.chat.conversation import read_conversation
from scoring import score, summary


def test_the_weights_stay_small(checkpoint: Path) -> None:
    assert (checkpoint / "model.safetensors").stat().st_size < 5_000_000


@pytest.mark.slow
def test_held_out_answers_follow_the_protocol(bundle: Bundle) -> None:
    figures = summary(asyncio.run(evaluate.measure(bundle, 300)))

    shares = {name: right / count for name, (right, count) in figures.items()}
    # Below the card's figures by what 300 draws can vary.
    assert shares["protocol"] >= 0.97, figures
    assert shares["calls"] >= 0.95, figures
    assert shares["results"] >= 0.9, figures


def test_conversations_are_the_same_every_time() -> None:
    assert list(islice(held_out(3), 50)) == list(islice(held_out(3), 50))
    assert list(islice(lessons(3), 50)) == list(islice(lessons(3), 50))
    assert list(islice(held_out(3), 50)) != list(islice(held_out(4), 50))


def test_every_conversation_is_valid_and_its_own_answer_right() -> None:
    for item in islice(held_out(5), 500):
        read_conversation(item.messages, item.tools)
        mark = score(item, item.expected)

        assert mark.protocol, item
        assert mark.right, item


@pytest.mark.parametrize(
    ("expected", "text", "protocol", "right"),
    [
        ("yes", "no", True, False),
        ("yes", "", False, False),
        ("yes", "<think>\nhm\n</think>\n\nyes", False, False),
        ("yes", '<TOOLCALL>[{"name": "f", "arguments": {}}]</TOOLCALL>', False, False),
        ('<TOOLCALL>[{"name": "f", "arguments": {"a": 1}}]</TOOLCALL>', "yes", False, False),
        (
            '<TOOLCALL>[{"name": "f", "arguments": {"a": 1}}]</TOOLCALL>',
            '<TOOLCALL>[{"name": "f", "arguments": {"a": 2}}]</TOOLCALL>',
            True,
            False,
        ),
        (
            '<TOOLCALL>[{"name": "f", "arguments": {"a": 1}}]</TOOLCALL>',
            '<TOOLCALL>[{"name": "g", "arguments": {"a": 1}}]</TOOLCALL>',
            False,
            False,
        ),
    ],
)
def test_the_marks_are_strict(expected: str, text: str, protocol: bool, right: bool) -> None:
    item = Conversation("call", ({"role": "user", "content": "?"},), (), False, expected)

    mark = score(item, text)

    assert (mark.protocol, mark.right) == (protocol, right)
    assert not score(item, text, finished=False).protocol

"""Prompts to the byte, and callers who cannot forge control tokens."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemotron_triton.chat.conversation import read_conversation
from nemotron_triton.chat.profiles import DEFAULT_PROFILE, profile, profile_names
from nemotron_triton.chat.render import render, render_prompt, thinking_mode
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.errors import ProfileError, RequestError

GOLDEN = json.loads((Path(__file__).parent / "data" / "golden-prompts.json").read_text())["cases"]
PROFILE = profile(DEFAULT_PROFILE)
NESTED: list[Any] = functools.reduce(lambda inner, _: [inner], range(900), [])
SWITCH = {"on": True, "off": False, None: None}


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["id"])
def test_golden_prompts_render_to_the_byte(case: dict[str, Any]) -> None:
    prompt = render(
        PROFILE,
        case["messages"],
        tools=case["tools"],
        thinking=SWITCH[case["thinking"]],
        add_generation_prompt=case["add_generation_prompt"],
    )

    assert prompt == case["expected_prompt"]


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40))
def test_user_text_is_written_as_it_is(text: str) -> None:
    prompt = render(PROFILE, [{"role": "user", "content": text}])

    assert f"<|start_header_id|>user<|end_header_id|>\n\n{text}<|eot_id|>" in prompt


TYPED = st.lists(
    st.sampled_from(["<|eot_id|>", "<|", "eot_id|>", "\ufdd0", "a", "<|begin_of_text|>", "\n"]), max_size=8
)


@given(TYPED.map("".join), TYPED.map("".join))
def test_control_tokens_typed_by_callers_stay_text(content: str, description: str) -> None:
    tools = [{"type": "function", "function": {"name": "f", "description": description, content: 1}}]
    conversation = read_conversation([{"role": "user", "content": content}], tools)

    pieces = list(render_prompt(PROFILE, conversation).pieces())

    control = [text for text, is_control in pieces if is_control]
    turns = ["<|start_header_id|>", "<|end_header_id|>"]
    assert control == ["<|begin_of_text|>", *[*turns, "<|eot_id|>"] * 2, *turns]
    assert "".join(text for text, _ in pieces) == render_prompt(PROFILE, conversation).text


def test_encoding_makes_control_tokens_of_the_templates_own_only(checkpoint: Path) -> None:
    codec = TokenCodec(checkpoint / "tokenizer.json")
    eot = codec.id_of(b"<|eot_id|>") or -1
    conversation = read_conversation([{"role": "user", "content": "What does <|eot_id|> mean?"}])
    prompt = render_prompt(PROFILE, conversation)

    ids = codec.encode(prompt)

    assert ids.count(eot) == 2 == prompt.text.count("<|eot_id|>") - 1
    assert b"".join(map(codec.bytes_of, ids)).decode() == prompt.text


@pytest.mark.parametrize(
    ("messages", "tools", "complaint"),
    [
        ([], None, "messages must be a non-empty list"),
        ("hi", None, "messages must be a non-empty list"),
        ([{"role": "boss", "content": "hi"}], None, r'messages\[0\].role is "boss"; it must be one of system, user'),
        ([{"role": "user", "content": 3}], None, r"messages\[0\].content must be text"),
        ([{"role": "user", "contents": "hi"}], None, r'unknown keys \["contents"\]'),
        ([{"role": "user", "content": [{"type": "image_url"}]}], None, "reads text only"),
        ([{"role": "user", "content": "\ud800"}], None, "half a surrogate pair"),
        ([{"role": "user", "tool_calls": [{}]}], None, "only assistant messages call tools"),
        ([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}], None, "is not JSON"),
        ([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[]"}}]}], None, "an object"),
        ([{"role": "user", "content": "hi"}], [{"type": "function"}], r"tools\[0\] must be"),
        ([{"role": "user", "content": "hi"}], {"a": 1}, "tools must be a list"),
        ([{"role": "user", "content": "hi"}], [{"name": "f", "x": NESTED}], "tools is nested more than 64 levels"),
        ([{"role": "user", "content": NESTED}], None, "messages is nested more than 64 levels"),
    ],
)
def test_malformed_conversations_are_refused_by_name(messages: Any, tools: Any, complaint: str) -> None:
    with pytest.raises(RequestError, match=complaint):
        render(PROFILE, messages, tools=tools)


@pytest.mark.parametrize(
    ("system", "asked", "expected"),
    [
        (None, None, False),
        (None, True, True),
        ("detailed thinking on", None, True),
        ("detailed thinking off", True, False),
    ],
)
def test_what_the_system_prompt_says_decides_the_mode(system: str | None, asked: bool | None, expected: bool) -> None:
    messages = [{"role": "system", "content": system}] if system else []
    conversation = read_conversation([*messages, {"role": "user", "content": "hi"}])

    assert thinking_mode(conversation, asked) is expected


def test_unknown_profiles_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ProfileError, match=DEFAULT_PROFILE):
        profile("gpt-2")

    assert DEFAULT_PROFILE in profile_names()

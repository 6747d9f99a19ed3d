"""What is kept of earlier requests changes no later one, and stays within its bound."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemotron_client import wire
from nemotron_triton.chat.content_cache import ContentCache
from nemotron_triton.chat.conversation import read_conversation, read_functions
from nemotron_triton.chat.profiles import TEMPLATES, profile, profile_names
from nemotron_triton.chat.render import RenderOptions, render_prompt
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.errors import RequestError
from nemotron_triton.serving.prompt_request import read_tools
from nemotron_triton.serving.settings import Settings

# What templates look at, and what stands for something in a prompt that is kept.
TEXTS = st.lists(
    st.sampled_from(["a", " ", "\n", "<|eot_id|>", "<|im_end|>", "<think>", "</think>", "\ufdd0", "\ufdef", "é"]),
    max_size=5,
).map("".join)
TOOLS = st.lists(st.builds(lambda text: {"type": "function", "function": {"name": "f", "description": text}}, TEXTS))
TURNS = st.lists(
    st.builds(
        lambda role, text: {"role": role, "content": text}, st.sampled_from(["user", "assistant", "tool"]), TEXTS
    ),
    max_size=3,
)
OPTIONS = st.builds(RenderOptions, thinking=st.sampled_from([True, False, None]), add_generation_prompt=st.booleans())


@pytest.fixture(scope="module")
def codec(checkpoint: Path) -> TokenCodec:
    return TokenCodec(checkpoint / "tokenizer.json")


@given(
    name=st.sampled_from(profile_names()),
    turns=TURNS,
    tools=TOOLS,
    options=OPTIONS,
    questions=st.lists(TEXTS, min_size=1, max_size=3),
)
def test_a_prompt_does_not_depend_on_what_was_asked_before(
    codec: TokenCodec, name: str, turns: list[Any], tools: list[Any], options: RenderOptions, questions: list[str]
) -> None:
    of_model = profile(name)
    # A template that is not our own is rendered for every request.
    template = (TEMPLATES / f"{of_model.prompt_format}.jinja").read_text()

    for question in questions:
        conversation = read_conversation([*turns, {"role": "user", "content": question}], tools)
        kept = render_prompt(of_model, conversation, options)
        fresh = render_prompt(of_model, conversation, replace(options, template=template))

        assert kept == fresh
        pieces = [
            [codec.control_id(text)] if is_control and codec.control_id(text) else codec.encode_text(text)
            for text, is_control in fresh.pieces()
        ]
        assert codec.encode(kept) == list(itertools.chain.from_iterable(pieces))


def test_tools_are_read_once_and_bad_ones_each_time() -> None:
    tools = '[{"type": "function", "function": {"name": "f"}}]'

    first, second = (read_tools({wire.TOOLS: tools}, Settings()) for _ in range(2))

    assert first is second
    assert first == read_functions([{"name": "f"}])
    for _ in range(2):
        with pytest.raises(RequestError, match=r"tools\[0\] must be"):
            read_tools({wire.TOOLS: "[1]"}, Settings())
    with pytest.raises(RequestError, match="at most 0 are accepted"):
        read_tools({wire.TOOLS: tools}, Settings(max_tools=0))


def test_a_cache_keeps_what_was_used_last_within_its_bound() -> None:
    cache: ContentCache[int] = ContentCache(max_characters=80)
    made: list[str] = []

    def get(text: str) -> int:
        def make() -> int:
            made.append(text)
            return len(text)

        return cache.get((text,), make)

    texts = [f"{number:010}" for number in range(8)]
    for text in [*texts, texts[0], "x" * 10, texts[0], texts[1], "y" * 11, "y" * 11]:
        assert get(text) == len(text)

    # The second was used least recently when the ninth came; what is larger than an eighth is not kept.
    assert made == [*texts, "x" * 10, texts[1], "y" * 11, "y" * 11]

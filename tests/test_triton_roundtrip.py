"""An answer survives rendering, tokenising, detokenising and parsing, in every profile, with a real tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer

from conftest import CHECKPOINT
from nemotron_client.events import ContentDelta, Event, ReasoningDelta, ToolCall
from nemotron_triton.chat.answer import AnswerParser, answer_rules
from nemotron_triton.chat.conversation import read_conversation
from nemotron_triton.chat.profiles import Profile, profile, profile_names
from nemotron_triton.chat.reasoning import Thinking, begins
from nemotron_triton.chat.render import Prompt, RenderOptions, render_prompt
from nemotron_triton.chat.tokens import Detokenizer, TokenCodec

TEXT = st.text(
    alphabet=st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="<") | st.just("\n"), max_size=20
)
SCRIPTS = st.lists(st.sampled_from(["日本語", "🧭👩‍🚀", "שלום", "مرحبا", "žluť", "a", " ", "\n", "ß"]), max_size=6).map(
    "".join
)
WORDS = TEXT | SCRIPTS
NAMES = st.text(alphabet="abcdefgh_", min_size=1, max_size=8)
ARGUMENTS = st.dictionaries(NAMES, WORDS, max_size=3)


@pytest.fixture(scope="module")
def codecs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TokenCodec]:
    """The demo's tokenizer with each profile's control tokens in it."""
    codecs = {}
    for name in profile_names():
        tokenizer = Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))
        tokenizer.add_special_tokens([AddedToken(text, special=True) for text in profile(name).control_tokens])
        path: Path = tmp_path_factory.mktemp(name) / "tokenizer.json"
        tokenizer.save(str(path))
        codecs[name] = TokenCodec(path)
    return codecs


@pytest.mark.parametrize("name", profile_names())
@given(
    question=WORDS,
    result=WORDS,
    reasoning=WORDS,
    content=WORDS,
    calls=st.lists(st.tuples(NAMES, ARGUMENTS), max_size=3),
    thinking=st.booleans(),
)
def test_an_answer_comes_back_from_its_own_rendering(
    codecs: dict[str, TokenCodec],
    name: str,
    question: str,
    result: str,
    reasoning: str,
    content: str,
    calls: list[tuple[str, dict[str, str]]],
    thinking: bool,
) -> None:
    known = profile(name)
    tools = [{"type": "function", "function": {"name": tool}} for tool in {tool for tool, _ in calls}]
    turns: list[dict[str, Any]] = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": None, "tool_calls": [call("look", {"at": question})]},
        {"role": "tool", "content": result},
    ]
    answer: dict[str, Any] = {"role": "assistant", "content": content}
    if thinking:
        answer["reasoning_content"] = reasoning
    if calls:
        answer["tool_calls"] = [call(*arguments) for arguments in calls]
    prompt = render_prompt(known, read_conversation(turns, tools), RenderOptions(thinking=thinking))
    options = RenderOptions(thinking=thinking, add_generation_prompt=False)
    whole = render_prompt(known, read_conversation([*turns, answer], tools), options)
    assume(whole.text.startswith(prompt.text))
    raw = whole.text[len(prompt.text) :]

    events = parsed(known, codecs[name], prompt, raw, tools)

    text = "".join(event.text for event in events if isinstance(event, ContentDelta))
    thought = "".join(event.text for event in events if isinstance(event, ReasoningDelta))
    assert text.strip() == content.strip()
    # The Llama templates do not repeat what was thought in earlier turns.
    assert thought.strip() == (reasoning.strip() if thinking and beginning_of(known, prompt) == "opened" else "")
    assert [(event.name, event.arguments) for event in events if isinstance(event, ToolCall)] == calls


def parsed(known: Profile, codec: TokenCodec, prompt: Prompt, raw: str, tools: list[dict[str, Any]]) -> list[Event]:
    """The events when a model writes *raw*, token by token, after *prompt*."""
    ids = codec.encode(Prompt(raw, prompt.marker, prompt.control_tokens))
    functions = read_conversation([{"role": "user", "content": ""}], tools).functions
    parser = AnswerParser(answer_rules(known, functions, begins=beginning_of(known, prompt)))
    detokenizer = Detokenizer(codec)
    events = [event for token in ids for event in parser.feed(detokenizer.feed([token]))]
    return [*events, *parser.feed(detokenizer.finish()), *parser.finish()]


def beginning_of(known: Profile, prompt: Prompt) -> Thinking:
    return begins(known.reasoning_format, thinking=False, prompt=prompt.text)


def call(name: str, arguments: dict[str, str]) -> dict[str, Any]:
    return {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}

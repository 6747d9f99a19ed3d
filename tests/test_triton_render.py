"""Prompts to the byte, and callers who cannot forge control tokens."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemotron_triton.chat.conversation import read_choice, read_conversation, read_functions
from nemotron_triton.chat.profiles import DEFAULT_PROFILE, profile, profile_names
from nemotron_triton.chat.reasoning import begins
from nemotron_triton.chat.render import RenderOptions, render_options, render_prompt, thinking_mode
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.errors import ProfileError, RequestError

GOLDEN = json.loads((Path(__file__).parent / "data" / "golden-prompts.json").read_text())["cases"]
PROFILE = profile(DEFAULT_PROFILE)
NESTED: list[Any] = functools.reduce(lambda inner, _: [inner], range(900), [])
SWITCH = {"on": True, "off": False, None: None}


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["id"])
def test_golden_prompts_render_to_the_byte(case: dict[str, Any]) -> None:
    kwargs = {key: value for key, value in case["chat_template_kwargs"].items() if key != "enable_thinking"}
    options = RenderOptions(
        thinking=SWITCH[case["thinking"]],
        add_generation_prompt=case["add_generation_prompt"],
        template_kwargs=kwargs,
    )

    prompt = render_prompt(profile(case["model"]), read_conversation(case["messages"], case["tools"]), options)

    assert prompt.text == case["expected_prompt"]


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40))
def test_user_text_is_written_as_it_is(text: str) -> None:
    prompt = render_prompt(PROFILE, read_conversation([{"role": "user", "content": text}]))

    assert f"<|start_header_id|>user<|end_header_id|>\n\n{text}<|eot_id|>" in prompt.text


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
        ([{"role": "user", "tool_calls": [{}]}], None, "only assistant messages call tools"),
        ([{"role": "user", "content": "hi"}], [{"type": "function"}], r"tools\[0\] must be"),
        ([{"role": "user", "content": "hi"}], {"a": 1}, "tools must be a list"),
        (
            [{"role": "user", "content": "hi"}],
            [{"type": "web_search_20250305", "name": "web_search"}],
            r'tools\[0\].type is "web_search_20250305"; this model calls functions only',
        ),
        ([{"role": "user", "content": "hi"}], [{"name": "f", "x": NESTED}], "tools is nested more than 64 levels"),
        ([{"role": "user", "content": NESTED}], None, "messages is nested more than 64 levels"),
    ],
)
def test_malformed_conversations_are_refused_by_name(messages: Any, tools: Any, complaint: str) -> None:
    with pytest.raises(RequestError, match=complaint):
        read_conversation(messages, tools)


@pytest.mark.parametrize(
    ("system", "asked", "mode", "text"),
    [
        (None, None, False, "detailed thinking off"),
        (None, True, True, "detailed thinking on"),
        ("detailed thinking on", None, True, "detailed thinking on"),
        ("detailed thinking off", True, True, "detailed thinking on"),
        ("detailed thinking on\n\nBe brief.", False, False, "detailed thinking off\n\nBe brief."),
        ("Be brief.\n  detailed thinking on \r\nNow.", None, True, "Be brief.\n  detailed thinking on \r\nNow."),
        ("Be brief.\n  detailed thinking on \r\nNow.", False, False, "Be brief.\ndetailed thinking off\r\nNow."),
        ("detailed thinking on\ndetailed thinking off", True, True, "detailed thinking on\ndetailed thinking on"),
        ("Say 'detailed thinking on'.", None, False, "Say 'detailed thinking on'."),
        ("detailed thinking on the user: be kind", None, False, "detailed thinking on the user: be kind"),
        (
            "detailed thinking on the user: be kind",
            True,
            True,
            "detailed thinking on\n\ndetailed thinking on the user: be kind",
        ),
    ],
)
def test_a_typed_mode_wins_over_a_line_of_the_system_prompt_and_replaces_it(
    system: str | None, asked: bool | None, mode: bool, text: str
) -> None:
    messages = [{"role": "system", "content": system}] if system else []
    conversation = read_conversation([*messages, {"role": "user", "content": "hi"}])

    prompt = render_prompt(PROFILE, conversation, RenderOptions(thinking=asked))

    assert thinking_mode(PROFILE, conversation, asked) is mode
    assert f"system<|end_header_id|>\n\n{text}<|eot_id|>" in prompt.text


def test_the_line_of_the_system_prompt_is_text_to_a_model_that_is_switched_elsewhere() -> None:
    conversation = read_conversation([{"role": "system", "content": "detailed thinking off"}])
    nemotron_3 = profile("nemotron-3-nano-4b")

    assert thinking_mode(nemotron_3, conversation, None) is True
    assert (
        "\ndetailed thinking off<|im_end|>"
        in render_prompt(nemotron_3, conversation, RenderOptions(thinking=True)).text
    )


@pytest.mark.parametrize(
    ("thinking", "kwargs", "mode"),
    [
        (None, {"thinking": True}, True),
        (None, {"enable_thinking": False}, False),
        (None, {"thinking": False, "enable_thinking": False}, False),
        (None, {"thinking": None, "enable_thinking": True}, True),
        (None, {"thinking": None}, None),
        (False, {"thinking": True}, False),
    ],
)
def test_the_switch_has_two_names_among_the_template_options(
    thinking: bool | None, kwargs: dict[str, Any], mode: bool | None
) -> None:
    options = render_options(thinking, kwargs)

    assert (options.thinking, options.template_kwargs) == (mode, {})


@pytest.mark.parametrize(
    ("kwargs", "complaint"),
    [
        ({"thinking": "on"}, "chat_template_kwargs.thinking must be true or false"),
        ({"thinking": True, "enable_thinking": False}, "which mean the same; give one of them"),
    ],
)
def test_a_switch_that_is_none_or_contradicts_itself_is_refused(kwargs: dict[str, Any], complaint: str) -> None:
    with pytest.raises(RequestError, match=complaint):
        render_options(None, kwargs)


@pytest.mark.parametrize(
    ("name", "message", "end", "beginning"),
    [
        (PROFILE.name, {"content": "The tip is "}, "assistant<|end_header_id|>\n\nThe tip is ", "none"),
        (PROFILE.name, {"content": "<think>\nLet"}, "assistant<|end_header_id|>\n\n<think>\nLet", "opened"),
        (PROFILE.name, {"reasoning": "Let"}, "assistant<|end_header_id|>\n\n<think>\nLet", "opened"),
        (PROFILE.name, {"content": "<think>\na\n</think>\n\nIt"}, "assistant<|end_header_id|>\n\nIt", "none"),
        (PROFILE.name, {"content": ""}, "assistant<|end_header_id|>\n\n", "model opens"),
        ("llama-nemotron-nano-8b-v1", {"content": "It is "}, "assistant<|end_header_id|>\n\nIt is ", "none"),
        ("nemotron-3-nano-4b", {"content": "It is "}, "assistant\n<think></think>It is ", "none"),
        ("nemotron-3-nano-4b", {"content": ""}, "assistant\n<think></think>", "none"),
        ("nemotron-3-nano-4b", {"reasoning": "Let"}, "assistant\n<think>\nLet", "opened"),
        ("nemotron-3-nano-4b", {"reasoning": "a", "content": "It"}, "assistant\n<think>\na\n</think>\nIt", "none"),
    ],
)
def test_a_last_message_is_continued_on_demand(name: str, message: dict[str, str], end: str, beginning: str) -> None:
    known = profile(name)
    conversation = read_conversation([{"role": "user", "content": "u"}, {"role": "assistant", **message}])
    options = RenderOptions(thinking=True, continue_final_message=True)

    prompt = render_prompt(known, conversation, options)

    assert prompt.text.endswith(end)
    begun = begins(known.reasoning_format, thinking=True, prompt=prompt.text, continued=prompt.continued)
    assert begun == beginning


def test_a_last_message_is_closed_and_answered_where_it_is_not_continued() -> None:
    conversation = read_conversation([{"role": "user", "content": "u"}, {"role": "assistant", "content": "It is"}])

    prompt = render_prompt(PROFILE, conversation)

    assert prompt.text.endswith("It is<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n")


def test_a_published_template_continues_too_and_one_that_cannot_says_so() -> None:
    conversation = read_conversation([{"role": "user", "content": "u"}, {"role": "assistant", "content": " It is "}])
    template = "{% for m in messages %}[{{ m.content | trim }}]{% endfor %}A:"

    prompt = render_prompt(PROFILE, conversation, RenderOptions(continue_final_message=True, template=template))

    assert prompt.text == "[detailed thinking off][u][It is "
    with pytest.raises(RequestError, match="leaves the last message out"):
        render_prompt(PROFILE, conversation, RenderOptions(continue_final_message=True, template="A:"))


@pytest.mark.parametrize(
    ("last", "complaint"),
    [
        ({"role": "user", "content": "u"}, "continue_final_message is true, but the last message is the user's"),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}, "but the last message calls tools"),
    ],
)
def test_what_is_no_answer_cannot_be_continued(last: dict[str, Any], complaint: str) -> None:
    with pytest.raises(RequestError, match=complaint):
        render_prompt(PROFILE, read_conversation([*TURNS, last]), RenderOptions(continue_final_message=True))


TURNS = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
CHATML = """{% for message in messages %}
<{{ message.role }}>{{ message.content }}
{% endfor %}
{{ '<think>' if enable_thinking }}"""


@pytest.mark.parametrize("key", ["input_schema", "inputSchema"])
def test_a_tool_of_another_api_has_its_parameters(key: str) -> None:
    parameters = {"type": "object", "properties": {"a": {"type": "integer"}}}

    (function,) = read_functions([{"name": "f", "description": "F.", key: parameters}])

    assert function == {"name": "f", "description": "F.", "parameters": parameters}


def test_another_template_sees_what_hugging_face_templates_see() -> None:
    options = RenderOptions(thinking=True, template=CHATML)

    prompt = render_prompt(profile("nemotron-3-nano-4b"), read_conversation(TURNS), options)

    assert prompt.text == "<system>s\n<user>u\n<think>"
    assert begins("think_tags_model_opens", thinking=False, prompt=prompt.text) == "opened"


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("{% if %}", "refused"),
        ("{{ messages[9].content.x }}", "refused"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ ''.__class__.__mro__ }}", "refused"),
        ("{{ messages.append(1) }}", "refused"),
        ("{{ 1 // 0 }}", "refused"),
    ],
)
def test_a_template_that_fails_or_reaches_out_is_one_line(template: str, complaint: str) -> None:
    with pytest.raises(RequestError, match=f"chat template.*{complaint}"):
        render_prompt(PROFILE, read_conversation(TURNS), RenderOptions(template=template))


@pytest.mark.parametrize(
    ("name", "kwargs", "complaint"),
    [
        (
            "nemotron-3-nano-4b",
            {"prefill_empty_think": True},
            r'\["prefill_empty_think"\]; nemotron-3-nano-4b knows',
        ),
        (DEFAULT_PROFILE, {"messages": []}, "messages"),
    ],
)
def test_unknown_template_options_are_refused_by_name(name: str, kwargs: dict[str, Any], complaint: str) -> None:
    with pytest.raises(RequestError, match=complaint):
        render_prompt(profile(name), read_conversation(TURNS), RenderOptions(template_kwargs=kwargs))


def test_think_tags_from_users_stay_text_and_from_assistants_are_tokens() -> None:
    turns = [
        {"role": "user", "content": "What is </think>?"},
        {"role": "assistant", "content": "<think>\na\n</think>\nA tag."},
    ]
    pieces = render_prompt(
        profile("nemotron-3-nano-4b"), read_conversation(turns), RenderOptions(add_generation_prompt=False)
    ).pieces()

    control = [text for text, is_control in pieces if is_control]
    assert control == ["<|im_start|>", "<|im_end|>"] * 2 + ["<|im_start|>", "<think>", "</think>", "<|im_end|>"]


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        ("always", 'tool_choice is "always"; it must be auto, none, required'),
        ({"type": "function"}, "it must be auto"),
        ({"type": "function", "function": {"name": "g"}}, 'names the function "g", which is not among the tools'),
    ],
)
def test_an_impossible_tool_choice_is_refused(raw: object, complaint: str) -> None:
    with pytest.raises(RequestError, match=complaint):
        read_choice(raw, [{"name": "f"}])


def test_a_call_cannot_be_required_without_tools() -> None:
    with pytest.raises(RequestError, match="no tools to call"):
        read_choice("required", [])


def test_profiles_are_found_by_repository_and_alias() -> None:
    for name in profile_names():
        known = profile(name)
        assert {profile(alias).name for alias in (known.repository, *known.aliases, name.upper())} == {name}


def test_unknown_profiles_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ProfileError, match=DEFAULT_PROFILE):
        profile("gpt-2")

    assert DEFAULT_PROFILE in profile_names()


def test_unknown_options_are_quoted_and_cut() -> None:
    conversation = read_conversation([{"role": "user", "content": "Hello"}])
    options = RenderOptions(template_kwargs={"x" * 100_000: 1})

    with pytest.raises(
        RequestError, match=r'^chat_template_kwargs has \["x+\.\.\.; .* knows enable_thinking'
    ) as caught:
        render_prompt(PROFILE, conversation, options)

    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("kwargs", [{"a": "\ud800"}, {"\ud800": 1}, {"a": [{"b": "x\udfff"}]}, {"a": NESTED}])
def test_options_that_no_prompt_can_hold_are_refused(kwargs: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=r"^chat_template_kwargs (holds half a surrogate pair|is nested)"):
        render_options(None, kwargs)

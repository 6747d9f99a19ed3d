"""Earlier turns: what came as an answer is accepted as a message, and is rendered as it was written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_requests import read, refusal
from nemotron_client import AssistantMessage, Finish, Reply, ToolCall, Usage, UserMessage
from nemotron_client.messages import MessageLike, openai_messages
from nemotron_client.tools import ToolResult
from nemotron_triton.chat.answer import AnswerParser, answer_rules
from nemotron_triton.chat.conversation import read_conversation
from nemotron_triton.chat.profiles import DEFAULT_PROFILE, profile, profile_names
from nemotron_triton.chat.reasoning import begins
from nemotron_triton.chat.render import RenderOptions, render_prompt
from nemotron_triton.errors import RequestError
from past_calls import ASK, asked, prompt, result

LLAMA, NEMOTRON_3 = profile(DEFAULT_PROFILE), profile("nemotron-3-nano-4b")
NO_USAGE = Usage(input_tokens=0, output_tokens=0, reasoning_tokens=0)
PUBLISHED_CALLS = (
    "{% for message in messages %}{% for call in message.tool_calls %}{% for k, v in call.function.arguments | items %}"
    "{{ k }}={{ v }};{% endfor %}{% endfor %}{% endfor %}"
)


ARGUMENTS = '{"z": 100.10, "n": 12345678901234567.89, "e": 1e400, "m": -0, "o": {"k": 1, "k": 2.50}, "z": [1E5]}'


@pytest.mark.parametrize("as_text", [True, False])
def test_arguments_keep_their_digits_their_order_and_their_keys(as_text: bool) -> None:
    arguments = json.dumps(ARGUMENTS) if as_text else ARGUMENTS
    call = f'{{"id": "a", "function": {{"name": "f", "arguments": {arguments}}}}}'
    request = read(
        messages=f'[{{"role": "user", "content": "Go on."}}, {{"role": "assistant", "tool_calls": [{call}]}}]'
    )
    assert request.conversation

    llama, nemotron_3 = (render_prompt(known, request.conversation).text for known in (LLAMA, NEMOTRON_3))

    assert f'<TOOLCALL>[{{"name": "f", "arguments": {ARGUMENTS}}}]</TOOLCALL>' in llama
    assert "<parameter=z>\n100.10\n</parameter>\n<parameter=n>\n12345678901234567.89\n</parameter>" in nemotron_3
    assert '<parameter=o>\n{"k": 1, "k": 2.50}\n</parameter>\n<parameter=z>\n[1E5]\n</parameter>' in nemotron_3


def test_an_exact_number_where_none_may_be_is_shown_as_it_was_written() -> None:
    assert "messages[0].content must be text, null or a list of text parts, got 1.50" in refusal(
        messages='[{"role": "user", "content": 1.50}]'
    )


def test_what_only_looks_like_an_exact_number_is_text() -> None:
    text = prompt(ASK, asked("a", arguments={"x": "100.10", "y": "1e400"}))

    assert '{"x": "100.10", "y": "1e400"}' in text


DEEP = "[" * 100 + "]" * 100
VERY_DEEP = '{"a": ' + "[" * 100_000


@pytest.mark.parametrize(
    ("arguments", "as_json", "as_value"),
    [
        ('["ls"]', '["ls"]', '["ls"]'),
        ('"ls"', '"ls"', "ls"),
        ('{"path": "/tmp', '{"path": "/tmp', '{"path": "/tmp'),
        ("7", "7", "7"),
        ("{} {}", "{} {}", "{} {}"),
        (DEEP, DEEP, DEEP),
        (VERY_DEEP, VERY_DEEP, VERY_DEEP),
    ],
    ids=["list", "text", "cut", "number", "two objects", "deep", "very deep"],
)
def test_arguments_that_are_no_object_are_said_as_they_are(arguments: str, as_json: str, as_value: str) -> None:
    messages = [ASK, asked("a", arguments=arguments), result("no", "a")]

    llama, nemotron_3 = prompt(*messages), prompt(*messages, model=NEMOTRON_3.name)
    published = prompt(*messages, model=NEMOTRON_3.name, options=RenderOptions(template=PUBLISHED_CALLS))

    assert f'<TOOLCALL>[{{"name": "f_a", "arguments": {as_json}}}]</TOOLCALL>' in llama
    assert f"<function=f_a>\n<parameter=arguments>\n{as_value}\n</parameter>\n</function>" in nemotron_3
    assert published.startswith("arguments=")
    assert [call.name for call in read_conversation(messages).malformed_calls] == ["f_a"]


@pytest.mark.parametrize("arguments", ["", " \n", "null", None, {}, "{}"])
def test_no_arguments_are_an_empty_object(arguments: Any) -> None:
    messages = [ASK, asked("a", arguments=arguments)]

    assert '{"name": "f_a", "arguments": {}}' in prompt(*messages)
    assert read_conversation(messages).malformed_calls == ()


@pytest.mark.parametrize(
    "arguments", ['{"a": "<|eot_id|>', '{"a": "<|eot_id|>", "a": 1.0}', '{"a": ["<|eot_id|>", 1.00]}']
)
def test_control_tokens_in_exact_arguments_stay_text(arguments: str) -> None:
    pieces = render_prompt(LLAMA, read_conversation([ASK, asked("a", arguments=arguments)])).pieces()

    assert [text for text, is_control in pieces if is_control].count("<|eot_id|>") == 3


def test_a_broken_text_cannot_pass_for_another_conversation() -> None:
    """A prompt that is kept for one caller must not be what another one's crafted arguments look like."""
    plain = [ASK, asked("a", arguments='{"x": 1}'), result("1", "a"), ASK]
    crafted = [ASK, asked("a", arguments='{"x": 1'), result("1", "a"), ASK]

    assert '"arguments": {"x": 1}}' in prompt(*plain)
    assert '"arguments": {"x": 1}]' in prompt(*crafted)
    assert '"arguments": {"x": 1}}' in prompt(*plain)


@pytest.mark.parametrize(
    ("arguments", "rendered"),
    [
        (r'{"a": "\ud83d"}', '{"a": "\ufffd"}'),
        (r'{"\udc00": "\ud83d\ude00"}', '{"\ufffd": "😀"}'),
        ({"a": "\ud83d!"}, '{"a": "\ufffd!"}'),
        (r'{"a": "\\ud83d', r'{"a": "\\ud83d'),
        (r'{"a": "\ud83d', r'{"a": "\ufffd'),
    ],
)
def test_half_a_character_in_arguments_is_replaced(arguments: Any, rendered: str) -> None:
    assert f'"arguments": {rendered}' in prompt(ASK, asked("a", arguments=arguments))


def test_half_a_character_in_a_message_is_replaced() -> None:
    answer = r'{"role": "assistant", "content": [{"type": "text", "text": "\ude00"}]}'
    messages = rf'[{{"role": "user", "content": "a\ud83dz"}}, {answer}]'
    conversation = read(messages=messages).conversation

    assert conversation
    assert [message.content for message in conversation.messages] == ["a\ufffdz", "\ufffd"]


def test_half_a_character_in_a_call_goes_out_replaced() -> None:
    parser = AnswerParser(answer_rules(LLAMA, None, begins="none"))

    (call,) = (
        event
        for event in [
            *parser.feed(r'<TOOLCALL>[{"name": "f", "arguments": {"a": "\ud83d", "b": "\ud83d\ude00"}}]</TOOLCALL>'),
            *parser.finish(),
        ]
        if isinstance(event, ToolCall)
    )

    assert call.arguments == {"a": "\ufffd", "b": "😀"}


MODEL_DUMP: dict[str, Any] = {
    "content": "b",
    "refusal": None,
    "role": "assistant",
    "annotations": [],
    "audio": None,
    "function_call": None,
    "tool_calls": None,
}


@pytest.mark.parametrize(
    "message",
    [
        MODEL_DUMP,
        {"role": "assistant", "content": "b", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
        {"role": "assistant", "content": "b", "annotations": [{"type": "url_citation"}], "refusal": "no"},
        {"role": "assistant", "content": "b", "cache_control": {"type": "ephemeral"}},
        {"role": "assistant", "content": "b", "images": None, "thinking_blocks": [], "provider": {}, "x": ""},
        {"role": "assistant", "content": "b", "id": "msg_1", "parsed": {"x": 1}},
        {
            "role": "assistant",
            "content": "b",
            "provider_specific_fields": {"refusal": None},
            "thinking_blocks": [{"type": "thinking", "thinking": "hm"}],
        },
        {"role": "assistant", "content": [{"type": "output_text", "text": "b", "annotations": []}]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "b"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "b", "cache_control": {"type": "ephemeral"}}]},
        {"role": "assistant", "content": [{"type": "input_text", "text": "b"}]},
    ],
    ids=lambda message: ", ".join(message),
)
def test_messages_of_openai_clients_are_read(message: dict[str, Any]) -> None:
    assert prompt(ASK, message) == prompt(ASK, {"role": "assistant", "content": "b"})


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        ({"role": "user", "content": "b", "images": ["x"]}, r'messages\[0\] has unknown keys \["images"\]'),
        ({"role": "user", "content": "b", "prefix": False}, r'messages\[0\] has unknown keys \["prefix"\]'),
        ({"role": "user", "content": [{"type": "input_audio", "text": "b"}]}, "reads text only"),
        ({"role": "user", "content": [{"type": "refusal", "text": "b"}]}, "reads text only"),
        ({"role": "user", "content": [{"type": ["text"], "text": "b"}]}, "reads text only"),
    ],
)
def test_what_carries_something_unknown_is_refused(message: dict[str, Any], complaint: str) -> None:
    with pytest.raises(RequestError, match=complaint):
        prompt(message)


@pytest.mark.parametrize("model", profile_names())
def test_a_developer_is_the_system(model: str) -> None:
    ours, theirs = ({"role": role, "content": "detailed thinking on\n\nBe kind."} for role in ("system", "developer"))

    assert prompt(theirs, ASK, model=model) == prompt(ours, ASK, model=model)


def test_tools_of_anthropic_clients_are_read() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    tool = {"name": "f", "description": "d", "input_schema": schema, "cache_control": {"type": "ephemeral"}}

    conversation = read_conversation([ASK], [tool])

    assert list(conversation.functions[0].items()) == [("name", "f"), ("description", "d"), ("parameters", schema)]


@pytest.mark.parametrize(
    ("tool", "complaint"),
    [
        ({"name": "f", "input_schema": {}, "parameters": {}}, r"tools\[0\] has both parameters and input_schema"),
        ({"name": "f", "input_schema": None}, r"tools\[0\].input_schema must be a JSON Schema, got null"),
    ],
)
def test_half_an_anthropic_tool_is_refused(tool: dict[str, Any], complaint: str) -> None:
    with pytest.raises(RequestError, match=complaint):
        read_conversation([ASK], [tool])


NUMBERS = ["18", "100.10", "12345678901234567.89", "1e400", "1E5", "-0", "1e2"]


@pytest.mark.parametrize("text", ["", "Let me look."])
@pytest.mark.parametrize("model", profile_names())
@given(
    st.lists(
        st.dictionaries(st.sampled_from("abc"), st.sampled_from([*NUMBERS, '["x", 1.50]']), min_size=1), min_size=1
    )
)
def test_the_next_prompt_begins_with_the_prompt_and_the_answer_as_it_was_written(
    model: str, text: str, calls: list[dict[str, str]]
) -> None:
    """So the engine finds both in its KV cache."""
    known = profile(model)
    properties = {key: {"type": ["number", "array"]} for key in "abc"}
    tools = [{"name": "f", "parameters": {"type": "object", "properties": properties}}]
    before = read_conversation([ASK], tools)
    written = render_prompt(known, before).text
    objects = [f"{{{', '.join(f'{json.dumps(key)}: {value}' for key, value in call.items())}}}" for call in calls]
    if known.tool_call_format == "nemotron_json":
        listed = ", ".join(f'{{"name": "f", "arguments": {arguments}}}' for arguments in objects)
        answer = f"{text}<TOOLCALL>[{listed}]</TOOLCALL>"
    else:
        blocks = (
            "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in call.items()) for call in calls
        )
        functions = "".join(f"<tool_call>\n<function=f>\n{block}</function>\n</tool_call>\n" for block in blocks)
        answer = f"I think.\n</think>\n{text}{text and chr(10)}{functions}"
    begun = begins(known.reasoning_format, thinking=False, prompt=written)

    parser = AnswerParser(answer_rules(known, before.functions, begins=begun))
    reply = Reply.of([*parser.feed(answer), *parser.finish(), Finish(reason="stop", usage=NO_USAGE)])
    results = [result("ok", call.id) for call in reply.tool_calls]
    turns = [ASK, reply.message.as_openai(), *results]

    assert render_prompt(known, read_conversation(turns, tools)).text.startswith(written + answer)


MARKUP = [
    *("<think>", "</think>", "\n", " ", "<tool_call>", "</tool_call>", "<function=f>", "</function>", "<parameter=x>"),
    *(
        "</parameter>",
        "<TOOLCALL>",
        "</TOOLCALL>",
        "[",
        "]",
        "{",
        "}",
        '"',
        ",",
        ":",
        '"name"',
        '"arguments"',
        "100.10",
    ),
    *(
        '"f"',
        "1e400",
        r"\ud83d",
        "\\",
        "null",
        "true",
        "<|eot_id|>",
        "<|im_end|>",
        "text",
        "[" * 70,
        "\ufdd0",
        "é",
        "x",
    ),
    '{"name": "f", "arguments": ',
    '<TOOLCALL>[{"name": "f", "arguments": {"a": 1.50, "a": "b"}}]</TOOLCALL>',
    "<tool_call>\n<function=f>\n<parameter=x>\n1\n</parameter>\n</function>\n</tool_call>",
    '<tool_call>{"name": "f", "arguments": ["ls"]}</tool_call>',
    *(
        json.dumps({"name": "f", "arguments": arguments})
        for arguments in ("[1]", [1], "x", {"a": [["\ud83d"]]}, 1, None)
    ),
]
ANSWERS = st.lists(st.sampled_from(MARKUP), max_size=12).map("".join)


@pytest.mark.parametrize("model", profile_names())
@given(st.lists(st.tuples(ANSWERS, st.booleans(), st.booleans()), min_size=1, max_size=3), st.randoms())
def test_whatever_we_answered_is_accepted_and_renders(
    model: str, answers: list[tuple[str, bool, bool]], random: Any
) -> None:
    known = profile(model)
    messages: list[MessageLike] = [UserMessage("Go on.")]
    for text, thinking, cut in answers:
        before = read_conversation(openai_messages(messages))
        written = render_prompt(known, before, RenderOptions(thinking=thinking)).text
        begun = begins(known.reasoning_format, thinking=thinking, prompt=written)
        parser = AnswerParser(answer_rules(known, None, begins=begun))
        reply = Reply.of([*parser.feed(text), *parser.finish(cut=cut), Finish(reason="stop", usage=NO_USAGE)])
        results = [ToolResult(call=call, content=f"[{call.id}]").as_message() for call in reply.tool_calls]
        random.shuffle(results)
        messages += [reply.message, *results, UserMessage("Go on.")]

    sent = json.dumps(openai_messages(messages), ensure_ascii=False).encode().decode()
    request = read(messages=sent)

    assert request.conversation
    text = render_prompt(known, request.conversation).text
    text.encode()
    replies = [message for message in messages if isinstance(message, AssistantMessage)]
    calls = [call.id for reply in replies for call in reply.tool_calls]
    assert [text.index(f"[{call}]") for call in calls] == sorted(text.index(f"[{call}]") for call in calls)

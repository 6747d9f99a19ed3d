"""`nemotron render`, `parse`, `models` and `compare-template`: what people and scripts get to see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from nemotron_cli import main
from nemotron_triton.chat.profiles import TEMPLATES, profile, profile_names

CALL = '<TOOLCALL>[{"name": "f", "arguments": {"a": 1}}]</TOOLCALL>'
ASK = [{"role": "user", "content": "hi"}]


def run(*arguments: str, stdin: str = "", status: int = 0) -> str:
    result = CliRunner().invoke(main, arguments, input=stdin)
    assert result.exit_code == status, result.output
    return result.stdout if status == 0 else result.output


def lines(command: str, *requests: dict[str, Any], options: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    stdin = "".join(json.dumps(request) + "\n" for request in requests)
    return [json.loads(line) for line in run(command, "--jsonl", *options, stdin=stdin).splitlines()]


def test_render_prints_the_prompt_to_the_byte() -> None:
    assert run("render", "hi", "--model", "nemotron-3-nano-4b", "--thinking", "off") == (
        "<|im_start|>system\n<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<think></think>"
    )


def test_render_answers_each_line_and_loses_none() -> None:
    answers = lines(
        "render",
        {"id": 1, "messages": ASK, "thinking": True},
        {"id": 2, "model": "nvidia/NVIDIA-Nemotron-3-Nano-4B-BF16", "messages": ASK, "thinking": None},
        {"id": 3, "messages": "hi"},
        {"id": 4, "messages": ASK, "add_generation_prompt": False, "chat_template_kwargs": {"enable_thinking": True}},
        {"id": 5, "messages": ASK, "model": "gpt-2"},
        {"id": 6, "messages": ASK, "tempreature": 1},
        {"id": "\ud800", "messages": ASK, "thinking": "yes"},
    )

    assert [answer["id"] for answer in answers] == [1, 2, 3, 4, 5, 6, "\ud800"]
    assert "detailed thinking on" in answers[0]["prompt"]
    assert answers[1]["prompt"].endswith("<think>\n")
    assert "non-empty list" in answers[2]["error"]
    assert answers[3]["prompt"].endswith("hi<|eot_id|>")
    assert "no model profile named 'gpt-2'" in answers[4]["error"]
    assert "unknown keys tempreature" in answers[5]["error"]
    assert "true, false or null" in answers[6]["error"]


def test_render_takes_another_template(tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text("{{ messages[0].content }}!")
    (tmp_path / "broken.jinja").write_text("{% if %}")

    assert run("render", "hi", "--model", "nemotron-3-nano-4b", "--chat-template", str(tmp_path / "t.jinja")) == "hi!"
    assert "line 1" in run("render", "hi", "--chat-template", str(tmp_path / "broken.jinja"), status=1)


def test_parse_prints_one_document(tmp_path: Path) -> None:
    (tmp_path / "raw.txt").write_text(f"<think>\nhm\n</think>\n\nYes. {CALL}", encoding="utf-8")

    result = json.loads(run("parse", str(tmp_path / "raw.txt"), "--thinking", "on", "--deltas"))

    (call,) = result["tool_calls"]
    assert (result["reasoning"], result["content"], result["finish_reason"]) == ("hm", "Yes.", "tool_calls")
    assert (call["type"], call["function"]) == ("function", {"name": "f", "arguments": '{"a": 1}'})
    assert [next(iter(delta)) for delta in result["deltas"]] == ["role", "reasoning_content", "content", "tool_calls"]


def test_parse_answers_each_line_and_loses_none() -> None:
    answers = lines(
        "parse",
        {"id": 1, "text": CALL, "tools": []},
        {"id": 2, "chunks": ["<TOOL", CALL[5:]], "tools": [{"type": "function", "function": {"name": "g"}}]},
        {"id": 3, "text": "x", "model": "nemotron-3-nano-4b", "thinking": True},
        {"id": 4, "text": "x", "model": "nemotron-3-nano-4b", "thinking": True, "think_prefilled": False},
        {"id": 5, "text": "x" + CALL[:30], "engine_finish": "length"},
        {"id": 6},
        {"id": 7, "text": "x", "engine_finish": "eos"},
        {"id": 8, "text": "x", "tool_choice": "maybe"},
    )

    assert [answer["id"] for answer in answers] == list(range(1, 9))
    assert (answers[0]["content"], answers[0]["tool_calls"]) == (CALL, [])
    assert (answers[1]["error"], answers[1]["finish_reason"]) == ("unknown_function", "tool_calls")
    assert (answers[2]["reasoning"], answers[3]["content"]) == ("x", "x")
    assert (answers[4]["error"], answers[4]["finish_reason"]) == ("truncated_tool_call", "length")
    assert "give text" in answers[5]["error"]
    assert "must be stop or length" in answers[6]["error"]
    assert "must be auto, none" in answers[7]["error"]


@pytest.mark.parametrize(
    "off",
    [
        {"chat_template_kwargs": {"reasoning_budget": 0}},
        {"max_thinking_tokens": 0},
        {"reasoning_effort": "none"},
        {"thinking": False},
    ],
)
def test_render_shows_the_prompt_of_a_request_that_may_not_think(off: dict[str, Any]) -> None:
    nemotron_3 = {"model": "nemotron-3-nano-4b", "messages": ASK}

    (answer,) = lines("render", nemotron_3 | off)

    assert answer["prompt"].endswith("<think></think>")


def test_render_refuses_what_a_server_refuses() -> None:
    answers = lines(
        "render",
        {"id": 1, "messages": ASK, "max_thinking_tokens": 0, "thinking": True},
        {"id": 2, "messages": ASK, "max_thinking_tokens": "0"},
        {"id": 3, "messages": ASK, "reasoning_effort": "huge"},
        {"id": 4, "messages": ASK, "tool_choice": "required"},
        {"id": 5},
        {"id": 6, "messages": ASK, "chat_template_kwargs": {"reasoning_budget": -2}},
    )

    assert [answer["error"].split(";")[0] for answer in answers] == [
        "max_thinking_tokens is 0, and thinking is true",
        "max_thinking_tokens must be a whole number or null",
        'reasoning_effort is "huge"',
        "tool_choice is required, but there are no tools to call",
        "give exactly one of messages (a conversation) and text_input (a finished prompt)",
        "chat_template_kwargs.reasoning_budget is -2",
    ]


ARGUMENTS = f'{{"price": 100.10, "huge": 1e400, "exact": 12345678901234567.89, "long": {"7" * 5000}, "a": -0, "a": 1}}'
CALLED = f'{{"role": "assistant", "tool_calls": [{{"function": {{"name": "f", "arguments": {ARGUMENTS}}}}}]}}'
PAST_CALL = f"[{json.dumps(ASK[0])}, {CALLED}]"


def test_render_keeps_the_digits_of_earlier_calls(tmp_path: Path) -> None:
    (tmp_path / "messages.json").write_text(PAST_CALL)

    of_file = run("render", "And now?", "--messages", str(tmp_path / "messages.json"))
    of_line = json.loads(run("render", "--jsonl", stdin=f'{{"id": 1.10, "messages": {PAST_CALL}}}'))["prompt"]

    assert f'"arguments": {ARGUMENTS}' in of_file
    assert f'"arguments": {ARGUMENTS}' in of_line


def test_parse_names_arguments_that_break_their_schema() -> None:
    tool = {"function": {"name": "f", "parameters": {"properties": {"a": {"type": "string"}}}}}

    misfit, unchecked = lines("parse", {"id": 1, "text": CALL, "tools": [tool]}, {"id": 2, "text": CALL})

    assert (misfit["error"], misfit["finish_reason"]) == ("invalid_arguments", "tool_calls")
    assert "error" not in unchecked


@pytest.mark.parametrize("command", ["render", "parse"])
def test_lines_that_are_not_requests_are_answered_with_an_error(command: str) -> None:
    answers = run(command, "--jsonl", stdin='nonsense\n[1]\n\n{"id": 1, "x": 2}\n').splitlines()

    assert [json.loads(answer)["id"] for answer in answers] == [None, None, 1]
    assert all("error" in json.loads(answer) for answer in answers)


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (("render",), 2, "give a QUESTION"),
        (("parse",), 2, "give a FILE"),
        (("parse", "/nowhere"), 1, "cannot read /nowhere"),
        (("render", "hi", "--model", "gpt-2"), 2, "no model profile named 'gpt-2'"),
        (("render", "hi", "--tools", "/nowhere"), 1, "cannot read /nowhere"),
        (("compare-template", "/nowhere"), 1, "no tokenizer_config.json"),
    ],
)
def test_wrong_use_is_one_line(arguments: tuple[str, ...], status: int, complaint: str) -> None:
    assert complaint in run(*arguments, status=status)


def test_models_lists_the_profiles() -> None:
    listed = json.loads(run("models", "--json"))

    assert [model["name"] for model in listed] == profile_names()
    assert all(f"{name}\n" in run("models") for name in profile_names())


@pytest.mark.parametrize("stored", ["chat_template.jinja", "tokenizer_config.json"])
def test_a_template_is_compared_with_itself_and_with_a_wrong_one(tmp_path: Path, stored: str) -> None:
    ours = (TEMPLATES / "nemotron_3.jinja").read_text()
    broken = ours.replace("</tool_response>\\n' -}}", "</tool_response>' -}}")

    def store(template: str) -> None:
        text = template if stored.endswith(".jinja") else json.dumps({"chat_template": template})
        (tmp_path / stored).write_text(text)

    store(ours)
    same = CliRunner().invoke(main, ["compare-template", str(tmp_path), "--model", "nemotron-3-nano-4b"])
    store(broken)
    wrong = CliRunner().invoke(main, ["compare-template", str(tmp_path), "--model", "nemotron-3-nano-4b"])

    assert (same.exit_code, same.stdout) == (0, "")
    assert wrong.exit_code == 1
    assert "two results, tools, thinking on:" in wrong.stdout
    assert "an earlier answer" not in wrong.stdout


def test_every_profile_has_its_template() -> None:
    assert {f"{profile(name).prompt_format}.jinja" for name in profile_names()} <= {
        path.name for path in TEMPLATES.iterdir()
    }

"""`nemotron chat` without a server: what it reads from a user, shows, and keeps."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from commands import invoke
from nemotron_cli.chat import slash_commands
from nemotron_cli.chat.answer_view import show
from nemotron_cli.chat.dialogue import Dialogue
from nemotron_cli.chat.history import ChatHistory
from nemotron_client import ContentDelta, Event, Finish, ReasoningDelta, StreamBroken, ToolCall, Usage

CUT = "(the thinking was cut off by its budget)"
USAGE = Usage(input_tokens=1, output_tokens=1, reasoning_tokens=0)


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (["--json"], 2, "give a QUESTION or --messages FILE"),
        (["", "--thinking", "on"], 2, "give a QUESTION or --messages FILE"),
        (["hi", "--thinking", "maybe"], 2, "'maybe' is not one of 'on', 'off'"),
        (["hi", "--tools", "/nowhere.json"], 1, "cannot read /nowhere.json: No such file or directory"),
        (["hi", "--tools", __file__], 1, "is not JSON"),
        (["hi", "--url", "http://127.0.0.1:8001"], 1, "give host:port without a scheme"),
        (["hi", "--url", "127.0.0.1:1"], 1, "127.0.0.1:1 is not available"),
        (["hi", "--timeout", "0"], 1, "timeout_s is 0.0; it must be a number of seconds"),
    ],
)
def test_chat_says_what_is_wrong(arguments: list[str], status: int, complaint: str) -> None:
    result = invoke("chat", *arguments)

    assert (result.exit_code, result.stdout) == (status, "")
    assert complaint in result.stderr


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"/thniking on", "there is no /thniking; did you mean /thinking?"),
        (
            b"/\xe2\x80\xae\x1b[2J",
            "there is no /\ufffd\ufffd[2J; /help lists what there is, and // begins a text with /",
        ),
        (b"/thinking maybe", "/thinking is 'maybe'; it must be on, off or default"),
        (b"/think-at-most -1", "/think-at-most is '-1'; it must be a number of tokens, or off"),
        (b"/think-at-most " + b"9" * 5000, "it must be a number of tokens, or off"),
        (b"/tools /nowhere.json", "cannot read /nowhere.json: No such file or directory"),
        (b"/tools -", "cannot read "),
        (b"/tools ~nobody-of-that-name/tools.json", "~nobody-of-that-name/tools.json cannot be found: "),
        (b"/tools " + __file__.encode(), "is not JSON: "),
        (b"/save", "/save needs the name of a file"),
        (b"/save /tmp/never-written", "nothing was said yet, so there is nothing to save"),
        (b"\xff\xfe\x00 no text", "this line is not utf-8; send it again as text"),
        (b"x" * ((16 << 20) + 1), "this text is longer than 16 Mi characters; send less"),
        (b"Hello", "127.0.0.1:1 is not available: "),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_wrong_is_one_line_and_the_next_line_is_taken(line: bytes, complaint: str) -> None:
    result = invoke("chat", "--url", "127.0.0.1:1", stdin=line + b"\n/thinking\n")

    error, thinking, rest = result.stderr.split("\n")
    assert error.startswith("error: ")
    assert complaint in error
    assert (thinking, rest) == ("thinking: default", "")
    assert (result.exit_code, result.stdout) == (0, "")


def test_tools_are_checked_before_anything_is_asked(tmp_path: Path) -> None:
    (tmp_path / "tools.json").write_text('[{"function": "none"}]')

    result = invoke("chat", stdin=f"/tools {tmp_path}/tools.json\n/tools\n")
    at_start = invoke("chat", "--tools", tmp_path / "tools.json")

    assert "tools.json: tools[0] must be" in result.stderr
    assert result.stderr.endswith("\ntools: off\n")
    assert (at_start.exit_code, at_start.stderr.count("\n")) == (1, 1)


def test_the_history_has_a_thousand_lines_at_most(tmp_path: Path) -> None:
    file = tmp_path / "history"
    file.write_bytes(b"\xff\x00line\n" * 2000)
    history = ChatHistory(file)

    history.add("the last\nof them")
    history.add("x" * 100_000)

    assert len(file.read_text().splitlines()) == 1000
    assert history.entries()[-2:] == ["\N{REPLACEMENT CHARACTER}line", "the last\nof them"]


def test_nothing_a_model_says_drives_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b]0;title\x07\x9b2J\r\u202e"
    call = ToolCall(index=0, id="1", name=evil, arguments_json=json.dumps({evil: evil}))

    show([ReasoningDelta(evil), ContentDelta(evil), call, Finish(reason="stop", usage=USAGE)])

    shown = capsys.readouterr()
    assert all(char in "\n\t" or char.isprintable() for char in shown.out + shown.err)


class Script:
    """A client that gives *answers* one after another, and keeps the requests."""

    def __init__(self, *answers: Sequence[Any]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[list[Any], Any]] = []
        self.budgets: list[int | None] = []

    def stream(
        self, messages: list[Any], *, tool_choice: Any, max_thinking_tokens: int | None, **_: Any
    ) -> Iterator[Event]:
        self.asked.append((messages, tool_choice))
        self.budgets.append(max_thinking_tokens)
        for event in self.answers.pop(0):
            if isinstance(event, Exception):
                raise event
            yield event


def call(name: str, arguments_json: str = "{}") -> ToolCall:
    return ToolCall(index=0, id=f"id-{name}", name=name, arguments_json=arguments_json)


def dialogue(script: Script) -> Dialogue:
    return Dialogue(script, tools=[{"function": {"name": "a"}}], tool_choice="required")  # type: ignore[arg-type]


def test_only_calls_with_a_result_go_back_and_no_further_call_is_forced() -> None:
    calls = [ReasoningDelta("Hm."), call("a"), call("b"), call("c", "[]"), Finish(reason="tool_calls", usage=USAGE)]
    script = Script(calls, [ContentDelta("Done.")])
    talk = dialogue(script)
    asked_for = []

    def result_of(call: ToolCall) -> str:
        asked_for.append(call.name)
        return {"a": "1", "b": ""}[call.name]

    talk.ask("Go", result_of)

    assert asked_for == ["a", "b"]
    assert [choice for _, choice in script.asked] == ["required", None]
    assert talk.messages == [
        {"role": "user", "content": "Go"},
        {"role": "assistant", "content": None, "tool_calls": [call("a").as_openai()], "reasoning_content": "Hm."},
        {"role": "tool", "tool_call_id": "id-a", "name": "a", "content": "1"},
        {"role": "assistant", "content": "Done."},
    ]
    assert script.asked[1][0] == talk.messages[:3]


def test_an_answer_beside_calls_without_results_stays() -> None:
    talk = dialogue(Script([ContentDelta("I will look."), call("a")]))

    talk.ask("Go", lambda call: None)

    assert talk.messages == [{"role": "user", "content": "Go"}, {"role": "assistant", "content": "I will look."}]


def test_a_failure_behind_a_call_takes_the_whole_question_back() -> None:
    talk = dialogue(Script([call("a")], [ContentDelta("So "), StreamBroken("gone")]))

    with pytest.raises(StreamBroken):
        talk.ask("Go", lambda call: "1")

    assert talk.messages == []


def test_the_thinking_has_the_budget_that_was_typed_last(capsys: pytest.CaptureFixture[str]) -> None:
    cut = [ContentDelta("Yes."), Finish(reason="stop", usage=USAGE, thinking_cut=True)]
    script = Script(*[cut] * 3)
    talk = Dialogue(script, max_thinking_tokens=9)  # type: ignore[arg-type]

    for line in ("", "/think-at-most 0", "/think-at-most off"):
        if line:
            slash_commands.run(line, talk)
        talk.ask("Well?", lambda call: None)

    assert script.budgets == [9, 0, None]
    assert capsys.readouterr().err.splitlines() == [
        CUT,
        "think at most: 0 tokens",
        CUT,
        "think at most: off",
        CUT,
    ]

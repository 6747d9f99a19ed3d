"""`nemotron chat` as a conversation: real processes on pseudo-terminals and pipes, and a real tritonserver."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from exposition import metric
from nemotron_cli.chat.answer_view import show
from nemotron_cli.chat.dialogue import Dialogue
from nemotron_cli.chat.history import ChatHistory
from nemotron_client import ContentDelta, Event, Finish, ReasoningDelta, StreamBroken, ToolCall, Usage
from nemotron_triton.bundle import Bundle
from nemotron_triton.server import ServeOptions
from patience import wait_until
from served import NEMOTRON
from terminal import Terminal
from test_e2e_cli import TIP
from test_e2e_faults import FAIL_IN_MIDSTREAM, HANG, SETTINGS, TEXT, faulty_server

CAPITAL = "What is the capital of France?"
TOOLS = ROOT / "build/demo/tools.json"
CTRL_C, CTRL_D, UP = "\x03", "\x04", "\x1b[A"
PROMPT = "\n> "
USAGE = Usage(input_tokens=1, output_tokens=1, reasoning_tokens=0)

Chat = Callable[..., Terminal]


@pytest.fixture(scope="module")
def faulty(bundle: Bundle) -> Iterator[ServeOptions]:
    """A server whose engine fails as the seed says."""
    with faulty_server(bundle, SETTINGS) as (_, options, _log):
        yield options


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """The environment of a user who has not used the program yet."""
    ours = {"XDG_STATE_HOME": str(tmp_path / "state"), "TERM": "xterm", "PYTHONUTF8": "1"}
    return {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ} | ours


@pytest.fixture
def chat(home: dict[str, str], served: ServeOptions) -> Iterator[Chat]:
    """Starts `nemotron chat` on a terminal."""
    terminals: list[Terminal] = []

    def start(*arguments: object, server: ServeOptions = served, **environment: str) -> Terminal:
        argv = [*NEMOTRON, "chat", "--temperature", "0", "--url", server.grpc_url, *arguments]
        terminals.append(Terminal(argv, home | environment))
        terminals[-1].wait_for(PROMPT)
        return terminals[-1]

    yield start
    for terminal in terminals:
        terminal.__exit__(None, None, None)


def piped(text: bytes, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    argv = [*NEMOTRON, "chat", "--url", "127.0.0.1:1", *map(str, arguments)]
    return subprocess.run(argv, input=text, capture_output=True, timeout=60)


def test_a_conversation_has_turns_that_can_be_seen_and_saved(chat: Chat, tmp_path: Path) -> None:
    terminal = chat("--thinking", "off")
    for question in (CAPITAL, "What is the capital of Japan?"):
        terminal.press(f"{question}\n")
        assert len(terminal.wait_for(PROMPT)) > len(question) + len(PROMPT) + 3
    terminal.press("/history\n")
    shown = terminal.wait_for(PROMPT)
    terminal.press(f"/save {tmp_path}/saved.json\n")
    terminal.wait_for(f"saved 4 messages in {tmp_path}/saved.json")
    terminal.wait_for(PROMPT)

    terminal.press(CTRL_D)
    status, rest = terminal.wait_for_end()

    assert (status, rest) == (0, "\n")
    saved = json.loads((tmp_path / "saved.json").read_text())
    assert [message["role"] for message in saved] == ["user", "assistant"] * 2
    assert all(f"{message['role']}: {message['content']}\n" in shown for message in saved)


def test_thinking_can_be_switched(chat: Chat) -> None:
    terminal = chat()
    tip = "What is an 18% tip on $100?\n"
    thought = {}
    for mode in ("on", "off"):
        terminal.press(f"/thinking {mode}\n")
        terminal.wait_for(f"thinking: {mode}")
        terminal.wait_for(PROMPT)
        terminal.press(tip)
        thought[mode] = "\x1b[2m" in terminal.wait_for(PROMPT)
    terminal.press("/thinking default\n")
    terminal.wait_for("thinking: default")

    assert thought == {"on": True, "off": False}


def test_the_result_of_a_call_is_asked_for_and_goes_back_to_the_model(chat: Chat, tmp_path: Path) -> None:
    terminal = chat("--thinking", "off")
    terminal.press(f"/tools {TOOLS}\n")
    terminal.wait_for("tools: calculate_tip")
    terminal.wait_for(PROMPT)

    terminal.press(f"{TIP}\n")
    terminal.wait_for("calculate_tip(bill_total=100, tip_percentage=18)\n")
    terminal.wait_for("result of calculate_tip: ")
    terminal.press('{"tip_amount": 18}\n')
    answer = terminal.wait_for(PROMPT)
    terminal.press(f"/save {tmp_path}/saved.json\n")
    terminal.wait_for("saved 4 messages")

    saved = json.loads((tmp_path / "saved.json").read_text())
    assert [message["role"] for message in saved] == ["user", "assistant", "tool", "assistant"]
    assert saved[1]["tool_calls"][0]["id"] == saved[2]["tool_call_id"]
    assert saved[2]["content"] == '{"tip_amount": 18}'
    assert saved[3]["content"] in answer
    assert "18" in saved[3]["content"]


def test_a_call_without_a_result_leaves_nothing_that_cannot_be_sent(chat: Chat) -> None:
    terminal = chat("--tools", TOOLS, "--thinking", "off")
    leave_out = partial(terminal.press, "\n")
    end_input = partial(terminal.press, CTRL_D)
    for way_out in (leave_out, end_input, terminal.interrupt):
        terminal.press(f"{TIP}\n")
        terminal.wait_for("result of calculate_tip: ")
        way_out()
        terminal.wait_for("(no answer: the question is taken back)")
        terminal.wait_for(PROMPT)
    terminal.press("/history\n")
    terminal.wait_for("(nothing was said yet)")
    terminal.wait_for(PROMPT)

    terminal.press("/tools off\n")
    terminal.wait_for("tools: off")
    terminal.wait_for(PROMPT)
    terminal.press(f"{CAPITAL}\n")
    assert "error" not in terminal.wait_for(PROMPT)


def test_ctrl_c_stops_the_answer_and_not_the_program(chat: Chat, faulty: ServeOptions) -> None:
    terminal = chat("--seed", HANG, server=faulty)
    terminal.press("Count\n")
    terminal.wait_for(TEXT)
    wait_until(lambda: metric(faulty, "active_requests") == 1)

    terminal.interrupt()
    terminal.wait_for("\n(stopped)\n")
    terminal.wait_for("> ")

    wait_until(lambda: metric(faulty, "active_requests") == 0)
    terminal.press("/history\n")
    terminal.wait_for(f"user: Count\nassistant: {TEXT}")
    terminal.wait_for(PROMPT)
    terminal.press("/quit\n")
    assert terminal.wait_for_end()[0] == 0


def test_ctrl_c_held_down_leaves_the_prompt_as_it_shall_be(chat: Chat, faulty: ServeOptions) -> None:
    terminal = chat("--seed", HANG, server=faulty)
    for _ in range(3):
        terminal.press("Count\n")
        terminal.wait_for(TEXT)
        terminal.press(CTRL_C * 20)
        terminal.wait_for("(stopped)")
        terminal.wait_for(PROMPT)

    terminal.press("/history\n")
    terminal.wait_for("assistant: ")
    terminal.press("/quit\n")

    status, rest = terminal.wait_for_end()
    assert status == 0
    assert "Traceback" not in rest


def test_ctrl_c_at_the_prompt_clears_the_line_and_then_says_how_to_leave(chat: Chat) -> None:
    terminal = chat()
    terminal.press("never to be asked")
    terminal.wait_for("asked")

    terminal.interrupt()
    cleared = terminal.wait_for(PROMPT)
    terminal.interrupt()
    first = terminal.wait_for(PROMPT)
    terminal.interrupt()
    second = terminal.wait_for(PROMPT)
    terminal.press("/history\n")
    terminal.wait_for("(nothing was said yet)")

    assert "leaves" not in cleared + first
    assert "(Ctrl-D or /quit leaves)" in second


def test_a_failure_in_the_middle_of_an_answer_is_a_line_and_takes_the_question_back(
    chat: Chat, faulty: ServeOptions
) -> None:
    terminal = chat("--seed", FAIL_IN_MIDSTREAM, server=faulty)

    terminal.press("Count\n")
    answer = terminal.wait_for(PROMPT)
    terminal.press("/history\n")

    assert f"{TEXT}\nerror: " in answer
    assert "the GPU has fallen off the bus\n" in answer
    terminal.wait_for("(nothing was said yet)")


def test_a_server_that_is_killed_ends_the_answer_and_not_the_conversation(chat: Chat, bundle: Bundle) -> None:
    with faulty_server(bundle, SETTINGS) as (server, options, _):
        terminal = chat("--seed", HANG, server=options)
        terminal.press("Count\n")
        terminal.wait_for(TEXT)

        os.kill(server.pid, signal.SIGKILL)
        terminal.wait_for("\nerror: ")
        terminal.wait_for(PROMPT)
        terminal.press("Count again\n")

        terminal.wait_for("\nerror: ")
        terminal.wait_for(PROMPT)
        terminal.press("/quit\n")
        status, rest = terminal.wait_for_end()
    assert status == 0
    assert "Traceback" not in rest


def test_a_request_that_is_refused_is_a_line_and_takes_the_question_back(served: ServeOptions) -> None:
    text = f"{CAPITAL}\n/history\n".encode()

    result = piped(text, "--url", served.grpc_url, "--max-tokens", "-1")

    assert (result.returncode, result.stdout) == (0, b"")
    assert re.fullmatch(rb"error: .*max_tokens.*\n\(nothing was said yet\)\n", result.stderr), result.stderr


def test_a_pipe_is_answered_line_by_line_without_a_prompt(served: ServeOptions, tmp_path: Path) -> None:
    lines = [
        "/thinking off",
        "/system Answer in one word.\\",
        "In French.",
        CAPITAL,
        "",
        "//is this a command?\\",
        "No",
        f"/save {tmp_path}/saved.json",
        f"/save {tmp_path}/saved.json",
    ]

    result = piped("\n".join(lines).encode(), "--url", served.grpc_url)

    saved = json.loads((tmp_path / "saved.json").read_text())
    assert [message["role"] for message in saved] == ["system", *["user", "assistant"] * 2]
    assert saved[0]["content"] == "Answer in one word.\nIn French."
    assert saved[3]["content"] == "/is this a command?\nNo"
    assert result.stdout.decode() == "".join(f"{saved[place]['content']}\n" for place in (2, 4))
    assert result.stderr.decode() == (
        "thinking: off\nsystem: set\n"
        f"saved 5 messages in {tmp_path}/saved.json\nerror: {tmp_path}/saved.json exists; give another name\n"
    )
    assert result.returncode == 0


def test_a_saved_conversation_can_be_gone_on_with(served: ServeOptions, tmp_path: Path) -> None:
    asked = [f"/tools {TOOLS}", TIP, '{"tip_amount": 18}', f"/save {tmp_path}/saved.json"]
    assert piped("\n".join(asked).encode(), "--url", served.grpc_url, "--temperature", "0").returncode == 0

    result = piped(b"", CAPITAL, "--messages", tmp_path / "saved.json", "--url", served.grpc_url)

    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout.strip()


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"/thniking on", "there is no /thniking; did you mean /thinking?"),
        (
            b"/\xe2\x80\xae\x1b[2J",
            "there is no /\ufffd\ufffd[2J; /help lists what there is, and // begins a text with /",
        ),
        (b"/thinking maybe", "/thinking is 'maybe'; it must be on, off or default"),
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
    result = piped(line + b"\n/thinking\n")

    error, thinking, rest = result.stderr.decode().split("\n")
    assert error.startswith("error: ")
    assert complaint in error
    assert (thinking, rest) == ("thinking: default", "")
    assert (result.returncode, result.stdout) == (0, b"")


def test_tools_are_checked_before_anything_is_asked(tmp_path: Path) -> None:
    (tmp_path / "tools.json").write_text('[{"function": "none"}]')

    result = piped(f"/tools {tmp_path}/tools.json\n/tools\n".encode())
    at_start = piped(b"", "--tools", tmp_path / "tools.json")

    assert b"tools.json: tools[0] must be" in result.stderr
    assert result.stderr.endswith(b"\ntools: off\n")
    assert (at_start.returncode, at_start.stderr.count(b"\n")) == (1, 1)


def test_ctrl_c_ends_a_program_that_reads_a_pipe(faulty: ServeOptions) -> None:
    argv = [*NEMOTRON, "chat", "--seed", str(HANG), "--url", faulty.grpc_url]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"Count\n")
        process.stdin.flush()
        assert process.stdout.read(len(TEXT)) == TEXT.encode()

        process.send_signal(signal.SIGINT)

        assert process.wait(60) == 128 + signal.SIGINT


def test_what_was_typed_is_kept_for_the_owner(chat: Chat, home: dict[str, str]) -> None:
    file = Path(home["XDG_STATE_HOME"]) / "nemotron" / "chat_history"
    first = chat()
    first.press("/thinking \\\n")
    first.wait_for("... ")
    first.press("off\n")
    first.wait_for(PROMPT)
    first.press("/quit\n")
    first.wait_for_end()

    second = chat()
    second.press(UP + UP + "\n")
    second.wait_for("thinking: off")
    second.wait_for(PROMPT)

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text() == "/thinking \\\noff\n/quit\n/thinking \\\noff\n"
    assert os.listdir(file.parent) == ["chat_history"]


@pytest.mark.parametrize("where", ["", "/dev/null", "/proc/nowhere/history"])
def test_a_history_that_cannot_be_kept_is_no_error(chat: Chat, tmp_path: Path, where: str) -> None:
    terminal = chat(NEMOTRON_CHAT_HISTORY=where)
    terminal.press("/thinking off\n")
    terminal.wait_for("thinking: off\n> ")

    terminal.press("/quit\n")

    assert terminal.wait_for_end()[0] == 0
    assert not (tmp_path / "state").exists()
    assert Path("/dev/null").is_char_device()


def test_the_history_has_a_thousand_lines_at_most(tmp_path: Path) -> None:
    file = tmp_path / "history"
    file.write_bytes(b"\xff\x00line\n" * 2000)
    history = ChatHistory(file)

    history.add("the last\nof them")
    history.add("x" * 100_000)

    assert len(file.read_text().splitlines()) == 1000
    assert history.entries()[-2:] == ["\N{REPLACEMENT CHARACTER}line", "the last\nof them"]


def test_a_huge_paste_is_one_question(chat: Chat, faulty: ServeOptions, tmp_path: Path) -> None:
    pasted = "all work and no play " * 2000
    terminal = chat(server=faulty)

    terminal.press(pasted + "\n")
    terminal.wait_for(TEXT)
    terminal.wait_for(PROMPT)
    terminal.press(f"/save {tmp_path}/saved.json\n")
    terminal.wait_for("saved 2 messages")

    assert json.loads((tmp_path / "saved.json").read_text())[0]["content"] == pasted


@pytest.mark.parametrize("question", ["Count", ""])
def test_sigterm_ends_it_and_leaves_the_terminal_as_it_was(chat: Chat, faulty: ServeOptions, question: str) -> None:
    terminal = chat("--seed", HANG, server=faulty)
    if question:
        terminal.press(f"{question}\n")
        terminal.wait_for(TEXT)

    terminal.wait_until_idle()
    terminal.process.send_signal(signal.SIGTERM)
    status, rest = terminal.wait_for_end()

    assert status == 128 + signal.SIGTERM
    assert "Traceback" not in rest
    assert terminal.edits_lines_itself
    wait_until(lambda: metric(faulty, "active_requests") == 0)


def test_nothing_a_model_says_drives_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b]0;title\x07\x9b2J\r\u202e"
    call = ToolCall(index=0, id="1", name=evil, arguments_json=json.dumps({evil: evil}))

    show([ReasoningDelta(evil), ContentDelta(evil), call, Finish(reason="stop", usage=USAGE)])

    shown = capsys.readouterr()
    assert all(char in "\n\t" or char.isprintable() for char in shown.out + shown.err)


class Script:
    """A client whose answers are known; what it is asked is kept."""

    def __init__(self, *answers: Sequence[Any]) -> None:
        """Give *answers* in turn."""
        self.answers = list(answers)
        self.asked: list[tuple[list[Any], Any]] = []

    def stream(self, messages: list[Any], *, tool_choice: Any, **_: Any) -> Iterator[Event]:
        self.asked.append((messages, tool_choice))
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


def test_an_answer_beside_calls_that_nobody_answers_stays() -> None:
    talk = dialogue(Script([ContentDelta("I will look."), call("a")]))

    talk.ask("Go", lambda call: None)

    assert talk.messages == [{"role": "user", "content": "Go"}, {"role": "assistant", "content": "I will look."}]


def test_a_failure_behind_a_call_takes_the_whole_question_back() -> None:
    talk = dialogue(Script([call("a")], [ContentDelta("So "), StreamBroken("gone")]))

    with pytest.raises(StreamBroken):
        talk.ask("Go", lambda call: "1")

    assert talk.messages == []

"""`nemotron chat` as a conversation on a terminal: real processes on pseudo-terminals, and a real tritonserver."""

from __future__ import annotations

import json
import os
import signal
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from conftest import ROOT
from exposition import metric
from faulty import FAIL_IN_MIDSTREAM, HANG, TEXT, faulty_server
from nemotron_triton.bundle import Bundle
from nemotron_triton.server import ServeOptions
from patience import wait_until
from running import Running
from served import NEMOTRON
from terminal import Terminal
from test_e2e_cli import TIP

CAPITAL = "What is the capital of France?"
TOOLS = ROOT / "build/demo/tools.json"
CTRL_C, CTRL_D, UP = "\x03", "\x04", "\x1b[A"
PROMPT = "\n> "

Chat = Callable[..., Terminal]


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


def test_ctrl_c_stops_the_answer_and_not_the_program(chat: Chat, faulty: Running) -> None:
    terminal = chat("--seed", HANG, server=faulty.options)
    terminal.press("Count\n")
    terminal.wait_for(TEXT)
    wait_until(lambda: metric(faulty.options, "active_requests") == 1)

    terminal.interrupt()
    terminal.wait_for("\n(stopped)\n")
    terminal.wait_for("> ")

    wait_until(lambda: metric(faulty.options, "active_requests") == 0)
    terminal.press("/history\n")
    terminal.wait_for(f"user: Count\nassistant: {TEXT}")
    terminal.wait_for(PROMPT)
    terminal.press("/quit\n")
    assert terminal.wait_for_end()[0] == 0


def test_ctrl_c_held_down_leaves_the_prompt_as_it_shall_be(chat: Chat, faulty: Running) -> None:
    terminal = chat("--seed", HANG, server=faulty.options)
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
    chat: Chat, faulty: Running
) -> None:
    terminal = chat("--seed", FAIL_IN_MIDSTREAM, server=faulty.options)

    terminal.press("Count\n")
    answer = terminal.wait_for(PROMPT)
    terminal.press("/history\n")

    assert f"{TEXT}\nerror: " in answer
    assert "the GPU has fallen off the bus\n" in answer
    terminal.wait_for("(nothing was said yet)")


def test_a_server_that_is_killed_ends_the_answer_and_not_the_conversation(chat: Chat, bundle: Bundle) -> None:
    with faulty_server(bundle) as served:
        terminal = chat("--seed", HANG, server=served.options)
        terminal.press("Count\n")
        terminal.wait_for(TEXT)

        os.kill(served.server.pid, signal.SIGKILL)
        terminal.wait_for("\nerror: ")
        terminal.wait_for(PROMPT)
        terminal.press("Count again\n")

        terminal.wait_for("\nerror: ")
        terminal.wait_for(PROMPT)
        terminal.press("/quit\n")
        status, rest = terminal.wait_for_end()
    assert status == 0
    assert "Traceback" not in rest


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


def test_a_huge_paste_is_one_question(chat: Chat, faulty: Running, tmp_path: Path) -> None:
    pasted = "all work and no play " * 2000
    terminal = chat(server=faulty.options)

    terminal.press(pasted + "\n")
    terminal.wait_for(TEXT)
    terminal.wait_for(PROMPT)
    terminal.press(f"/save {tmp_path}/saved.json\n")
    terminal.wait_for("saved 2 messages")

    assert json.loads((tmp_path / "saved.json").read_text())[0]["content"] == pasted


@pytest.mark.parametrize("question", ["Count", ""])
def test_sigterm_ends_it_and_leaves_the_terminal_as_it_was(chat: Chat, faulty: Running, question: str) -> None:
    terminal = chat("--seed", HANG, server=faulty.options)
    if question:
        terminal.press(f"{question}\n")
        terminal.wait_for(TEXT)

    terminal.wait_until_idle()
    terminal.process.send_signal(signal.SIGTERM)
    status, rest = terminal.wait_for_end()

    assert status == 128 + signal.SIGTERM
    assert "Traceback" not in rest
    assert terminal.edits_lines_itself
    wait_until(lambda: metric(faulty.options, "active_requests") == 0)

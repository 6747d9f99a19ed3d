"""`nemotron chat` that reads a pipe: real processes, and a real tritonserver."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path

from conftest import ROOT
from faulty import HANG, TEXT
from nemotron_triton.server import ServeOptions
from running import Running
from served import NEMOTRON
from test_e2e_cli import TIP

CAPITAL = "What is the capital of France?"
TOOLS = ROOT / "build/demo/tools.json"


def piped(text: bytes, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    argv = [*NEMOTRON, "chat", *map(str, arguments)]
    return subprocess.run(argv, input=text, capture_output=True, timeout=60)


def test_a_request_that_is_refused_is_a_line_and_takes_the_question_back(served: ServeOptions) -> None:
    text = f"{CAPITAL}\n/history\n".encode()

    result = piped(text, "--url", served.grpc_url, "--max-tokens", "1000000")

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


def test_ctrl_c_ends_a_program_that_reads_a_pipe(faulty: Running) -> None:
    argv = [*NEMOTRON, "chat", "--seed", str(HANG), "--url", faulty.options.grpc_url]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"Count\n")
        process.stdin.flush()
        assert process.stdout.read(len(TEXT)) == TEXT.encode()

        process.send_signal(signal.SIGINT)

        assert process.wait(60) == 128 + signal.SIGINT

"""The examples run as their docstrings say, and end with one line where there is no server."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from conftest import ROOT
from gateways import gateway
from nemotron_triton.server import ServeOptions

EXAMPLES = ROOT / "clients" / "examples"


def example(name: str, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run an example as a user does; *url* is of the server, or of the gateway."""
    return subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        env=os.environ | {"NEMOTRON_URL": url, "OPENAI_BASE_URL": url},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_a_question_is_answered_as_it_comes(served: ServeOptions) -> None:
    ran = example("ask.py", served.grpc_url, "What is the capital of France?")

    assert ran.returncode == 0
    assert "Paris" in ran.stdout
    assert " tokens in " in ran.stderr


def test_the_program_of_the_readme_runs_as_it_is_printed(served: ServeOptions) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "clients" / "README.md").read_text(), re.DOTALL)
    code = program.replace("127.0.0.1:8001", served.grpc_url)

    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)

    assert (ran.returncode, ran.stderr) == (0, "")
    assert "Paris" in ran.stdout


def test_a_hundred_answers_come_at_once(served: ServeOptions) -> None:
    ran = example("hundred_streams.py", served.grpc_url)

    assert ran.returncode == 0
    assert ran.stdout.splitlines()[-1].startswith("100 answers, ")
    assert ran.stdout.endswith(" 0 retries\n")


def test_a_function_is_called_for_the_model(served: ServeOptions) -> None:
    ran = example("tools.py", served.grpc_url)

    assert ran.returncode == 0
    assert 'calculate_tip({"bill_total": 100, "tip_percentage": 18}) -> {"tip": 18.0}' in ran.stderr
    assert "18" in ran.stdout


def test_the_makers_program_runs_with_the_address_changed(served: ServeOptions) -> None:
    with gateway(served.grpc_url, any_model=False) as running:
        ran = example("openai_tip.py", f"http://127.0.0.1:{running.port}/v1")

    assert (ran.returncode, ran.stderr) == (0, "")
    thinking, call = ran.stdout.splitlines()
    assert re.fullmatch(r"thinking: \S.*", thinking)
    assert call == 'call: calculate_tip {"bill_total": 100, "tip_percentage": 18}'


def test_without_a_gateway_there_is_one_line() -> None:
    ran = example("openai_tip.py", "http://127.0.0.1:1/v1")

    assert (ran.returncode, ran.stderr) == (1, "error: Connection error.\n")


@pytest.mark.parametrize("name", ["ask.py", "hundred_streams.py", "tools.py"])
def test_without_a_server_there_is_one_line(name: str) -> None:
    ran = example(name, "127.0.0.1:1")

    assert ran.returncode == 1
    assert ran.stderr.startswith("error: 127.0.0.1:1 is not available")
    assert len(ran.stderr.splitlines()) == 1

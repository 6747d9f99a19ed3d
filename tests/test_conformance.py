"""The conformance kit: our own parser passes it, and its runner fails a parser that is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT

RUNNER = ROOT / "tests" / "conformance" / "run.py"
NEMOTRON = Path(sys.executable).with_name("nemotron")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(RUNNER), *command], capture_output=True, text=True, check=False, timeout=100
    )


def test_our_parser_passes_every_case() -> None:
    ran = run(str(NEMOTRON), "parse", "--jsonl", "--deltas")

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert " 0 failed, 0 contentious" in ran.stdout


SPLITS_NOTHING = """
for line in sys.stdin:
    request = json.loads(line)
    text = request.get("text") or "".join(request.get("chunks", []))
    result = {"reasoning": None, "content": text, "tool_calls": [], "finish_reason": "stop"}
    print(json.dumps({"id": request["id"]} | result))
"""
REFUSES_ALL = """
for line in sys.stdin:
    print(json.dumps({"id": json.loads(line)["id"], "error": "no"}))
"""


@pytest.mark.parametrize(
    ("program", "complaint"),
    [(SPLITS_NOTHING, "expected"), (REFUSES_ALL, "no result: no"), ("", "answered 0 of")],
    ids=["splits nothing", "refuses all", "says nothing"],
)
def test_the_runner_fails_a_parser_that_is_wrong(program: str, complaint: str) -> None:
    ran = run(sys.executable, "-c", f"import json, sys\n{program}")

    assert ran.returncode == 1
    assert complaint in ran.stdout + ran.stderr


def test_the_runner_says_how_it_is_used() -> None:
    assert "usage" in run().stderr

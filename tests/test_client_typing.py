"""What type checkers say to programs that use the client: nothing to a right one, and every mistake of a wrong one.

They check them as they do for a user: outside of this checkout, with the package as it is installed.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import nemotron_client
from conftest import ROOT
from nemotron_client import ChatOptions, Client

PROGRAMS = ROOT / "tests" / "typing"
# By file and line.
Complaints = dict[tuple[str, int], str]


def mypy(folder: Path) -> Complaints:
    options = ["--strict", "--config-file=", "--output=json"]
    report = output([sys.executable, "-m", "mypy", *options, "uses_client.py", "misuses_client.py"], folder)
    messages = [json.loads(line) for line in report.splitlines()]
    return {
        (message["file"], message["line"]): message["message"] for message in messages if message["severity"] == "error"
    }


def pyright(folder: Path) -> Complaints:
    report = output([sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable], folder)
    messages = json.loads(report)["generalDiagnostics"]
    return {
        (Path(message["file"]).name, message["range"]["start"]["line"] + 1): message["message"] for message in messages
    }


def output(command: list[str], folder: Path) -> str:
    """The output of a type checker; it exits with 1, because there are mistakes."""
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture(scope="module", params=[mypy, pyright], ids=["mypy", "pyright"])
def complaints(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Complaints:
    """The errors of one type checker in both programs."""
    check: Callable[[Path], Complaints] = request.param
    return check(Path(shutil.copytree(PROGRAMS, tmp_path_factory.mktemp("user") / "programs")))


def test_the_right_program_uses_every_name_method_and_option() -> None:
    methods = {name for name in dir(Client) if not name.startswith("_")}
    public = {*nemotron_client.__all__, *methods, *ChatOptions.__annotations__}

    words = re.findall(r"\w+", (PROGRAMS / "uses_client.py").read_text())

    assert public - set(words) == set()


def test_a_program_that_uses_all_of_the_client_passes(complaints: Complaints) -> None:
    assert {place: message for place, message in complaints.items() if place[0] != "misuses_client.py"} == {}


def test_every_mistake_is_found_and_nothing_else(complaints: Complaints) -> None:
    lines = (PROGRAMS / "misuses_client.py").read_text().splitlines()
    wrong = {number for number, line in enumerate(lines, start=1) if "# wrong" in line}

    mistakes = {number: message for (name, number), message in complaints.items() if name == "misuses_client.py"}

    assert set(mistakes) == wrong, mistakes

"""A client and a server of different commits: each of this one talks to the other of an older one.

The older code comes from the history, and its dependencies from this environment. Wheels are built and installed, so
that no client can find what lies in a checkout.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path
from typing import Any

import pytest

from conftest import CHECKPOINT, ROOT
from environments import Environment, build_wheel
from served import NEMOTRON, served_by_command

OLDER = "d197688"
PROGRAM = ROOT / "tests" / "support" / "compatibility_program.py"
CAPITAL = "What is the capital of France?"
HERE = Path(sysconfig.get_path("purelib"))

pytestmark = [pytest.mark.compatibility, pytest.mark.server, pytest.mark.timeout(300)]


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """What servers ask for, and clients send: both take it from the environment."""
    monkeypatch.setenv("NEMOTRON_SECRET", "correct-horse-battery-staple")


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the older commit."""
    archive = subprocess.run(["git", "archive", OLDER], cwd=ROOT, capture_output=True, check=False)  # noqa: S607
    assert archive.returncode == 0, f"commit {OLDER} is not in this clone: git fetch --unshallow"
    folder = tmp_path_factory.mktemp("older")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def older_server(older: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the code of the older commit."""
    sources = [older / folder / "src" for folder in ("build", "triton", "clients")]
    environment = Environment.make(
        tmp_path_factory.mktemp("server") / "venv", Path(sys.executable), behind=[*sources, HERE]
    )
    assert str(older) in environment.run("-c", "import nemotron_triton; print(nemotron_triton.__file__)")
    return environment


@pytest.fixture(scope="module")
def older_bundle(older_server: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that the older commit built."""
    bundle = tmp_path_factory.mktemp("bundle") / "demo"
    older_server.run("-m", "nemotron_build", "build-engine", CHECKPOINT, "--gpu", "cpu", "--output", bundle)
    return bundle


def test_this_client_talks_to_an_older_server(older_server: Environment, older_bundle: Path, tmp_path: Path) -> None:
    client = with_client_of(ROOT / "clients", tmp_path)

    with served_by_command(older_bundle, command=(str(older_server.python), "-m", "nemotron_build")) as server:
        seen = json.loads(client.run(PROGRAM, server.options.grpc_url))

    check(seen)


def test_an_older_client_talks_to_this_server_which_serves_an_older_bundle(
    older: Path, older_bundle: Path, tmp_path: Path
) -> None:
    client = with_client_of(older, tmp_path)

    with served_by_command(older_bundle, command=NEMOTRON) as server:
        seen = json.loads(client.run(PROGRAM, server.options.grpc_url))

    check(seen)


def with_client_of(project: Path, folder: Path) -> Environment:
    """An environment with the wheel of *project*."""
    environment = Environment.make(folder / "venv", Path(sys.executable), behind=[HERE])
    installed = environment.install("--no-deps", "--no-index", build_wheel(project, folder / "wheel"))
    assert installed.returncode == 0, installed.stderr
    assert str(environment.packages) in environment.run("-c", "import nemotron_client as c; print(c.__file__)")
    return environment


def check(seen: dict[str, Any]) -> None:
    """The results that every pair of a client and a server must give with the demo model."""
    thinking, plain = seen["thinking"], seen["plain"]
    assert [thinking["reasoning"] is None, plain["reasoning"] is None] == [False, True]
    assert ["Paris" in reply["content"] for reply in (thinking, plain, seen["generated"])] == [True] * 3
    assert thinking["usage"]["reasoning_tokens"] > 0
    assert {"detailed thinking on", "Be brief.", CAPITAL} <= set(re.split(r"[\n<>|]+", seen.pop("prompt")))
    assert [seen.pop("rejected"), seen.pop("denied")[:1], seen.pop("late")[:1], seen.pop("no server")[:1]] == [
        ["RequestRejected", "INVALID_ARGUMENT"],
        ["AccessDenied"],
        ["DeadlineExceeded"],
        ["ServerUnavailable"],
    ]
    assert seen == {
        "ready": True,
        "models": ["nemotron", "preprocessing", "postprocessing"],
        "thinking": thinking,
        "plain": plain,
        "stream": thinking,
        "kinds": ["ContentDelta", "Finish", "ReasoningDelta"],
        "short": seen["short"] | {"finish": "length"},
        "forced": seen["forced"] | {"calls": [["calculate_tip", {"bill_total": 100, "tip_percentage": 18}]]},
        "run": ["18.0"],
        "tokens": plain["usage"]["input_tokens"],
        "generated": seen["generated"],
        "async": {"chat": plain, "stream": thinking, "run": ["18.0"], "tokens": seen["tokens"]},
    }

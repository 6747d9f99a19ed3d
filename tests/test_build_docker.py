"""The state of a machine's Docker, read from programs that may not answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from nemotron_build.docker import Docker, ask, read_docker
from patience import wait_until


def nothing(name: str) -> None:
    """A PATH without any program."""


def answers(status: int, text: str) -> Callable[[Sequence[str]], tuple[int, str]]:
    return lambda argv: (status, text)


@pytest.mark.parametrize(
    ("status", "text", "docker"),
    [
        (0, '{"ServerVersion": "28.2", "Runtimes": {"nvidia": {}, "runc": {}}}', Docker(version="28.2", nvidia=True)),
        (0, '{"ServerVersion": "28.2", "Runtimes": {"runc": {}}}', Docker(version="28.2", nvidia=False)),
        (0, '{"ServerVersion": "28.2"}', Docker(version="28.2")),
        (0, '{"ServerVersion": "", "ServerErrors": ["no daemon"]}', Docker(problem="no daemon")),
        (0, "{}", Docker(problem="status 0")),
        (0, "[]", Docker(problem="[]")),
        (1, "permission denied while trying to connect\n", Docker(problem="permission denied while trying to connect")),
        (124, "docker gave no answer within 5 s", Docker(problem="docker gave no answer within 5 s")),
        (1, "", Docker(problem="status 1")),
    ],
)
def test_docker_is_what_its_daemon_says(status: int, text: str, docker: Docker) -> None:
    assert read_docker({"docker": "/usr/bin/docker"}.get, answers(status, text)) == docker


def test_nvidia_s_hook_is_enough_for_docker() -> None:
    which = {"docker": "/usr/bin/docker", "nvidia-container-runtime-hook": "/usr/bin/hook"}.get

    docker = read_docker(which, answers(0, '{"ServerVersion": "28.2", "Runtimes": {"runc": {}}}'))

    assert docker == Docker(version="28.2", nvidia=True)


def test_no_docker_is_not_asked() -> None:
    assert read_docker(nothing, lambda argv: pytest.fail("asked")) is None


@pytest.mark.slow
def test_a_dead_daemon_and_its_plugins_do_not_hold_us_up(tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\nsleep 300 &\necho $! > $0.pid\nwait\n")
    docker.chmod(0o755)
    began = time.monotonic()

    status, text = ask([str(docker)], timeout_s=2)

    assert (status, text) == (124, f"{docker} gave no answer within 2 s")
    assert time.monotonic() - began < 20
    plugin = int((tmp_path / "docker.pid").read_text())
    wait_until(lambda: _state(plugin) in ("Z", None))


def _state(pid: int) -> str | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None


def test_a_program_that_is_not_there_is_an_answer() -> None:
    assert ask(["/nowhere/docker"]) == (127, "No such file or directory")
    assert ask(["/bin/sh", "-c", "echo out; echo wrong >&2; exit 3"]) == (3, "wrong\n")
    assert ask(["/bin/sh", "-c", "echo out; echo noise >&2"]) == (0, "out\n")

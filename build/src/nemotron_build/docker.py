"""The container runtime of this machine, as `docker info` tells it. Starts no container, and never waits long."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Which = Callable[[str], str | None]
Ask = Callable[[Sequence[str]], tuple[int, str]]

_INFO = ("docker", "info", "--format", "{{json .}}")
# A daemon that is stuck must not hold up the rest.
_TIMEOUT_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Docker:
    """The container runtime. `problem` says why its daemon cannot be used; `nvidia` is None where it is not known."""

    version: str | None = None
    problem: str | None = None
    nvidia: bool | None = None


def ask(argv: Sequence[str], *, timeout_s: float = _TIMEOUT_S) -> tuple[int, str]:
    """Run a program that only tells something; its status, and what it printed. Status 124: it took too long."""
    try:
        process = subprocess.Popen(  # noqa: S603 - programs this module names
            list(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
    except OSError as error:
        return 127, error.strerror or str(error)
    with process:
        try:
            output, errors = process.communicate(timeout=timeout_s)
        except BaseException as error:
            # Its plugins too, which are in its session.
            os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                return 124, f"{argv[0]} gave no answer within {timeout_s:g} s"
            raise
    return process.returncode, (errors if process.returncode and errors.strip() else output).decode(errors="replace")


def read_docker(which: Which = shutil.which, ask: Ask = ask) -> Docker | None:
    """Ask docker about its daemon; None where there is no docker."""
    if which("docker") is None:
        return None
    status, text = ask(_INFO)
    try:
        answer = json.loads(text) if status == 0 else {}
    except ValueError:
        answer = {}
    info: dict[str, Any] = answer if isinstance(answer, dict) else {}
    if not info.get("ServerVersion"):
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("{")]
        reasons = info.get("ServerErrors") or lines[-1:] or [f"status {status}"]
        return Docker(problem=str(reasons[0])[:200])
    runtimes = info.get("Runtimes")
    hook = any(which(name) for name in ("nvidia-container-runtime-hook", "nvidia-container-runtime", "nvidia-ctk"))
    known = "nvidia" in runtimes if isinstance(runtimes, dict) else None
    return Docker(version=str(info["ServerVersion"]), nvidia=hook or known)

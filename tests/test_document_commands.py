"""The commands and programs of the documents, run as they are printed, page after page, in one sitting.

A fence's second word says what is not plain: `sh exit 3` ends with that status, `sh skip` is not run, for the reason
behind it. A server stays until the next one is started: the pages share its ports and the bundle under /tmp.
"""

from __future__ import annotations

import http
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import ROOT
from patience import wait_until

pytestmark = [pytest.mark.documents, pytest.mark.server, pytest.mark.timeout(600)]

_FENCE = re.compile(
    r"^```(sh|python)(?: (exit (?P<status>\d+)|skip)\b[^\n]*)?\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_PAGES = ("client", "answers", "planning", "building", "serving")
_SERVER = re.compile(r"(\w+=\S+ )*\S+/(nemotron serve (?!--help)|tritonserver --model-repository)")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language, its text, and the exit status that it must have."""

    language: str
    text: str
    status: int

    def commands(self) -> list[str]:
        """The commands of a shell block, continued lines joined."""
        return [line for line in self.text.replace("\\\n", " ").splitlines() if line]


class Terminal:
    """Runs the blocks of a page; the server that was started last stays in the background."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[bytes] | None = None

    def run(self, block: Block) -> None:
        """Run *block*, which must end with its exit status; a server must become ready."""
        if block.language == "python":
            self._run([sys.executable, "-c", block.text], block.status)
            return
        for command in block.commands():
            if _SERVER.match(command):
                self.serve(command)
            else:
                self._run(["/bin/bash", "-c", command], block.status)

    def serve(self, command: str) -> None:
        """Start *command*, and end the server before it."""
        self.stop()
        self._server = subprocess.Popen(["/bin/bash", "-c", f"exec env {command}"], cwd=ROOT, stderr=subprocess.DEVNULL)
        wait_until(self._ready, patience_s=120)

    def stop(self) -> None:
        """End the server, if there is one."""
        if self._server:
            self._server.terminate()
            self._server.wait(60)

    def _ready(self) -> bool:
        assert self._server is not None
        assert self._server.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen("http://127.0.0.1:8000/v2/health/ready", timeout=5) as answer:
                return bool(answer.status == http.HTTPStatus.OK)
        except OSError:
            return False

    @staticmethod
    def _run(argv: list[str], status: int) -> None:
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=500)

        assert done.returncode == status, f"{argv[-1]}\n{done.stdout}\n{done.stderr}"


def blocks(page: Path) -> list[Block]:
    """The blocks of *page* that are run, in order."""
    return [
        Block(match[1], match["text"], int(match["status"] or 0))
        for match in _FENCE.finditer(page.read_text())
        if match[2] != "skip"
    ]


@pytest.fixture(scope="module")
def terminal() -> Iterator[Terminal]:
    # The paths that the documents print.
    for left in Path("/tmp").glob("demo-*"):  # noqa: S108 - as printed
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    terminal = Terminal()
    yield terminal
    terminal.stop()


# README.md first: the other pages use its bundle and its server.
@pytest.mark.parametrize("name", ["README.md", *(f"docs/{page}.md" for page in _PAGES)])
def test_what_a_page_prints_runs(terminal: Terminal, name: str) -> None:
    commands = blocks(ROOT / name)

    assert commands
    for block in commands:
        terminal.run(block)


def test_the_demo_prints_what_the_front_page_says() -> None:
    ran = subprocess.run(["make", "--no-print-directory", "demo"], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S607

    # Its folder and its ports are new each time.
    printed = re.sub(r"/tmp/tmp\.\w+", "/tmp/demo", re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:PORT", ran.stdout))  # noqa: S108
    assert f"```\n{printed.lstrip()}```\n" in (ROOT / "README.md").read_text()

"""A client in a process that was forked, as by a web server that loads the application and then forks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from conftest import ROOT
from patience import wait_until
from scripted_server import ScriptedServer, answer, scripted_server

PROGRAM = ROOT / "tests" / "support" / "forking_program.py"


class Forked:
    """The program: `ask` has the child ask once."""

    def __init__(self, kind: str, urls: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, PROGRAM, kind, urls], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def line(self) -> tuple[int, str, int]:
        """Who was answered, what, and after how many retries."""
        assert self._process.stdout
        pid, content, retries = json.loads(self._process.stdout.readline())
        return pid, content, retries

    def ask(self) -> tuple[int, str, int]:
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self.line()

    def end_child(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *_: object) -> None:
        self.end_child()
        self._process.kill()
        self._process.wait()
        assert self._process.stdout
        self._process.stdout.close()


@pytest.fixture(params=["Client", "AsyncClient"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_forked_child_looks_after_its_servers(kind: str) -> None:
    servers = [ScriptedServer(lambda request, context: answer("ja")) for _ in range(2)]
    with Forked(kind, ",".join(server.url for server in servers)) as forked:
        if kind == "Client":
            forked.line()
        before = forked.ask()
        servers[0].stop()
        during = [forked.ask() for _ in range(4)]
        servers[0] = ScriptedServer(lambda request, context: answer("back"), servers[0].port)
        wait_until(lambda: servers[0].looks > 0)
        wait_until(lambda: forked.ask()[1] == "back")
    for server in servers:
        server.stop()

    assert before[1:] == ("ja", 0)
    assert [content for _, content, _ in during] == ["ja"] * 4


@pytest.mark.parametrize("name", ["127.0.0.1", "dns:///localhost"], ids=["address", "name"])
def test_a_forked_child_has_connections_of_its_own(name: str) -> None:
    peers: list[str] = []

    def script(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        peers.append(context.peer())
        return answer("ja")

    with scripted_server(script) as server, Forked("Client", f"{name}:{server.port}") as forked:
        parent, child = forked.line(), forked.ask()
        forked.end_child()
        again = forked.line()

    assert parent[0] == again[0] != child[0]
    assert [retries for _, _, retries in (parent, child, again)] == [0, 0, 0]
    # The parent still has its first connection.
    assert peers[0] == peers[2] != peers[1]

"""The gateway beside a server: started again when it dies, with growing pauses, and gone when its parent is."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import psutil
import pytest

from nemotron_cli.gateway_child import GatewayChild
from nemotron_gateway.errors import SettingError
from patience import wait_until
from ports import free_ports

pytestmark = pytest.mark.slow

NEVER = threading.Event()
PARENT = """
import sys, threading
from nemotron_cli.gateway_child import GatewayChild
with GatewayChild(sys.argv[1:], {}, print) as child:
    child.wait_listening(threading.Event())
    print("listening", flush=True)
    threading.Event().wait()
"""


@pytest.fixture
def flags() -> list[str]:
    """Those of a gateway in front of a server that is not there."""
    port, nobody = free_ports(2)
    return [f"--port={port}", f"--url=127.0.0.1:{nobody}"]


@pytest.fixture
def said() -> list[str]:
    """The lines of the gateway and its child."""
    return []


@pytest.fixture
def child(flags: list[str], said: list[str]) -> Iterator[GatewayChild]:
    with GatewayChild(flags, {}, said.append) as child:
        assert child.wait_listening(NEVER)
        yield child


def gateways(pid: int) -> list[psutil.Process]:
    """The gateways that are children of process *pid*."""
    children = psutil.Process(pid).children()
    return [one for one in children if "gateway" in one.cmdline() and one.status() != psutil.STATUS_ZOMBIE]


def test_one_that_dies_is_replaced_and_each_time_it_says_so_and_waits_longer(
    child: GatewayChild, said: list[str]
) -> None:
    for number in range(3):
        wait_until(lambda: bool(gateways(os.getpid())))
        gateways(os.getpid())[0].kill()
        wait_until(lambda number=number: len(said) > number)  # type: ignore[misc]

    pauses = [re.sub("^the gateway was killed by SIGKILL; starting another in ", "", line) for line in said]
    assert pauses == ["0.2 s", "0.4 s", "0.8 s"]


def test_one_that_cannot_start_is_an_error_with_its_own_reason(flags: list[str], said: list[str]) -> None:
    with socket.create_server(("127.0.0.1", int(flags[0].rpartition("=")[2]))):
        child = GatewayChild(flags, {}, said.append)
        with pytest.raises(SettingError) as raised, child:
            child.wait_listening(NEVER)

    reason = r"cannot listen on 127.0.0.1:\d+: Address already in use; choose another port"
    assert re.fullmatch(f"the gateway exited with status 1: {reason}", str(raised.value))
    assert said == []


def test_the_start_can_be_left(flags: list[str], said: list[str]) -> None:
    stop = threading.Event()
    stop.set()

    with GatewayChild(flags, {}, said.append) as child:
        assert not child.wait_listening(stop)

    assert gateways(os.getpid()) == []


def test_it_is_gone_when_its_parent_was_killed(flags: list[str]) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, *flags], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        assert parent.stdout.readline() == "listening\n"
        (gateway,) = gateways(parent.pid)

        parent.send_signal(signal.SIGKILL)

        wait_until(lambda: not gateway.is_running() or gateway.status() == psutil.STATUS_ZOMBIE)


def test_it_does_not_get_the_settings_of_other_clients(
    flags: list[str], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEMOTRON_ROOT_CA", "/nowhere")

    with GatewayChild(flags, {"NEMOTRON_SECRET": "its-own"}, said.append) as child:
        assert child.wait_listening(NEVER)
        (gateway,) = gateways(os.getpid())
        settings = {name: value for name, value in gateway.environ().items() if name.startswith("NEMOTRON_")}

    assert settings == {"NEMOTRON_SECRET": "its-own"}

"""What is read of a machine: its GPUs, its tritonserver, its ports."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from machines import H100, L40S, THOR, FakeNvml
from nemotron_build.machine import port_is_free, read_machine
from nemotron_triton.errors import ServerError
from nemotron_triton.tritonserver import Installed

NO_SERVER = ServerError("there is no tritonserver here", "use NVIDIA's Triton container")


def nothing(name: str) -> None:
    """A PATH without any program."""


def test_what_locating_raises_is_kept_as_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def locate() -> Installed:
        raise NO_SERVER

    machine = read_machine(which=nothing, locate=locate)
    wheel = Installed(binary=Path("/b"), version="0.7.0", root=Path("/r"), stub=Path("/s"))
    bare = read_machine(which=nothing, locate=lambda: wheel, config_var={"LIBDIR": "/nowhere"}.get)

    assert (machine.tritonserver, machine.libpython) == (NO_SERVER, None)
    assert bare.tritonserver == "nvidia-pytriton 0.7.0"
    assert isinstance(bare.libpython, ServerError)
    assert bare.libpython.remedy.startswith("`apt-get install libpython3")


@pytest.mark.parametrize(("gpus", "sms"), [((H100, L40S), (90, 89)), ((THOR,), (110,))])
def test_a_build_sees_the_same_gpus(monkeypatch: pytest.MonkeyPatch, gpus: Any, sms: tuple[int, ...]) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(*gpus))

    host = read_machine(which=nothing).host

    assert host.sms == sms
    assert all(" (SM " in title for title in host.gpu_titles)


def test_a_port_in_use_is_seen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert not port_is_free(port)
    assert port_is_free(port)

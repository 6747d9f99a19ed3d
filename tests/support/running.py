"""tritonservers that this process starts, on ports of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil

from nemotron_client import Client
from nemotron_triton.bundle import Bundle
from nemotron_triton.server import RunningServer, ServeOptions, serve
from ports import free_ports


@dataclass(frozen=True)
class Running:
    """A server and its log."""

    server: RunningServer
    options: ServeOptions
    log: list[str]

    def client(self, **settings: Any) -> Client:
        """A client of the server, with a time-out of a minute unless *settings* have another."""
        return Client(self.options.grpc_url, **{"timeout_s": 60} | settings)


@contextlib.contextmanager
def running(
    bundle: Bundle,
    options: ServeOptions | None = None,
    *,
    adapters: Mapping[str, Path] = MappingProxyType({}),
    **changes: Any,
) -> Iterator[Running]:
    """A server that is ready, with *changes* to its options.

    It is killed when the block ends: tritonserver takes 3 s to stop, and how it does is test_e2e_lifecycle's.
    """
    options = replace(options or serve_options(), **changes)
    log: list[str] = []
    with serve(bundle, options, log=log.append, adapters=adapters) as server:
        try:
            assert server.wait_ready(threading.Event()), log
            yield Running(server, options, log)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)


def stubs(pid: int) -> set[psutil.Process]:
    """The processes of the models below process *pid*; one that is ending has no name any more."""
    models = set()
    for process in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "stub" in process.name():
                models.add(process)
    return models


def serve_options() -> ServeOptions:
    """Options with three ports that are free now."""
    http_port, grpc_port, metrics_port = free_ports(3)
    return ServeOptions(http_port=http_port, grpc_port=grpc_port, metrics_port=metrics_port, ready_timeout_s=90)

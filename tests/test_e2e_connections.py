"""Connections of foreign gRPC clients: pings are taken, they are made anew at an age, and no answer is cut."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput, KeepAliveOptions

from conftest import ROOT
from nemotron_triton.bundle import Bundle
from nemotron_triton.connections import Connections
from nemotron_triton.server import ServeOptions
from nemotron_triton.serving.settings import Settings
from patience import wait_until
from running import running

# As in tests/support/hanging_model.py: a request with this seed gets no token.
HANG = 1


def begin(client: InferenceServerClient, **values: Any) -> queue.Queue[Any]:
    """The queue into which a request's responses come, errors among them."""
    responses: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: responses.put(error or result))
    client.async_stream_infer("nemotron", [tensor(name, value) for name, value in values.items()])
    return responses


def tensor(name: str, value: Any) -> InferInput:
    datatype = {str: "BYTES", bool: "BOOL", int: "INT32"}[type(value)]
    if name == "seed":
        datatype = "UINT64"
    types = {"BYTES": np.object_, "BOOL": np.bool_, "INT32": np.int32, "UINT64": np.uint64}
    data = InferInput(name, [1, 1], datatype)
    data.set_data_from_numpy(np.array([[value.encode() if datatype == "BYTES" else value]], types[datatype]))
    return data


def pinging(options: ServeOptions, every_ms: int) -> InferenceServerClient:
    keepalive = KeepAliveOptions(
        keepalive_time_ms=every_ms, keepalive_permit_without_calls=True, http2_max_pings_without_data=0
    )
    return InferenceServerClient(options.grpc_url, keepalive_options=keepalive)


@pytest.mark.parametrize(
    ("every_ms", "wait_ms"),
    [(1_500, 10_000), pytest.param(10_000, 60_000, marks=pytest.mark.envoy)],
)
def test_a_client_that_pings_while_it_waits_is_not_hung_up_on(bundle: Bundle, every_ms: int, wait_ms: int) -> None:
    adapters = {"nemotron": ROOT / "tests" / "support" / "hanging_model.py"}
    settings = Settings(max_request_ms=wait_ms)
    with running(bundle, adapters=adapters, settings=settings) as served, pinging(served.options, every_ms) as client:
        responses = begin(client, text_input="Hello", seed=HANG)
        last = responses.get(timeout=wait_ms / 1000 + 30)

    # The server's own end of it.
    assert "DEADLINE_EXCEEDED: " in str(last), last


class Doors:
    """A load balancer of connections, not of requests: each goes to the next of *ports*."""

    def __init__(self, ports: list[int]) -> None:
        self._ports = ports
        self.used: list[int] = []
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._start(self._accept)

    def close(self) -> None:
        for end in [self._listener, *self._sockets]:
            end.close()

    def _accept(self) -> None:
        try:
            while True:
                near, _ = self._listener.accept()
                port = self._ports[min(len(self.used), len(self._ports) - 1)]
                far = socket.create_connection(("127.0.0.1", port))
                self._sockets += near, far
                self._start(self._carry, near, far)
                self._start(self._carry, far, near)
                self.used.append(port)
        except OSError:
            pass  # closed

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # closed

    def _start(self, work: Any, *arguments: Any) -> None:
        threading.Thread(target=work, args=arguments, daemon=True).start()


@contextmanager
def doors(*ports: int) -> Iterator[Doors]:
    balancer = Doors(list(ports))
    try:
        yield balancer
    finally:
        balancer.close()


def test_a_client_comes_to_another_server_in_time_and_no_stream_is_cut(bundle: Bundle, served: ServeOptions) -> None:
    connections = Connections(grpc_max_connection_age_ms=500)
    with (
        running(bundle, connections=connections, text_models=False) as aging,
        doors(aging.options.grpc_port, served.grpc_port) as balancer,
        InferenceServerClient(balancer.url) as client,
    ):
        # Its own stream stays on the first connection, whatever its age.
        responses = begin(client, text_input="Hello", max_tokens=1900, end_id=-1, stream=True)
        first = responses.get(timeout=60)

        def has_moved() -> bool:
            assert client.is_server_ready()
            return served.grpc_port in balancer.used

        wait_until(has_moved)
        last = first
        while (reason := last.as_numpy("finish_reason")) is None:
            last = responses.get(timeout=60)
            assert not isinstance(last, Exception), last

    assert balancer.used == [aging.options.grpc_port, served.grpc_port]
    assert (reason[0][0], last.as_numpy("num_output_tokens")[0][0]) == (b"length", 1900)

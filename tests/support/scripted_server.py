"""A real gRPC server with Triton's methods that answers as a test's script says, and the responses to script with."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from nemotron_client import Usage, wire
from ports import free_ports

Script = Callable[[Any, grpc.ServicerContext], Iterator[Any]]

HI = [{"role": "user", "content": "hi"}]
USAGE = Usage(input_tokens=3, output_tokens=2, reasoning_tokens=1)
LAST: dict[wire.Tensor, Any] = {
    wire.FINISH_REASON: "stop",
    wire.NUM_INPUT_TOKENS: 3,
    wire.NUM_OUTPUT_TOKENS: 2,
    wire.NUM_REASONING_TOKENS: 1,
}


def response(values: dict[wire.Tensor, Any]) -> Any:
    """One response of a stream."""
    message = service_pb2.ModelStreamInferResponse()
    for tensor, value in values.items():
        message.infer_response.outputs.add(name=tensor.name, datatype=tensor.dtype, shape=[1, 1])
        data = np.array([value], dtype=wire.NUMPY[tensor.dtype]).tobytes() if tensor.dtype != "BYTES" else b""
        if tensor.dtype == "BYTES":
            data = len(value.encode()).to_bytes(4, "little") + value.encode()
        message.infer_response.raw_output_contents.append(data)
    return message


def failure(message: str) -> Any:
    """An error inside a stream."""
    return service_pb2.ModelStreamInferResponse(error_message=message)


def answer(text: str) -> Iterator[Any]:
    """A whole answer."""
    yield response({wire.TEXT_OUTPUT: text, **LAST})


class Endless:
    """A script that sends text until it is cancelled, and notes that."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()

    def __call__(self, _request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        context.add_callback(self.cancelled.set)
        while context.is_active():
            yield response({wire.TEXT_OUTPUT: "word "})
            time.sleep(0.002)


class ScriptedServer:
    """A server that answers every request for a stream with *script*, at a port to which it can come back.

    It listens at further *addresses* too, whose `ports` follow its own.
    `requests` are those it got, `ready` is what it says when it is looked at, `looks` how often it was.
    """

    def __init__(self, script: Script, port: int | None = None, addresses: Sequence[str] = ()) -> None:
        self.requests: list[Any] = []
        self.ready = True
        self.looks = 0
        scripted = self

        class Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
            def ModelStreamInfer(self, requests: Any, context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: N802
                request = next(requests)
                scripted.requests.append(request)
                return script(request, context)

            def ServerLive(self, _request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802
                return service_pb2.ServerLiveResponse(live=True)

            def ServerReady(self, _request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802
                scripted.looks += 1
                return service_pb2.ServerReadyResponse(ready=scripted.ready)

            def ModelReady(self, _request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802
                return service_pb2.ModelReadyResponse(ready=scripted.ready)

        self._server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Servicer(), self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port or free_ports(1)[0]}")
        self.ports = [self.port, *map(self._server.add_insecure_port, addresses)]
        self.url = f"127.0.0.1:{self.port}"
        self._server.start()

    def stop(self) -> None:
        """Break off what runs, and answer nothing more."""
        self._server.stop(None).wait()


@contextlib.contextmanager
def scripted_server(script: Script) -> Iterator[ScriptedServer]:
    """A server that answers every request for a stream with *script*."""
    server = ScriptedServer(script)
    try:
        yield server
    finally:
        server.stop()

"""Triton's gRPC methods as far as a gateway needs them, answering each request with the same recorded responses.

Run as a program: `replay_server.py PORT RESPONSES INTERVAL_S`. Responses are bytes that were made before; so nearly all
that it costs is gRPC. Streams begin at different times, so that they do not answer in step.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import numpy as np
from answer import TEXT, TOKENS
from tritonclient.grpc import service_pb2

from nemotron_client import wire

SERVICE = "inference.GRPCInferenceService"
DESCRIPTION = {
    "name": "replay",
    "names": [],
    "context_tokens": 131_072,
    "kind": "cpu",
    "precision": "bf16",
    "gpu": "cpu",
    "built_at": "2026-12-01T00:00:00+00:00",
}


def response(values: dict[wire.Tensor, Any]) -> bytes:
    """One response of a stream, as it is sent."""
    message = service_pb2.ModelStreamInferResponse()
    for tensor, value in values.items():
        message.infer_response.outputs.add(name=tensor.name, datatype=tensor.dtype, shape=[1, 1])
        if tensor.dtype == "BYTES":
            text = value.encode()
            data = len(text).to_bytes(4, "little") + text
        else:
            data = np.array([value], dtype=wire.NUMPY[tensor.dtype]).tobytes()
        message.infer_response.raw_output_contents.append(data)
    return bytes(message.SerializeToString())


DESCRIBED = response({wire.DESCRIPTION: json.dumps(DESCRIPTION)})
PIECE = response({wire.TEXT_OUTPUT: TEXT})
LAST = response(
    {
        wire.TEXT_OUTPUT: "",
        wire.FINISH_REASON: "stop",
        wire.NUM_INPUT_TOKENS: 30,
        wire.NUM_OUTPUT_TOKENS: 100 * TOKENS,
        wire.NUM_REASONING_TOKENS: 0,
    }
)


async def _serve(port: int, responses: int, interval_s: float) -> None:
    async def infer(request: Any, _context: Any) -> AsyncIterator[bytes]:
        if any(tensor.name == wire.DESCRIBE.name for tensor in request.inputs):
            yield DESCRIBED
            return
        yield PIECE
        await asyncio.sleep(interval_s * random.random())  # noqa: S311 - no secret
        for _ in range(responses - 2):
            yield PIECE
            await asyncio.sleep(interval_s)
        yield LAST

    async def ready(_request: Any, _context: Any) -> Any:
        return service_pb2.ServerReadyResponse(ready=True)

    handlers = {
        "ModelStreamInfer": grpc.unary_stream_rpc_method_handler(
            infer, request_deserializer=service_pb2.ModelInferRequest.FromString, response_serializer=bytes
        ),
        "ServerReady": grpc.unary_unary_rpc_method_handler(
            ready,
            request_deserializer=service_pb2.ServerReadyRequest.FromString,
            response_serializer=service_pb2.ServerReadyResponse.SerializeToString,
        ),
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))

"""The load: many streams at once from a process of its own, through raw `grpc.aio` stubs.

    python load.py URL MODEL STREAMS TOKENS ROUNDS TEXT_ALONE

Prints one JSON line: seconds it took, responses, and each stream's time to first response in milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import grpc.aio
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

_MESSAGES = [{"role": "user", "content": "My bill is $100. What will be the amount for 18% tip?"}]
_TOOLS = [
    {
        "type": "function",
        "function": {"name": "calculate_tip", "parameters": {"type": "object", "properties": {"bill_total": {}}}},
    }
]


def request(model: str, tokens: int, text_alone: int) -> Any:
    """What both models are asked for; the bare one reads `max_tokens` only."""
    made = service_pb2.ModelInferRequest(model_name=model)
    _add(made, "max_tokens", "INT32", np.array([tokens], np.int32).tobytes())
    if model == "nemotron":
        _add(made, "messages", "BYTES", _text(json.dumps(_MESSAGES)))
        _add(made, "tools", "BYTES", _text(json.dumps(_TOOLS)))
        _add(made, "thinking", "BOOL", b"\x01")
        _add(made, "stream", "BOOL", b"\x01")
        if text_alone:
            _add(made, "seed", "UINT64", np.uint64(1).tobytes())
    return made


def _add(made: Any, name: str, datatype: str, data: bytes) -> None:
    made.inputs.add(name=name, datatype=datatype, shape=[1, 1])
    made.raw_input_contents.append(data)


def _text(value: str) -> bytes:
    return len(value.encode()).to_bytes(4, "little") + value.encode()


async def main(url: str, model: str, streams: int, tokens: int, rounds: int, text_alone: int) -> None:
    """Run *rounds* of *streams* at once."""
    first_ms: list[float] = []
    responses = 0

    async def one(stub: Any) -> None:
        nonlocal responses
        begin, seen = time.perf_counter(), False
        call = stub.ModelStreamInfer(iter([request(model, tokens, text_alone)]))
        async for response in call:
            if response.error_message:
                raise RuntimeError(response.error_message)
            if not seen:
                first_ms.append((time.perf_counter() - begin) * 1e3)
                seen = True
            responses += 1

    async with grpc.aio.insecure_channel(url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        begin = time.perf_counter()
        for _ in range(rounds):
            await asyncio.gather(*[one(stub) for _ in range(streams)])
        took_s = time.perf_counter() - begin
    sys.stdout.write(json.dumps({"took_s": took_s, "responses": responses, "first_ms": first_ms}) + "\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:7])))

"""The load: many streams at once from a process of its own, through raw `grpc.aio` stubs.

    python load.py URL MODEL STREAMS TOKENS ROUNDS TEXT_ALONE RESPONSES

RESPONSES is how many the bare model shall make of an answer, 0 for one of each token. Prints one JSON line: seconds it
took, responses, and each stream's time to first response in milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import grpc.aio
from tritonclient.grpc import service_pb2_grpc

from nemotron_client.protocol import infer_request

_MESSAGES = [{"role": "user", "content": "My bill is $100. What will be the amount for 18% tip?"}]
_TOOLS = [
    {
        "type": "function",
        "function": {"name": "calculate_tip", "parameters": {"type": "object", "properties": {"bill_total": {}}}},
    }
]


def request(model: str, tokens: int, text_alone: int, responses: int) -> Any:
    """The same request for every model."""
    values = {"messages": _MESSAGES, "tools": _TOOLS, "thinking": True, "stream": True, "max_tokens": tokens}
    message = infer_request("nemotron", values | {"seed": 1 if text_alone else None}, request_id="")
    message.model_name = model
    if model == "bare" and responses:
        message.parameters["responses"].int64_param = responses
    return message


async def main(
    url: str, model: str, streams: int, tokens: int, rounds: int, text_alone: int, bare_responses: int
) -> None:
    """Run *rounds* of *streams* at once."""
    first_ms: list[float] = []
    responses = 0
    message = request(model, tokens, text_alone, bare_responses)

    async def read(stub: Any) -> None:
        nonlocal responses
        begin, first = time.perf_counter(), True
        async for response in stub.ModelStreamInfer(iter([message])):
            if response.error_message:
                raise RuntimeError(response.error_message)
            if first:
                first_ms.append((time.perf_counter() - begin) * 1e3)
                first = False
            responses += 1

    async with grpc.aio.insecure_channel(url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        begin = time.perf_counter()
        for _ in range(rounds):
            await asyncio.gather(*[read(stub) for _ in range(streams)])
        took_s = time.perf_counter() - begin
    sys.stdout.write(json.dumps({"took_s": took_s, "responses": responses, "first_ms": first_ms}) + "\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:8])))

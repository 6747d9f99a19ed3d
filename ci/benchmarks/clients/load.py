"""One client under load, in a process of its own: what each response costs it, and how its memory grows.

    python load.py KIND URL STREAMS REQUESTS INSTANCES

KIND is raw (grpc.aio with Triton's stubs), nemotron (AsyncClient) or tritonclient (its asyncio client). REQUESTS are
asked by STREAMS tasks; INSTANCES makes that many clients, one after the other. Prints one JSON line.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import tritonclient.grpc.aio as tritonclient
from tritonclient.grpc import service_pb2, service_pb2_grpc

from nemotron_client import AsyncClient

MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]
# Asks once, and returns the number of responses or events that it got.
Ask = Callable[[], Awaitable[int]]


def text(value: str) -> bytes:
    """Triton's raw form of a string."""
    return len(value.encode()).to_bytes(4, "little") + value.encode()


@asynccontextmanager
async def raw(url: str) -> AsyncIterator[Ask]:
    """The stubs, and nothing else: responses are received and dropped."""
    async with grpc.aio.insecure_channel(url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

        async def ask() -> int:
            request = service_pb2.ModelInferRequest(model_name="nemotron")
            for name, datatype, data in (("messages", "BYTES", text(json.dumps(MESSAGES))), ("stream", "BOOL", b"\1")):
                request.inputs.add(name=name, datatype=datatype, shape=[1, 1])
                request.raw_input_contents.append(data)
            count = 0
            async for response in stub.ModelStreamInfer(iter([request]), timeout=600):
                count += not response.error_message
            return count

        yield ask


@asynccontextmanager
async def nemotron(url: str) -> AsyncIterator[Ask]:
    """Our client: every response becomes typed events."""
    async with AsyncClient(url) as client:

        async def ask() -> int:
            count = 0
            async for _ in client.stream(MESSAGES):
                count += 1
            return count

        yield ask


@asynccontextmanager
async def plain(url: str) -> AsyncIterator[Ask]:
    """tritonclient's: every response becomes an `InferResult`."""
    async with tritonclient.InferenceServerClient(url) as client:

        async def requests() -> AsyncIterator[dict[str, Any]]:
            messages = tritonclient.InferInput("messages", [1, 1], "BYTES")
            messages.set_data_from_numpy(np.array([[json.dumps(MESSAGES).encode()]], dtype=np.object_))
            stream = tritonclient.InferInput("stream", [1, 1], "BOOL")
            stream.set_data_from_numpy(np.array([[True]]))
            yield {"model_name": "nemotron", "inputs": [messages, stream]}

        async def ask() -> int:
            count = 0
            async for result, error in client.stream_infer(requests()):
                if error:
                    raise error
                count += result.as_numpy("text_output") is not None
            return count

        yield ask


KINDS: dict[str, Callable[[str], AbstractAsyncContextManager[Ask]]] = {
    "raw": raw,
    "nemotron": nemotron,
    "tritonclient": plain,
}


def anonymous_kib() -> int:
    """Memory of this process that is not of mapped files."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")))


async def ask_all(ask: Ask, streams: int, requests: int) -> None:
    """*requests* in all, *streams* at a time."""
    left = iter(range(requests))

    async def stream() -> None:
        for _ in left:
            if not await ask():
                raise RuntimeError("an answer is empty")

    await asyncio.gather(*(stream() for _ in range(streams)))


async def main(kind: str, url: str, streams: int, requests: int, instances: int) -> None:
    """Warm up with a tenth, then measure."""
    cpu_s = 0.0
    grown_from = 0
    for instance in range(instances):
        async with KINDS[kind](url) as ask:
            if instance == 0 or instance == instances // 10:
                await ask_all(ask, streams, max(streams, requests // 10))
                gc.collect()
                grown_from = anonymous_kib()
            begin = time.process_time()
            await ask_all(ask, streams, requests)
            cpu_s += time.process_time() - begin
    gc.collect()
    figures = {"cpu_us_per_request": cpu_s * 1e6 / (requests * instances), "grown_kib": anonymous_kib() - grown_from}
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])))

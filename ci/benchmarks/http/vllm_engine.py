"""What stands in for vLLM's engine process: it answers every request alike, and computes nothing.

Run as a program: `vllm_engine.py MODEL FOLDER RESPONSES INTERVAL_S`. The first output goes out at once. Then, as an
engine's batch does, each step brings an output of every running request, in one message.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import zmq
import zmq.asyncio
from answer import TEXT, TOKENS
from tokenizers import Tokenizer
from vllm.v1.engine import (
    EngineCoreOutput,
    EngineCoreOutputs,
    EngineCoreRequest,
    EngineCoreRequestType,
    FinishReason,
    UtilityOutput,
)
from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder, UtilityResult

# Of the first engine.
_IDENTITY = (0).to_bytes(2, "little")


class Engine:
    """Requests come in, outputs go out."""

    def __init__(self, folder: str, tokens: list[int], responses: int) -> None:
        context = zmq.asyncio.Context()
        self._requests = context.socket(zmq.DEALER)
        self._requests.setsockopt(zmq.IDENTITY, _IDENTITY)
        self._requests.connect(f"ipc://{folder}/requests")
        self._outputs = context.socket(zmq.PUSH)
        self._outputs.connect(f"ipc://{folder}/outputs")
        self._encode = MsgpackEncoder().encode
        self._tokens = tokens
        self._responses = responses
        self._left: dict[str, int] = {}

    async def serve(self) -> None:
        """Take requests, and answer questions about the engine."""
        added, other = MsgpackDecoder(EngineCoreRequest), MsgpackDecoder()
        await self._requests.send(b"")  # ready, and what vLLM thinks of the model is right
        while True:
            kind, *frames = await self._requests.recv_multipart()
            if kind == EngineCoreRequestType.ADD.value:
                name = added.decode(frames).request_id
                self._left[name] = self._responses - 1
                await self._send(outputs=[EngineCoreOutput(name, self._tokens)])
            elif kind == EngineCoreRequestType.ABORT.value:
                for name in other.decode(frames):
                    self._left.pop(name, None)
            elif kind == EngineCoreRequestType.UTILITY.value:
                _, call, method, _ = other.decode(frames)
                result = UtilityResult(["generate"] if method == "get_supported_tasks" else None)
                await self._send(utility_output=UtilityOutput(call, result=result))

    async def step(self, interval_s: float) -> None:
        """Let the answers go on."""
        while True:
            await asyncio.sleep(interval_s)
            if self._left:
                await self._send(outputs=[self._next(name) for name in list(self._left)])

    def _next(self, name: str) -> EngineCoreOutput:
        self._left[name] -= 1
        if self._left[name]:
            return EngineCoreOutput(name, self._tokens)
        del self._left[name]
        return EngineCoreOutput(name, self._tokens[:1], finish_reason=FinishReason.STOP)

    async def _send(self, **what: Any) -> None:
        await self._outputs.send_multipart(self._encode(EngineCoreOutputs(**what)))


async def _main() -> None:
    model, folder, responses, interval_s = sys.argv[1:]
    tokenizer = Tokenizer.from_file(str(Path(model) / "tokenizer.json"))
    engine = Engine(folder, tokenizer.encode(TEXT, add_special_tokens=False).ids[:TOKENS], int(responses))
    await asyncio.gather(engine.serve(), engine.step(float(interval_s)))


if __name__ == "__main__":
    asyncio.run(_main())

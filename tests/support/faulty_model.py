"""The `nemotron` model with an engine that fails in the way that a request's seed asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import triton_python_backend_utils as pb_utils

from nemotron_triton.bundle import Bundle
from nemotron_triton.chat.render import Prompt
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.engine.interface import Engine, EngineStatistics, Sampling
from nemotron_triton.engine.stream import TokenStream
from nemotron_triton.errors import EngineError
from nemotron_triton.serving.service import Service

# The meanings of a request's seed.
ANSWER, FAIL_IN_MIDSTREAM, HANG, RAISE_AT_ONCE, DIE, ENDLESS, STUCK, SILENT = range(8)
TEXT = "one two three four five six seven eight nine ten "


class FaultyEngine(Engine):
    """Answers with `TEXT`, or does what the seed says after its first words; `SILENT` begins with none."""

    max_seq_len = 100_000
    max_batch_size = 8
    cannot: Mapping[str, str] = {}

    def __init__(self, _bundle: Bundle, codec: TokenCodec) -> None:
        self._ids = codec.encode(Prompt(TEXT, "\ufdd0", ()))
        self._running: set[asyncio.Task[None]] = set()
        self._generated = 0
        self._problem: str | None = None

    def generate(self, _ids: Sequence[int], sampling: Sampling, stream: TokenStream) -> None:
        """Do as the seed says."""
        if sampling.seed == RAISE_AT_ONCE:
            raise ZeroDivisionError("not an error that anybody foresaw, with a secret in it")
        task = asyncio.get_running_loop().create_task(self._run(sampling, stream))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def statistics(self) -> EngineStatistics:
        """The counts of every engine."""
        return EngineStatistics(
            active_requests=len(self._running),
            waiting_requests=0,
            generated_tokens=self._generated,
            problem=self._problem,
        )

    def close(self) -> None:
        """There is nothing to free."""

    async def _run(self, sampling: Sampling, stream: TokenStream) -> None:
        if sampling.seed == STUCK:
            # Ignores a cancel after its first words.
            stream.put(tuple(self._ids[:5]))
            await asyncio.sleep(3600)
        while sampling.seed == SILENT and not stream.cancelled:
            await asyncio.sleep(0.02)
        left = sampling.max_tokens
        while left and not stream.cancelled:
            for token_id in self._ids[:left]:
                stream.put((token_id,))
                self._generated += 1
                await asyncio.sleep(0.001)
                if stream.cancelled:
                    return
            left -= len(self._ids[:left])
            if sampling.seed == FAIL_IN_MIDSTREAM:
                stream.fail(EngineError("the GPU has fallen off the bus"))
            elif sampling.seed == HANG:
                while not stream.cancelled:
                    await asyncio.sleep(0.02)
            elif sampling.seed == DIE:
                self._problem = "the executor died"
                await asyncio.sleep(3600)
            elif sampling.seed != ENDLESS:
                break
        stream.put((), "stop" if left else "length")


class TritonPythonModel:
    """`model_repo/nemotron` with another engine."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load everything except an engine."""
        self._service = Service.start(args, pb_utils, start_engine=FaultyEngine)

    def execute(self, requests: list[Any]) -> None:
        """Take the requests over."""
        for request in requests:
            self._service.submit(request)

    def finalize(self) -> None:
        """Stop."""
        self._service.close()

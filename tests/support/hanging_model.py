"""The `nemotron` model with an engine that hangs in its runtime before its first token, where no request can be ended.

It counts requests as TensorRT-LLM's does here: what has no token yet waits.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import triton_python_backend_utils as pb_utils

from nemotron_triton.bundle import Bundle
from nemotron_triton.chat.render import Prompt
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.engine.interface import Engine, EngineStatistics, Sampling
from nemotron_triton.engine.request_threads import RequestThreads
from nemotron_triton.engine.stream import TokenStream
from nemotron_triton.serving.service import Service

# A request with this seed hangs; where the variable is set, all do, the warm-up too.
HANG = 1
HANG_AT_ONCE = "NEMOTRON_TEST_HANG_AT_ONCE"


class HangingEngine(Engine):
    """Generates one word, or hangs."""

    max_seq_len = 2048
    max_batch_size = 2
    cannot: Mapping[str, str] = {}

    def __init__(self, _bundle: Bundle, codec: TokenCodec) -> None:
        self._ids = codec.encode(Prompt("word", "\ufdd0", ()))
        self._threads = RequestThreads(self.max_batch_size, "The runtime")

    def generate(self, _ids: Sequence[int], sampling: Sampling, stream: TokenStream) -> None:
        """Answer, or hang."""

        def work() -> None:
            if sampling.seed == HANG or os.environ.get(HANG_AT_ONCE):
                time.sleep(3600)
            stream.put(self._ids, "stop")

        self._threads.begin(work, stream)

    def statistics(self) -> EngineStatistics:
        """Requests that hang count as waiting."""
        waiting = self._threads.active + self._threads.waiting
        return EngineStatistics(active_requests=0, waiting_requests=waiting, generated_tokens=0)

    def close(self) -> None:
        """Wait for the requests that run, as every engine does."""
        self._threads.close()


class TritonPythonModel:
    """`model_repo/nemotron` with another engine."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load everything except an engine."""
        self._service = Service.start(args, pb_utils, start_engine=HangingEngine)

    def execute(self, requests: list[Any]) -> None:
        """Take the requests over."""
        for request in requests:
            self._service.submit(request)

    def finalize(self) -> None:
        """Stop."""
        self._service.close()

"""The `cpu` engine: llama.cpp in this process, from the `xllamacpp` wheel, on a GGUF file.

llama.cpp batches in flight; a thread for each running request waits for its tokens. A request can be stopped only
between two steps, so a step is kept short: at most `_STEP_TOKENS` tokens of all prompts and answers together.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from nemotron_triton.bundle import Bundle, Manifest
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.engine.interface import Engine, EngineStatistics, Sampling
from nemotron_triton.engine.llama_cpp import Answer
from nemotron_triton.engine.request_threads import CLOSED, RequestThreads
from nemotron_triton.engine.stream import TokenStream
from nemotron_triton.errors import EngineError
from nemotron_triton.extras import how_to_install
from nemotron_triton.findings import Finding
from nemotron_triton.memory import free_main_memory
from nemotron_triton.native_path import native_path
from nemotron_triton.runtime import Runtime

_STEP_TOKENS = 64


class CpuEngine(Engine):
    """llama.cpp on one bundle of kind `cpu`."""

    memory_of = "this machine's"

    def __init__(self, bundle: Bundle, codec: TokenCodec) -> None:
        super().__init__(bundle, codec)
        try:
            import xllamacpp
        except ModuleNotFoundError as error:
            raise EngineError(f"the cpu engine needs xllamacpp ({error})", how_to_install("cpu")) from error
        except ImportError as error:
            raise EngineError(f"llama.cpp cannot be loaded: {error}; apt-get install libgomp1") from error
        manifest = self.manifest
        self._end_ids = frozenset(manifest.end_ids)
        self._lock = threading.Lock()
        self._generated_tokens = 0
        self._prompt_steps = 0
        self._problem: str | None = None
        # llama.cpp always listens; nobody else can reach a socket in a private folder. Its path goes through a
        # descriptor, because a socket's path may have 107 bytes and a temporary folder's may have more.
        self._folder = tempfile.TemporaryDirectory(prefix="nemotron-cpu-")
        descriptor = os.open(self._folder.name, os.O_PATH)
        params = xllamacpp.CommonParams()
        params.model.path = native_path(bundle.engine_path)
        params.hostnames = [f"/proc/self/fd/{descriptor}/llama.sock"]
        params.n_threads_http = 1
        params.ui = False
        params.n_parallel = manifest.max_batch_size
        params.n_ctx = manifest.max_batch_size * manifest.max_seq_len
        params.n_batch = params.n_ubatch = max(_STEP_TOKENS, manifest.max_batch_size)
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = _threads(manifest.memory.weights_bytes)
        params.cache_ram_mib = 0
        params.verbosity = -1
        try:
            self._server: Any = xllamacpp.Server(params)
        except Exception as error:  # RuntimeError, ValueError and the binding's own
            self._folder.cleanup()
            raise EngineError(f"llama.cpp cannot load {bundle.engine_path}: {error}") from error
        finally:
            os.close(descriptor)
        self._threads = RequestThreads(manifest.max_batch_size, "llama.cpp")

    def generate(self, ids: Sequence[int], sampling: Sampling, stream: TokenStream) -> None:
        answer = Answer(self.codec, self._end_ids, list(ids), sampling, stream.put)
        self._threads.begin(lambda: self._run(answer, stream), stream)

    def statistics(self) -> EngineStatistics:
        with self._lock:
            return EngineStatistics(
                active_requests=self._threads.active,
                waiting_requests=self._threads.waiting,
                generated_tokens=self._generated_tokens,
                prompt_steps=self._prompt_steps,
                problem=self._problem,
            )

    def close(self) -> None:
        self._problem = CLOSED
        self._threads.close()
        self._server = None
        self._folder.cleanup()

    @classmethod
    def unsupported(cls, _llm_args: Mapping[str, Any]) -> Mapping[str, str]:
        return {"no_repeat_ngram_size": "llama.cpp has no such rule; use repetition_penalty"}

    @classmethod
    def machine_findings(cls, _: Manifest, runtime: Runtime) -> Iterator[Finding]:
        if version := runtime.llama_cpp:
            yield Finding("xllamacpp", f"runs in llama.cpp, of which xllamacpp {version} is here")
        else:
            yield Finding("xllamacpp", "runs in llama.cpp, and xllamacpp is not installed here", how_to_install("cpu"))

    @classmethod
    def free_memory(cls) -> int | None:
        return free_main_memory()

    def _run(self, answer: Answer, stream: TokenStream) -> None:
        stopped = True

        def receive(message: dict[str, Any]) -> bool:
            """Take llama.cpp's message about a step; True stops the request."""
            nonlocal stopped
            before = answer.tokens
            stopped = answer.receive(message) or stream.cancelled or self._threads.closed
            stream.cached_tokens = answer.cached_tokens
            with self._lock:
                self._generated_tokens += answer.tokens - before
                self._prompt_steps += answer.tokens == before
            return stopped

        if probe := answer.probe():
            self._complete(probe, answer.receive_probe)
        while not (answer.ended or stream.cancelled):
            if answer.failure:
                raise answer.failure
            if self._threads.closed:
                raise EngineError(CLOSED)
            if not stopped:
                raise EngineError("llama.cpp ended an answer without saying why")
            stopped = False
            self._complete(answer.request(), receive)

    def _complete(self, request: Mapping[str, Any], receive: Callable[[dict[str, Any]], bool]) -> None:
        """Have llama.cpp answer *request*, and raise what *receive* raised, which must not pass through llama.cpp."""
        failures: list[Exception] = []

        def guarded(message: dict[str, Any]) -> bool:
            try:
                return receive(message)
            except Exception as error:
                failures.append(error)
                return True

        try:
            self._server.handle_completions(request, guarded)
        except Exception:
            if not (self._threads.closed or self._answers()):
                self._problem = "llama.cpp answers no request any more"
            raise
        if failures:
            raise failures[0]

    def _answers(self) -> bool:
        messages: list[dict[str, Any]] = []

        def receive(message: dict[str, Any]) -> bool:
            messages.append(message)
            return False

        try:
            self._server.handle_completions({"prompt": [0], "stream": True, "n_predict": 1}, receive)
        except Exception:
            return False
        return bool(messages) and not any("error" in message for message in messages)


def _threads(weights_bytes: int) -> int:
    """Threads for one decode step: one for each core, but at most one for each 32 MiB of weights.

    llama.cpp's threads meet at a barrier after every operation. With small matrices that costs more than it gains, and
    on a busy machine each barrier can cost a time slice (measured: 3 instead of 500 tokens/s).
    """
    return max(1, min(len(os.sched_getaffinity(0)), weights_bytes >> 25))

"""The `cpu` engine: llama.cpp in this process, from the `xllamacpp` wheel, on a GGUF file.

llama.cpp batches in flight; a thread per running request waits for its tokens and hands them to the event loop.

Limits. While a character is incomplete llama.cpp reports neither text nor ids, only a growing count; the ids are then
recovered from the bytes that follow (`_recover`), so text and count are exact, an id may be a twin with equal bytes. An
answer that ends inside a character gets bytes that decode to one U+FFFD, as the lost ones would.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from nemotron_triton.bundle import Bundle
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.engine.interface import EngineStatistics, FinishReason, Sampling, TokenChunk
from nemotron_triton.errors import EngineError

# A character has at most 4 bytes: that many tokens past the limit are enough to see what the last ones were.
_CHARACTER_TOKENS = 4
_RANDOM_SEED = 0xFFFFFFFF  # what llama.cpp takes for "draw one"
_CUT_CHARACTER = "\N{SLIGHTLY SMILING FACE}".encode()


@dataclass
class _Running:
    """One request between its thread and the event loop."""

    loop: asyncio.AbstractEventLoop
    chunks: asyncio.Queue[TokenChunk | EngineError] = field(default_factory=asyncio.Queue)
    cancelled: bool = False

    def put(self, item: TokenChunk | EngineError) -> None:
        """Hand *item* over from the engine's thread."""
        # The loop closes first only when the server shuts down; then nobody waits for the item.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.chunks.put_nowait, item)

    async def next_chunk(self) -> TokenChunk:
        """Everything that has come, at least one piece: what waits together is sent together."""
        ids: tuple[int, ...] = ()
        item = await self.chunks.get()
        while True:
            if isinstance(item, EngineError):
                raise item
            ids += item.ids
            if item.finish_reason or self.chunks.empty():
                return TokenChunk(ids, item.finish_reason)
            item = self.chunks.get_nowait()


class CpuEngine:
    """llama.cpp on one bundle of kind `cpu`."""

    def __init__(self, bundle: Bundle, codec: TokenCodec) -> None:
        """Load the model; `EngineError` when llama.cpp is not installed or refuses the file."""
        try:
            import xllamacpp
        except ModuleNotFoundError as error:
            raise EngineError(
                f"the cpu engine needs xllamacpp: pip install 'nemotron-triton[cpu]' ({error})"
            ) from error
        except ImportError as error:
            raise EngineError(f"llama.cpp cannot be loaded: {error}; apt-get install libgomp1") from error
        manifest = bundle.manifest
        self._max_seq_len = manifest.max_seq_len
        self._codec = codec
        self._end_ids = frozenset(manifest.end_ids)
        self._running: dict[str, _Running] = {}
        self._lock = threading.Lock()
        self._active_requests = 0
        self._generated_tokens = 0
        self._cancelled_requests = 0
        # llama.cpp always listens somewhere; a socket in a private folder is reachable by nobody else. It is named
        # through a descriptor, because a socket's path may have 107 bytes and a temporary folder's may have more.
        self._folder = tempfile.TemporaryDirectory(prefix="nemotron-cpu-")
        descriptor = os.open(self._folder.name, os.O_PATH)
        params = xllamacpp.CommonParams()
        params.model.path = str(bundle.engine_path)
        params.hostnames = [f"/proc/self/fd/{descriptor}/llama.sock"]
        params.n_threads_http = 1
        params.ui = False
        params.n_parallel = manifest.max_batch_size
        params.n_ctx = manifest.max_batch_size * manifest.max_seq_len
        params.n_batch = params.n_ubatch = min(512, manifest.max_seq_len)
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = _threads(manifest.memory.weights_bytes)
        params.cache_ram_mib = 0
        params.verbosity = -1
        try:
            self._server: Any = xllamacpp.Server(params)
        except Exception as error:  # the binding raises RuntimeError, ValueError and its own, by llama.cpp's whim
            self._folder.cleanup()
            raise EngineError(f"llama.cpp cannot load {bundle.engine_path}: {error}") from error
        finally:
            os.close(descriptor)
        self._threads = ThreadPoolExecutor(manifest.max_batch_size, thread_name_prefix="cpu-engine")

    @property
    def max_seq_len(self) -> int:
        """Prompt and answer of one request together, tokens."""
        return self._max_seq_len

    async def generate(
        self, ids: Sequence[int], sampling: Sampling, request_id: str
    ) -> AsyncGenerator[TokenChunk, None]:
        """See `Engine.generate`."""
        running = self._running[request_id] = _Running(asyncio.get_running_loop())
        work = running.loop.run_in_executor(self._threads, self._work, running, list(ids), sampling)
        try:
            while True:
                chunk = await running.next_chunk()
                yield chunk
                if chunk.finish_reason:
                    return
        finally:
            # Also when the reader goes away in the middle: the thread then stops at its next token.
            running.cancelled = True
            work.cancel()
            self._running.pop(request_id, None)

    def cancel(self, request_id: str) -> None:
        """See `Engine.cancel`."""
        running = self._running.get(request_id)
        if running and not running.cancelled:
            running.cancelled = True
            running.put(TokenChunk((), "cancelled"))
            self._cancelled_requests += 1

    def statistics(self) -> EngineStatistics:
        """See `Engine.statistics`."""
        return EngineStatistics(
            active_requests=self._active_requests,
            waiting_requests=max(0, len(self._running) - self._active_requests),
            generated_tokens=self._generated_tokens,
            cancelled_requests=self._cancelled_requests,
        )

    def close(self) -> None:
        """See `Engine.close`."""
        for running in self._running.values():
            running.cancelled = True
        self._threads.shutdown(cancel_futures=True)
        self._server = None
        self._folder.cleanup()

    def _work(self, running: _Running, ids: list[int], sampling: Sampling) -> None:
        """Run one request to its end, in a thread of its own."""
        if running.cancelled:
            return
        end_ids = frozenset() if sampling.ignore_end else self._end_ids
        answer = _Answer(self._codec, end_ids, sampling.max_tokens, running.put)

        def receive(message: dict[str, Any]) -> bool:
            """Called by llama.cpp for every token; True stops the generation."""
            before = answer.tokens
            stop = answer.receive(message) or running.cancelled
            with self._lock:
                self._generated_tokens += answer.tokens - before
            return stop

        with self._lock:
            self._active_requests += 1
        try:
            self._server.handle_completions(_request(ids, sampling), receive)
        except Exception as error:  # whatever the binding raises, the request must end
            running.put(EngineError(f"llama.cpp failed: {error}"))
        else:
            if not answer.ended and not running.cancelled:
                running.put(EngineError("llama.cpp ended an answer without saying why"))
        finally:
            with self._lock:
                self._active_requests -= 1


def _threads(weights_bytes: int) -> int:
    """Threads for one decode step: every core, but one for each 32 MiB of weights at most.

    llama.cpp's threads meet at a barrier after every operation. On small matrices that costs more than it gains, and
    on a busy machine each meeting can cost a time slice (measured: 3 instead of 500 tokens/s).
    """
    return max(1, min(len(os.sched_getaffinity(0)), weights_bytes >> 25))


def _request(ids: list[int], sampling: Sampling) -> dict[str, Any]:
    """What llama.cpp's completion handler is asked."""
    asked: dict[str, Any] = {
        "prompt": ids,
        "stream": True,
        "return_tokens": True,
        "verbose": True,
        "n_predict": sampling.max_tokens + _CHARACTER_TOKENS,
        "samplers": ["penalties", "temperature", "top_k", "top_p"],
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": 0.0,
        "repeat_penalty": sampling.repetition_penalty,
        "repeat_last_n": len(ids) + sampling.max_tokens,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "ignore_eos": sampling.ignore_end,
    }
    if sampling.seed is not None:
        asked["seed"] = sampling.seed % _RANDOM_SEED
    if sampling.grammar is not None:
        asked["grammar"] = sampling.grammar
    return asked


class _Answer:
    """Turns llama.cpp's messages about one answer into chunks with every token accounted for."""

    def __init__(
        self,
        codec: TokenCodec,
        end_ids: frozenset[int],
        max_tokens: int,
        put: Callable[[TokenChunk | EngineError], None],
    ) -> None:
        self._codec = codec
        self._end_ids = end_ids
        self._left = max_tokens
        self._put = put
        self.tokens = 0
        self.ended = False

    def receive(self, message: dict[str, Any]) -> bool:
        """Take one message; True when no more is wanted."""
        if error := message.get("error"):
            self.ended = True
            self._put(EngineError(f"llama.cpp refused the request: {error.get('message', error)}"))
            return True
        details = message["__verbose"]
        withheld = details["tokens_predicted"] - self.tokens - len(details["tokens"])
        self.tokens = details["tokens_predicted"]
        if not details["stop"]:
            ids = self._recover(details["content"].encode(), withheld, tuple(details["tokens"]))
            # llama.cpp knows some end tokens by their names; the checkpoint decides.
            for place, token_id in enumerate(ids):
                if token_id in self._end_ids:
                    self._send(ids[:place], "stop")
                    return True
            return self._send(ids, None)
        by_length = details["stop_type"] == "limit"
        # The end token is counted as predicted; it adds no text.
        cut = max(0, withheld - (not by_length))
        self._send(self._cut_character(cut), "length" if by_length else "stop")
        return True

    def _send(self, ids: tuple[int, ...], finish_reason: FinishReason | None) -> bool:
        ids = ids[: self._left]
        self._left -= len(ids)
        if not self._left and finish_reason != "stop":
            finish_reason = "length"
        if ids or finish_reason:
            self._put(TokenChunk(ids, finish_reason))
        self.ended = finish_reason is not None
        return self.ended

    def _recover(self, content: bytes, withheld: int, seen: tuple[int, ...]) -> tuple[int, ...]:
        """All ids behind *content*, whose last ones are *seen*: those *withheld* are found by their bytes."""
        if not withheld:
            return seen
        tail = b"".join(map(self._codec.bytes_of, seen))
        return _spell(self._codec, content.removesuffix(tail), withheld) + seen

    def _cut_character(self, count: int) -> tuple[int, ...]:
        return _spell(self._codec, _CUT_CHARACTER[: min(count, 3)], min(count, 3))


def _spell(codec: TokenCodec, text: bytes, count: int) -> tuple[int, ...]:
    """*count* token ids that spell *text*, longest tokens first; one per byte where that is impossible."""
    if count <= 0 or not text:
        return ()
    for size in range(len(text) - count + 1, 0, -1):
        if (token_id := codec.id_of(text[:size])) is not None:
            rest = _spell(codec, text[size:], count - 1)
            if len(rest) == count - 1 and (count > 1 or size == len(text)):
                return (token_id, *rest)
    return tuple(token_id for byte in text if (token_id := codec.id_of(bytes([byte]))) is not None)

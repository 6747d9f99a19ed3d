"""The `edge` engine: TensorRT Edge-LLM 0.11.0's native runtime, in this process, on Jetson Thor. Not run on hardware.

Its `RequestEngine` batches in flight; a thread for each running request waits for its tokens. Names and types are those
of the binding in the wheel, its behaviour is taken from `experimental/server/runtime/engine.py` there.

Limits. It takes text and encodes it: a prompt that it would encode differently, because a message spells a control
token, is refused. Requests with different sampling parameters may wait for each other. Its wheel requires numpy 2,
Triton's Python stub numpy 1; the runtime uses neither, hence `--no-deps`.
"""

from __future__ import annotations

import importlib
import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nemotron_triton.bundle import Bundle, Manifest
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.engine.edge_sampling import CANNOT, generation_request
from nemotron_triton.engine.interface import Engine, EngineStatistics, Sampling
from nemotron_triton.engine.request_threads import CLOSED, RequestThreads
from nemotron_triton.engine.stream import FinishReason, TokenLogprob, TokenStream
from nemotron_triton.errors import EngineError, RequestError, first_line
from nemotron_triton.findings import Finding, rebuild, same_sm, same_version
from nemotron_triton.native_path import native_path
from nemotron_triton.runtime import Runtime

_STOPPED = "TensorRT Edge-LLM's scheduler has stopped"
# How long it may take until a cancellation is noticed.
_POLL_MS = 20
_FINISH_REASONS: dict[str, FinishReason] = {"END_ID": "stop", "STOP_WORDS": "stop", "LENGTH": "length"}


class EdgeEngine(Engine):
    """TensorRT Edge-LLM on one bundle of kind `edge`."""

    def __init__(self, bundle: Bundle, codec: TokenCodec) -> None:
        super().__init__(bundle, codec)
        manifest = self.manifest
        version = manifest.tool_versions.get("tensorrt-edgellm", "0.11.0")
        engine, checkpoint = bundle.folder(manifest.engine_file), bundle.folder("checkpoint")
        try:
            self._runtime: Any = importlib.import_module("tensorrt_edgellm.runtime").load()
        except ModuleNotFoundError as error:
            raise EngineError(
                f"the edge engine needs TensorRT Edge-LLM ({error})",
                f"pip install --no-deps tensorrt-edgellm=={version}",
            ) from error
        except Exception as error:  # its own errors for a machine or a TensorRT that it does not support
            raise EngineError(f"TensorRT Edge-LLM cannot be loaded: {first_line(error)}") from error
        try:
            self._engine: Any = self._runtime.RequestEngine(
                engine_dir=native_path(engine.absolute()),
                checkpoint_dir=native_path(checkpoint.absolute()),
                context_cache_config=self._runtime.ContextCacheConfig(),
                max_batch_size=manifest.max_batch_size,
            )
        except Exception as error:  # C++ exceptions, mostly as RuntimeError
            raise EngineError(f"TensorRT Edge-LLM cannot load {engine}: {first_line(error)}") from error
        self._lock = threading.Lock()
        self._generated_tokens = 0
        # Cancelled requests that the runtime has not ended yet.
        self._abandoned: list[Any] = []
        self._threads = RequestThreads(manifest.max_batch_size, "TensorRT Edge-LLM")

    def generate(self, ids: Sequence[int], sampling: Sampling, stream: TokenStream) -> None:
        self._threads.begin(lambda: self._run(list(ids), sampling, stream), stream)

    def statistics(self) -> EngineStatistics:
        with self._lock:
            self._abandoned = [handle for handle in self._abandoned if not handle.ready()]
            return EngineStatistics(
                active_requests=self._threads.active + len(self._abandoned),
                waiting_requests=self._threads.waiting,
                generated_tokens=self._generated_tokens,
                problem=CLOSED if self._threads.closed else None if self._engine.running else _STOPPED,
            )

    def close(self) -> None:
        self._threads.refuse()
        self._engine.shutdown(self._runtime.ShutdownMode.CANCEL)
        self._threads.close()

    @classmethod
    def unsupported(cls, _llm_args: Mapping[str, Any]) -> Mapping[str, str]:
        return CANNOT

    @classmethod
    def machine_findings(cls, manifest: Manifest, runtime: Runtime) -> Iterator[Finding]:
        yield same_sm(manifest, runtime)
        built = manifest.tool_versions.get("tensorrt-edgellm")
        again = rebuild(manifest, keep=True)
        install = f"pip install --no-deps tensorrt-edgellm=={built}, or build it again here: {again}"
        remedy = install if built else f"build it again: {again}"
        yield same_version("edge_llm", "TensorRT Edge-LLM", built, runtime.edge_llm, remedy=remedy)

    def _run(self, ids: list[int], sampling: Sampling, stream: TokenStream) -> None:
        channel = self._runtime.StreamChannel.create()
        prompt = b"".join(map(self.codec.bytes_of, ids)).decode(errors="replace")
        request = generation_request(self._runtime, prompt, sampling, channel)
        # The runtime reads text: what a model wrote may take it fewer tokens than the model.
        counts = self._engine.count_prompt_tokens(request)
        if counts != [len(ids)] and counts != [len(self.codec.respelled(ids))]:
            raise RequestError(
                f"TensorRT Edge-LLM reads this prompt of {len(ids)} tokens as {counts[0]}: it takes the spelling of a "
                "control token in a message for the token, which a message must not contain"
            )
        handle = self._engine.submit(request)
        for chunk in _chunks(channel, handle, stream):
            if self._take(chunk, sampling, stream):
                if not chunk.finished:
                    self._abandon(handle)
                return
        if stream.cancelled:
            self._abandon(handle)
            return
        handle.get()  # raises the request's error
        raise EngineError("TensorRT Edge-LLM ended an answer without saying why")

    def _abandon(self, handle: Any) -> None:
        """Cancel a request without waiting for its end; until then it counts as active."""
        handle.cancel()
        with self._lock:
            self._abandoned.append(handle)

    def _take(self, chunk: Any, sampling: Sampling, stream: TokenStream) -> bool:
        """Put the tokens of *chunk* into *stream*; True when they are the last."""
        # The runtime knows the model's end tokens; those of the request, and any it lets through, end the answer here.
        ends = {*sampling.stop_ids, *self.manifest.end_ids}
        new = chunk.token_ids
        ended = next((place for place, token_id in enumerate(new) if token_id in ends), None)
        ids = new[:ended]
        with self._lock:
            self._generated_tokens += len(ids)
        reason: FinishReason | None = "stop"
        if ended is None:
            reason = _FINISH_REASONS.get(chunk.reason.name) if chunk.finished else None
        stop_token_id = None if ended is None else new[ended]
        stream.put(ids, reason, _logprobs(ids, chunk.logprobs, sampling.logprobs), stop_token_id)
        return reason is not None


def _chunks(channel: Any, handle: Any, stream: TokenStream) -> Iterator[Any]:
    while not stream.cancelled:
        chunk = channel.wait_pop(timeout_ms=_POLL_MS)
        if chunk is None and (channel.is_finished() or channel.is_cancelled() or handle.ready()):
            # The last may have arrived between the two checks.
            chunk = channel.try_pop()
            if chunk is None:
                return
        if chunk is not None:
            yield chunk
            if chunk.finished:
                return


def _logprobs(ids: Sequence[int], steps: Sequence[Any], alternatives: int | None) -> tuple[TokenLogprob, ...]:
    """One entry for each of *ids*; *steps* has the likeliest tokens of each."""
    if alternatives is None:
        return ()
    rows = [[(candidate.token_id, candidate.logprob) for candidate in step] for step in steps[: len(ids)]]
    pairs: Iterator[tuple[Any, Any]] = itertools.zip_longest(ids, rows, fillvalue=())
    # A sampled token may not be among the likeliest.
    return tuple(TokenLogprob(dict(row).get(token_id), tuple(row[:alternatives])) for token_id, row in pairs)

"""The `nemotron` Triton model: requests in, answers out, all on one event loop in a thread of its own.

`execute` only hands requests over. Triton's `pb_utils` module and the engine's maker are parameters, so that nothing
here imports either. What watches over the requests from outside is `watcher`.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import contextlib
import functools
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from nemotron_triton.bundle import Bundle, bundle_beside
from nemotron_triton.chat.render import Prompt
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.engine.interface import Engine, EngineStatistics, Sampling
from nemotron_triton.engine.start import start_engine
from nemotron_triton.engine.stream import TokenStream
from nemotron_triton.errors import DeadlineError, EngineError, OverloadedError, ServingError
from nemotron_triton.memory import check_memory
from nemotron_triton.serving.answering import Answering, Prepared
from nemotron_triton.serving.call import Call
from nemotron_triton.serving.delivery import Delivery
from nemotron_triton.serving.observers import Observers
from nemotron_triton.serving.record import RequestRecord
from nemotron_triton.serving.request import read_request
from nemotron_triton.serving.sampling_request import refuse_unsupported, sampling_of_choice
from nemotron_triton.serving.settings import Settings
from nemotron_triton.serving.stub import prepare_stub
from nemotron_triton.serving.watcher import Watcher

StartEngine = Callable[[Bundle, TokenCodec], Engine]
T = TypeVar("T")
# Streams share this many responses a second while their interval lasts: a third of what one Python process can send.
_RESPONSES_PER_S = 3000
# Reading a prompt of up to this many bytes takes about a millisecond; more must not hold up the streams of others.
_SHORT_BYTES = 4096
_WARM_UP_TOKENS = 4
# What an engine takes to let go of everything; one that hangs in its runtime never does.
_CLOSE_S = 5.0
# What the texts of all requests together may take, which a limit on each does not bound.
_HELD_BYTES = 256 << 20
_log = logging.getLogger(__name__)


class Service:
    """One loaded bundle behind Triton's three calls: initialize, execute, finalize."""

    @classmethod
    def start(cls, args: dict[str, str], pb_utils: Any, start_engine: StartEngine = start_engine) -> Service:
        """What `initialize` does; failures become Triton's own exception with our one line in it."""
        prepare_stub(pb_utils)
        try:
            return cls(bundle_beside(args), Settings.read(args["model_config"]), pb_utils, start_engine)
        except ServingError as error:
            raise pb_utils.TritonModelException(str(error)) from error

    def __init__(
        self,
        bundle: Bundle,
        settings: Settings,
        pb_utils: Any,
        start_engine: StartEngine,
        watch: Callable[[Service, Observers, Settings], Watcher] = Watcher,
        end_process: Callable[[int], object] = os._exit,
    ) -> None:
        """Verify and load *bundle*, start the event loop, and generate once to be warm."""
        bundle.verify()
        self._settings = settings
        self._profile = bundle.profile
        self._codec = TokenCodec(bundle.tokenizer_path)
        check_memory(bundle.manifest)
        self._engine = start_engine(bundle, self._codec)
        self._answering = Answering(bundle, self._codec, self._engine)
        self._pb = pb_utils
        self._calls: dict[int, Call] = {}
        self._numbers = itertools.count(1)
        self._slots = asyncio.Semaphore(self._engine.max_batch_size)
        self._end_process = end_process
        # What is being generated, and how many tokens its prompt has.
        self._streams: dict[TokenStream, int] = {}
        memory = bundle.manifest.memory
        # A model of Mamba layers alone would have no KV cache.
        self._kv_cache_tokens = max(1, memory.kv_cache_bytes // max(1, memory.kv_bytes_per_token))
        self._ended: collections.deque[RequestRecord] = collections.deque()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="nemotron-loop", daemon=True)
        self._thread.start()
        try:
            self._warm_up()
            self._watcher = watch(self, Observers.start(pb_utils, settings, bundle.profile.name), settings)
        except BaseException:
            # The memory is wanted: a server that reloads goes on with its old engine.
            self._stop()
            raise

    def submit(self, request: Any) -> None:
        """Take over one Triton request; returns at once."""
        number, call = next(self._numbers), Call(request.get_response_sender(), self._pb)
        self._calls[number] = call
        try:
            call.identify(request)
            self._admit()
            values = call.read(request)
            self._admit_bytes()
            call.record.admitted = True
        except Exception as error:
            # Raised out of `execute` it would only be logged, and the client would wait for ever.
            self._end(number, call, error)
        else:
            self._loop.call_soon_threadsafe(self._begin, number, call, values)

    def close(self) -> None:
        """What `finalize` does; Triton calls it when no request is left."""
        self._watcher.close()
        if not self._stop():
            # The memory is wanted, and only the end of this process gives it back.
            self._end_process(1)

    def _stop(self) -> bool:
        """End everything; False where the engine hangs and does not let go of its memory."""

        async def end_all() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        with contextlib.suppress(concurrent.futures.TimeoutError):
            asyncio.run_coroutine_threadsafe(end_all(), self._loop).result(timeout=5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)
        # In a thread that can be left behind.
        closing = threading.Thread(target=self._engine.close, name="nemotron-close", daemon=True)
        closing.start()
        closing.join(_CLOSE_S)
        if not self._thread.is_alive():
            self._loop.close()
        if closing.is_alive():
            _log.critical("the engine hangs: it was not closed within %g s", _CLOSE_S)
        return not closing.is_alive()

    @property
    def is_ready(self) -> bool:
        """Whether requests are taken."""
        return not self._watcher.problem and not self._watcher.draining

    # What the watcher sees and does.

    def calls(self) -> list[Call]:
        """The requests that are not over."""
        return list(self._calls.values())

    def ended(self) -> list[RequestRecord]:
        """The records of the requests that ended since this was last asked."""
        return [self._ended.popleft() for _ in range(len(self._ended))]

    @property
    def generating(self) -> int:
        """How many answers the engine was asked for and has not ended."""
        return len(self._streams)

    @property
    def waiting(self) -> int:
        """How many requests wait until the engine is asked, those whose prompts are being made included."""
        return sum(call.record.started_s is None for call in self.calls())

    @property
    def kv_cache_used_ratio(self) -> float:
        """What the answers in progress take of the KV cache, their prompts included; blocks and reuse not counted."""
        used = sum(prompt_tokens + stream.tokens for stream, prompt_tokens in list(self._streams.items()))
        return min(1.0, used / self._kv_cache_tokens)

    def statistics(self) -> EngineStatistics:
        """The engine's."""
        return self._engine.statistics()

    def stop(self, call: Call, why: ServingError) -> None:
        """End *call* early, from any thread."""
        self._loop.call_soon_threadsafe(call.stop, why)

    def _admit(self) -> None:
        """Refuse at once what could only wait in vain, before any work is done for it."""
        if problem := self._watcher.problem:
            raise EngineError(problem)
        if self._watcher.draining:
            raise OverloadedError("the server is stopping; ask another one, or retry later")
        room = self._engine.max_batch_size + self._settings.max_queue_requests
        if len(self._calls) > room:
            raise OverloadedError(
                f"{self._engine.max_batch_size} requests run and {self._settings.max_queue_requests} wait, which is "
                "all there is room for; retry later"
            )

    def _admit_bytes(self) -> None:
        held = sum(each.size_bytes for each in self.calls())
        if held > _HELD_BYTES:
            raise OverloadedError(
                f"the requests here hold {held >> 20} MiB, and there is room for {_HELD_BYTES >> 20}; retry later"
            )

    def _begin(self, number: int, call: Call, values: Mapping[str, Any]) -> None:
        call.task = self._loop.create_task(self._answer(call, values))
        limit_ms = self._settings.max_request_ms
        asked_ms = call.timeout_ms if 0 < call.timeout_ms < limit_ms else limit_ms
        whose = "the request's" if asked_ms < limit_ms else "the server's"
        late = DeadlineError(f"the answer was not complete after {asked_ms:g} ms, {whose} time limit")
        timers = (
            self._loop.call_later(asked_ms / 1000, call.stop, late),
            self._loop.call_later(self._settings.max_queue_ms / 1000, self._refuse_waiting, call),
        )
        # Not in the task itself: one that is cancelled before its first step never runs.
        call.task.add_done_callback(functools.partial(self._answered, number, call, timers))

    def _refuse_waiting(self, call: Call) -> None:
        # Of several answers to one request, some may wait while others are on their way.
        if call.record.started_s is None:
            limit_ms = self._settings.max_queue_ms
            call.stop(OverloadedError(f"the request waited {limit_ms} ms and its turn has not come; retry later"))

    def _answered(
        self, number: int, call: Call, timers: tuple[asyncio.TimerHandle, ...], task: asyncio.Task[None]
    ) -> None:
        for timer in timers:
            timer.cancel()
        self._end(number, call, call.why if task.cancelled() else task.exception())

    def _end(self, number: int, call: Call, failure: BaseException | None) -> None:
        """The request is over: its FINAL was sent, or is sent now with what failed."""
        try:
            if isinstance(failure, EngineError) or not isinstance(failure, ServingError | None):
                _log.error("request %r failed", call.record.request_id, exc_info=failure)
            call.end(failure if isinstance(failure, ServingError) else None)
        except Exception as error:
            # Its client would wait for ever; only the end of this process tells it.
            self._watcher.report(f"a last response could not be sent: {error}")
        call.record.ended_s = time.monotonic()
        self._calls.pop(number, None)
        self._ended.append(call.record)

    async def _answer(self, call: Call, values: Mapping[str, Any]) -> None:
        prepared = await self._apart(call.size_bytes, functools.partial(self._prepare, values))
        # The texts are in what was prepared, and are not to be held twice.
        del values
        request, record = prepared.request, call.record
        record.operation = "chat" if request.conversation else "text_completion"
        if self._settings.log_text:
            record.prompt_text, record.answer_text = prepared.prompt, ""
        record.thinking, record.stream, record.choices = request.thinking, request.stream, request.choices
        record.prompt_tokens, record.max_tokens = len(prepared.ids), prepared.sampling.max_tokens
        record.temperature, record.top_p = prepared.sampling.temperature, prepared.sampling.top_p
        turns = [self._choice(call, prepared, index) for index in range(request.choices)]
        if len(turns) == 1:
            await turns[0]
            return
        tasks = [self._loop.create_task(turn) for turn in turns]
        try:
            await asyncio.gather(*tasks)
        finally:
            # Nothing may be sent after the error that ends a request.
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def _prepare(self, values: Mapping[str, Any]) -> Prepared:
        prepared = self._answering.prepare(read_request(values, self._profile, self._settings, self._codec))
        refuse_unsupported(prepared.sampling, self._engine.cannot)
        return prepared

    async def _choice(self, call: Call, prepared: Prepared, index: int) -> None:
        """Generate and send one of the answers to a request."""
        delivery = Delivery(call, prepared, index, self._codec)
        sampling = sampling_of_choice(prepared.sampling, index)
        async with self._slots:
            call.record.started_s = call.record.started_s or time.monotonic()
            stream = TokenStream(self._pause_s if self._settings.stream_interval_ms else None)
            self._streams[stream] = len(prepared.ids)
            try:
                async with contextlib.aclosing(self._answering.answer(prepared, sampling, stream)) as steps:
                    async for step in steps:
                        delivery.take(step)
            finally:
                del self._streams[stream]
                # Not of the responses: what begins a tool call gives none.
                call.record.add_tokens(stream.tokens, stream.first_token_s, stream.last_token_s)

    def _pause_s(self) -> float:
        """How long a stream gathers tokens: not at all when it is alone, longer the more streams share the process."""
        return min(self._settings.stream_interval_ms / 1000, (len(self._streams) - 1) / _RESPONSES_PER_S)

    async def _apart(self, size: int, work: Callable[[], T]) -> T:
        """*work* whose time grows with *size*, the bytes it reads, off the event loop where it is long."""
        return work() if size <= _SHORT_BYTES else await asyncio.to_thread(work)

    def _warm_up(self) -> None:
        async def generate() -> None:
            ids = self._codec.encode(Prompt("Hello", "\ufdd0", ()))
            stream = TokenStream()
            self._engine.generate(ids, Sampling(max_tokens=_WARM_UP_TOKENS, temperature=0.0, top_p=1.0), stream)
            async for _ in stream:
                pass

        limit_s = self._settings.max_engine_silence_ms / 1000
        try:
            asyncio.run_coroutine_threadsafe(generate(), self._loop).result(timeout=limit_s)
        except concurrent.futures.TimeoutError as error:
            raise EngineError(f"the engine generated nothing within {limit_s:g} s of its start") from error

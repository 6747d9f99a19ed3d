"""The `nemotron` Triton model: requests in, answers out, all on one event loop in a thread of its own.

`execute` only hands requests over. Triton's `pb_utils` module is a parameter, so that nothing here imports it. The
requests are watched over from outside of the loop, by `watcher`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from nemotron_client import wire
from nemotron_triton.bundle import Bundle, bundle_beside
from nemotron_triton.chat.render import Prompt
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.engine.interface import Engine, Sampling
from nemotron_triton.engine.start import start_engine
from nemotron_triton.engine.stream import TokenStream
from nemotron_triton.errors import EngineError, ServingError
from nemotron_triton.run_folder import verify_once
from nemotron_triton.serving.admission import Admission
from nemotron_triton.serving.answering import Answering, Prepared
from nemotron_triton.serving.authentication import Authentication
from nemotron_triton.serving.call import Call
from nemotron_triton.serving.delivery import Delivery
from nemotron_triton.serving.description import description
from nemotron_triton.serving.guard import Guard
from nemotron_triton.serving.loaded import Loaded
from nemotron_triton.serving.loop_thread import LoopThread
from nemotron_triton.serving.observers import Observers
from nemotron_triton.serving.request import may_guide_calls, read_request
from nemotron_triton.serving.requests import Requests
from nemotron_triton.serving.sampling_request import refuse_unsupported, sampling_of_choice
from nemotron_triton.serving.settings import Settings
from nemotron_triton.serving.stub import load_error, prepare_stub
from nemotron_triton.serving.values import Values
from nemotron_triton.serving.watcher import StartWatcher, Watcher

StartEngine = Callable[[Bundle, TokenCodec], Engine]
# Streams share this many responses a second while their interval lasts: a third of what one Python process can send.
_RESPONSES_PER_S = 3000
# What even a stream that is alone gathers for: no reader sees it, and every response saved is CPU for the next tokens.
_LEAST_PAUSE_S = 0.004
# Reading a prompt of up to this many bytes takes about a millisecond; more must not hold up the streams of others.
_SHORT_BYTES = 4096
_WARM_UP_TOKENS = 4
# The longest time an engine takes to free everything; one that hangs in its runtime never does.
_CLOSE_S = 5.0
_log = logging.getLogger(__name__)


class Service:
    """One loaded bundle behind Triton's three calls: initialize, execute, finalize.

    Once made, it is verified, loaded and warm: it has generated once. *start_engine* and *watch* make what is outside
    of it. `requests` is what runs in it.
    """

    @classmethod
    def start(cls, args: dict[str, str], pb_utils: Any, *, start_engine: StartEngine = start_engine) -> Service:
        """What `initialize` does; an error becomes Triton's own exception with our one line in it."""
        try:
            lock = prepare_stub(pb_utils)
            # Before the engine is loaded, which takes long: meanwhile `nemotron serve` may die.
            guard = Guard(lock) if lock else None
            try:
                bundle, settings = bundle_beside(args), Settings.read(args["model_config"])
                return cls(bundle, settings, pb_utils, start_engine=start_engine, guard=guard)
            except BaseException:
                # A server that reloads goes on without this process.
                if guard:
                    guard.close()
                raise
        except ServingError as error:
            raise load_error(pb_utils, error) from error

    def __init__(
        self,
        bundle: Bundle,
        settings: Settings,
        pb_utils: Any,
        *,
        start_engine: StartEngine,
        watch: StartWatcher = Watcher,
        guard: Guard | None = None,
    ) -> None:
        self._authentication = Authentication.named_in()
        verify_once(bundle)
        self._guard = guard
        self._closing, self._closed = threading.Lock(), False
        self._settings = settings
        self._profile = bundle.profile
        self._codec = TokenCodec(bundle.tokenizer_path)
        self._engine = start_engine(bundle, self._codec)
        self._description = description(bundle, context_tokens=self._engine.max_seq_len)
        self._answering = Answering(bundle, self._codec, self._engine)
        self._pb = pb_utils
        slots = self._engine.max_batch_size
        self.requests = Requests(
            bundle.manifest.memory,
            slots=slots,
            queue=settings.max_queue_requests,
            per_caller=settings.max_requests_per_caller,
        )
        self._admission = Admission(slots)
        self._preparing = asyncio.Lock()
        self._thread = LoopThread("nemotron-loop")
        self._loop = self._thread.loop
        try:
            self._warm_up()
            loaded = Loaded.of(bundle, self._engine, settings)
            observers = Observers(pb_utils, settings, loaded, self._authentication.names)
            self._watcher = watch(self.requests, self._engine, observers, settings, self.stop, self.close)
        except BaseException:
            # Free the memory: a server that reloads goes on with its old engine.
            self._stop()
            raise
        if guard:
            guard.serving()

    def submit(self, request: Any) -> None:
        """Take over one Triton request; returns at once."""
        call = Call(request.get_response_sender(), self._pb)
        self.requests.begin(call)
        try:
            call.identify(request, self._authentication)
            if call.asks_what_is_served(request):
                # Also where there is no room, or no engine any more.
                call.send({wire.DESCRIPTION: self._description}, final=True)
                self.requests.forget(call)
                return
            self.requests.check_room(call.record.caller)
            values = call.read(request)
            self.requests.check_bytes()
            call.record.admitted = True
        except Exception as error:
            # Raised out of `execute` it would only be logged, and the client would wait for ever.
            self._end(call, error)
        else:
            self._loop.call_soon_threadsafe(self._begin, call, values)

    def stop(self, call: Call, why: ServingError) -> None:
        """End *call* early, from any thread."""
        self._loop.call_soon_threadsafe(call.stop, why)

    def close(self) -> None:
        """End the engine, when no request is left: on Triton's `finalize`, or earlier where the server drained."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            if self._guard:
                self._guard.close()
            self._watcher.close()
            stopped = self._stop()
            self._watcher.leave()
            if not stopped:
                # Only the end of this process frees the memory of an engine that hangs.
                os._exit(1)

    @property
    def is_ready(self) -> bool:
        """Whether requests should come here."""
        return not (self.requests.problem or self.requests.withdrawn or self.requests.draining)

    def _stop(self) -> bool:
        """End the loop and the engine; False where the engine hangs and does not let go of its memory."""
        self._thread.stop()
        # In a thread that can be abandoned.
        closing = threading.Thread(target=self._engine.close, name="nemotron-close", daemon=True)
        closing.start()
        closing.join(_CLOSE_S)
        self._thread.close()
        if closing.is_alive():
            _log.critical("the engine hangs: it was not closed within %g s", _CLOSE_S)
        return not closing.is_alive()

    def _begin(self, call: Call, values: Values) -> None:
        task = call.run(self._answer(call, values), self._settings)
        # Not in the task itself: one that is cancelled before its first step never runs.
        task.add_done_callback(lambda task: self._end(call, call.why if task.cancelled() else task.exception()))

    def _end(self, call: Call, failure: BaseException | None) -> None:
        """The request is over: its FINAL response was sent, or is sent now with *failure*."""
        try:
            if isinstance(failure, EngineError) or not isinstance(failure, ServingError | None):
                _log.error("request %r failed", call.record.request_id, exc_info=failure)
            call.end(failure if isinstance(failure, ServingError) else None)
        except Exception as error:
            # Its client would wait for ever; only the end of this process breaks its stream.
            self._watcher.report(f"a last response could not be sent: {error}")
        call.record.ended_s = time.monotonic()
        self.requests.end(call)

    async def _answer(self, call: Call, values: Values) -> None:
        if call.size_bytes <= _SHORT_BYTES and not may_guide_calls(values):
            # One at each turn of the loop: of many that come at once, the first are answered before the last are read.
            async with self._preparing:
                prepared = self._prepare(values)
        else:
            prepared = await asyncio.to_thread(self._prepare, values)
        # Do not hold the texts twice: they are in `prepared`.
        del values
        call.record.begin(prepared, log_text=bool(self._settings.log_text))
        if prepared.request.choices == 1:
            await self._choice(call, prepared, 0)
            return
        choices = range(prepared.request.choices)
        tasks = [self._loop.create_task(self._choice(call, prepared, index)) for index in choices]
        try:
            await asyncio.gather(*tasks)
        finally:
            # Nothing may be sent after the error that ends a request.
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def _prepare(self, values: Values) -> Prepared:
        prepared = self._answering.prepare(read_request(values, self._profile, self._settings, self._codec))
        refuse_unsupported(prepared.sampling, self._engine.cannot)
        return prepared

    async def _choice(self, call: Call, prepared: Prepared, index: int) -> None:
        """Generate and send one of the answers to a request."""
        delivery = Delivery(call, prepared, index, self._codec)
        sampling = sampling_of_choice(prepared.sampling, index)
        async with self._admission.slot(call.record.caller, prepared.request.priority):
            call.record.started_s = call.record.started_s or time.monotonic()
            stream = TokenStream(self._pace(delivery) if self._settings.stream_interval_ms else None)
            try:
                with self.requests.answering(stream, len(prepared.ids)):
                    async with contextlib.aclosing(self._answering.answer(prepared, sampling, stream)) as steps:
                        async for step in steps:
                            delivery.take(step)
            finally:
                # Counted here and not by responses: the tokens that begin a tool call give none.
                call.record.add_tokens(stream.tokens, stream.first_token_s, stream.last_token_s)
                call.record.add_cached_tokens(stream.cached_tokens)

    def _pace(self, delivery: Delivery) -> Callable[[], float]:
        """How long a stream gathers tokens: the longer, the more streams share the process.

        Not at all before its reader has something to read: the first tokens may show nothing, as `<think>` does.
        """
        longest_s = self._settings.stream_interval_ms / 1000

        def pause_s() -> float:
            if delivery.awaited:
                return 0.0
            return min(longest_s, max(_LEAST_PAUSE_S, self.requests.generating / _RESPONSES_PER_S))

        return pause_s

    def _warm_up(self) -> None:
        async def generate() -> None:
            ids = self._codec.encode(Prompt("Hello", "\ufdd0", ()))
            stream = TokenStream()
            self._engine.generate(ids, Sampling(max_tokens=_WARM_UP_TOKENS, temperature=0.0, top_p=1.0), stream)
            async for _ in stream:
                pass

        limit_s = self._settings.max_engine_silence_ms / 1000
        try:
            self._thread.run(generate(), limit_s)
        except concurrent.futures.TimeoutError as error:
            raise EngineError(f"the engine generated nothing within {limit_s:g} s of its start") from error

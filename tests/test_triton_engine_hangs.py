"""Engines that hang in their runtimes are detected, reported, and abandoned by the requests that wait."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AbstractContextManager

import grpc
import psutil
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from conftest import ROOT
from exposition import metric
from nemotron_triton.bundle import Bundle
from nemotron_triton.engine.request_threads import RequestThreads
from nemotron_triton.engine.stream import TokenStream
from nemotron_triton.errors import EngineError, ServerError
from nemotron_triton.server import ServeOptions
from nemotron_triton.serving.settings import Settings
from patience import wait_until
from running import Running, running

# As in tests/support/hanging_model.py, which runs in Triton's Python.
HANG, HANG_AT_ONCE = 1, "NEMOTRON_TEST_HANG_AT_ONCE"


def hanging(bundle: Bundle, **limits: int) -> AbstractContextManager[Running]:
    adapters = {"nemotron": ROOT / "tests" / "support" / "hanging_model.py"}
    return running(bundle, adapters=adapters, settings=Settings(**limits), allow_reload=True)


def hang_and_leave(options: ServeOptions) -> None:
    """Send a request that hangs the engine, and do not wait for it."""
    request = service_pb2.ModelInferRequest(model_name="nemotron")
    for name, datatype, data in (
        ("text_input", "BYTES", b"\5\0\0\0Hello"),
        ("seed", "UINT64", HANG.to_bytes(8, "little")),
    ):
        request.inputs.add(name=name, datatype=datatype, shape=[1, 1])
        request.raw_input_contents.append(data)
    with grpc.insecure_channel(options.grpc_url) as channel:
        call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(iter([request]), timeout=60)
        wait_until(lambda: metric(options, "engine_waiting_requests") == 1)
        call.cancel()


@pytest.mark.server
def test_an_engine_that_hangs_before_its_first_token_is_found_out_when_its_callers_have_left(bundle: Bundle) -> None:
    with hanging(bundle, max_engine_silence_ms=3000) as served:
        hang_and_leave(served.options)

        with pytest.raises(ServerError, match="while serving"):
            served.server.wait(_soon())
    assert any("the engine did nothing for 3000 ms; the server stops" in line for line in served.log)


@pytest.mark.server
def test_an_engine_that_hangs_in_its_first_answer_is_reported(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HANG_AT_ONCE, "1")

    with (
        pytest.raises(ServerError, match="the engine generated nothing within 1 s of its start"),
        hanging(bundle, max_engine_silence_ms=1000),
    ):
        pass


@pytest.mark.server
def test_a_model_whose_engine_hangs_ends_when_it_is_replaced(bundle: Bundle) -> None:
    with hanging(bundle) as served:
        hang_and_leave(served.options)
        before = set(psutil.Process(served.server.pid).children())

        served.server.reload()

        # All three models are replaced; the one that hangs ends last.
        wait_until(lambda: not any(process.is_running() for process in before))
    assert any("the engine hangs: it was not closed within" in line for line in served.log)


def test_who_waits_for_a_thread_that_hangs_is_let_go_of() -> None:
    async def run() -> None:
        threads, free = RequestThreads(1, "The runtime"), threading.Event()
        first, second, third = TokenStream(), TokenStream(), TokenStream()
        threads.begin(lambda: _hang(free, first), first)
        threads.begin(lambda: second.put((1,), "stop"), second)
        threads.begin(lambda: third.put((1,), "stop"), third)
        assert (threads.active + threads.waiting, threads.waiting) in ((3, 2), (3, 3))

        second.cancel()
        closing = asyncio.create_task(asyncio.to_thread(threads.close))

        with pytest.raises(EngineError, match="the engine is closed"):
            await third.__anext__()
        assert not closing.done()
        free.set()
        await closing
        assert (threads.active, threads.waiting) == (0, 0)

    asyncio.run(asyncio.wait_for(run(), 60))


def _hang(free: threading.Event, stream: TokenStream) -> None:
    free.wait(30)
    stream.put((1,), "stop")


def _soon() -> threading.Event:
    """An event that is set after a minute, so that a test fails instead of hanging."""
    stop = threading.Event()
    timer = threading.Timer(60, stop.set)
    timer.daemon = True
    timer.start()
    return stop

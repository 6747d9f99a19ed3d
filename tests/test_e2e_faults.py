"""What can go wrong under a served model, each with the error that is documented, and a server that goes on."""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from conftest import ROOT, serve_options
from nemotron_client import (
    Client,
    ClientError,
    ContentDelta,
    DeadlineExceeded,
    Finish,
    RequestRejected,
    ServerUnavailable,
    StreamBroken,
)
from nemotron_triton.bundle import Bundle
from nemotron_triton.errors import ServerError
from nemotron_triton.server import RunningServer, ServeOptions, serve
from nemotron_triton.serving.settings import Settings
from test_e2e_server import metric

# The seeds of tests/faulty_model.py, which runs in Triton's Python.
ANSWER, FAIL_IN_MIDSTREAM, HANG, RAISE_AT_ONCE, DIE, ENDLESS, STUCK = range(7)
NEMOTRON = Path(sys.executable).with_name("nemotron")
TEXT = "one two three four five six seven eight nine ten"
HELLO = [{"role": "user", "content": "Hello"}]
SETTINGS = Settings(max_queue_requests=40, max_queue_ms=1500, max_engine_silence_ms=60_000)


@contextmanager
def faulty_server(bundle: Bundle, settings: Settings) -> Iterator[tuple[RunningServer, ServeOptions, list[str]]]:
    options, log = replace(serve_options(), settings=settings, drain_ms=10_000), list[str]()
    adapters = {"nemotron": ROOT / "tests" / "faulty_model.py"}
    with serve(bundle, options, log=log.append, adapters=adapters) as server:
        assert server.wait_ready(threading.Event()), log
        yield server, options, log


@pytest.fixture(scope="module")
def faulty(bundle: Bundle) -> Iterator[tuple[RunningServer, ServeOptions, list[str]]]:
    with faulty_server(bundle, SETTINGS) as served:
        yield served


@pytest.fixture
def client(faulty: tuple[RunningServer, ServeOptions, list[str]]) -> Iterator[Client]:
    with Client(faulty[1].grpc_url, timeout_s=30) as client:
        yield client
        # Whatever was done to it, the server answers the next request.
        assert (client.chat(HELLO, seed=ANSWER).content or "").strip() == TEXT


def test_an_engine_that_fails_in_midstream_breaks_that_stream_only(client: Client) -> None:
    seen: list[Any] = []

    with pytest.raises(StreamBroken, match=r"broke off the answer: the GPU has fallen off the bus"):
        seen.extend(client.stream(HELLO, seed=FAIL_IN_MIDSTREAM))
    with closing(client.stream(HELLO, seed=FAIL_IN_MIDSTREAM)) as stream:
        assert isinstance(next(stream), ContentDelta)


def test_an_error_nobody_foresaw_tells_the_client_nothing_of_it(
    client: Client, faulty: tuple[RunningServer, ServeOptions, list[str]]
) -> None:
    with pytest.raises(StreamBroken, match="internal error; the server's log has the details") as caught:
        client.chat(HELLO, seed=RAISE_AT_ONCE)

    assert "secret" not in str(caught.value)
    assert any("ZeroDivisionError" in line for line in faulty[2])


def test_a_hanging_engine_is_ended_by_the_requests_deadline(
    client: Client, faulty: tuple[RunningServer, ServeOptions, list[str]]
) -> None:
    begin = time.monotonic()

    with pytest.raises(DeadlineExceeded):
        client.chat(HELLO, seed=HANG, timeout_s=1.0)

    assert time.monotonic() - begin < 3
    _wait_for(lambda: running(faulty[1]) == 0)


def test_the_servers_own_limit_ends_a_request_that_set_none(bundle: Bundle) -> None:
    with (
        faulty_server(bundle, replace(SETTINGS, max_request_ms=700)) as (_, options, _log),
        Client(options.grpc_url, timeout_s=60) as client,
    ):
        begin = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="not complete after 700 ms, the server's time limit"):
            client.chat(HELLO, seed=ENDLESS, max_tokens=90_000)

        assert time.monotonic() - begin < 5
        assert (client.chat(HELLO, seed=ANSWER).content or "").strip() == TEXT


@pytest.mark.parametrize(
    ("seed", "settings", "reason"),
    [
        (DIE, SETTINGS, "the executor died; the server stops"),
        (HANG, replace(SETTINGS, max_engine_silence_ms=500), "the engine did nothing for 500 ms; the server stops"),
    ],
)
def test_an_engine_that_is_dead_takes_the_server_out_of_service(
    bundle: Bundle, seed: int, settings: Settings, reason: str
) -> None:
    with (
        faulty_server(bundle, settings) as (server, options, _),
        Client(options.grpc_url, timeout_s=30) as client,
    ):
        with pytest.raises(StreamBroken, match=reason):
            client.chat(HELLO, seed=seed)

        _wait_for(lambda: not client.is_ready(timeout_s=1))
        with pytest.raises(ServerError, match="while serving"):
            server.wait(threading.Event())


def test_an_engine_that_hangs_is_found_out_when_its_callers_have_given_up(bundle: Bundle) -> None:
    with (
        faulty_server(bundle, replace(SETTINGS, max_engine_silence_ms=1500)) as (server, options, log),
        Client(options.grpc_url, timeout_s=30) as client,
    ):
        with pytest.raises(DeadlineExceeded):
            client.chat(HELLO, seed=STUCK, timeout_s=0.5)

        with pytest.raises(ServerError, match="while serving"):
            server.wait(threading.Event())

    assert any("the engine did nothing for 1500 ms; the server stops" in line for line in log)


def test_a_slow_reader_gets_everything_and_holds_up_nobody(client: Client) -> None:
    slow = client.stream(HELLO, seed=ENDLESS, max_tokens=3000)
    first = next(slow)
    assert isinstance(first, ContentDelta)
    time.sleep(0.5)

    begin = time.monotonic()
    assert (client.chat(HELLO, seed=ANSWER).content or "").strip() == TEXT
    quick_s = time.monotonic() - begin

    text, finish = first.text, None
    for number, event in enumerate(slow):
        if number < 20:
            time.sleep(0.02)
        if isinstance(event, ContentDelta):
            text += event.text
        elif isinstance(event, Finish):
            finish = event
    assert finish is not None
    assert (finish.reason, finish.usage.output_tokens) == ("length", 3000)
    assert text == client.chat(HELLO, seed=ENDLESS, max_tokens=3000).content
    assert text == ((TEXT + " ") * 1000)[: len(text)]
    assert quick_s < 5


def test_clients_that_go_away_free_their_places_wherever_they_were(
    client: Client, faulty: tuple[RunningServer, ServeOptions, list[str]]
) -> None:
    """Eight are answered, the others wait; all of them leave, and their places are free within 200 ms."""
    options, left_s = faulty[1], []
    for _ in range(3):
        streams = [client.stream(HELLO, seed=ENDLESS, max_tokens=90_000) for _ in range(8)]
        for stream in streams:
            next(stream)
        with grpc.insecure_channel(options.grpc_url) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            calls = [stub.ModelStreamInfer(iter([_request(ENDLESS)]), timeout=60) for _ in range(6)]
            _wait_for(lambda: waiting_now(options) == 6)
            begin = time.monotonic()
            for call in calls:
                call.cancel()
            _wait_for(lambda: waiting_now(options) == 0)
            left_s.append(time.monotonic() - begin)
        begin = time.monotonic()
        for stream in streams:
            stream.close()
        _wait_for(lambda: running(options) == 0)
        left_s.append(time.monotonic() - begin)

    # The best of three of each, because a busy machine may hold up any one; a cancel that is missed shows in all.
    assert max(min(left_s[0::2]), min(left_s[1::2])) < 0.25, left_s


def test_who_waits_too_long_is_refused_with_the_time(client: Client) -> None:
    streams = [client.stream(HELLO, seed=ENDLESS, max_tokens=90_000) for _ in range(8)]
    for stream in streams:
        next(stream)

    with pytest.raises(ServerUnavailable, match="waited 1500 ms and its turn has not come"):
        client.chat(HELLO, seed=ANSWER)

    for stream in streams:
        stream.close()


def test_10000_requests_at_once_are_answered_or_refused_at_once(
    client: Client, faulty: tuple[RunningServer, ServeOptions, list[str]]
) -> None:
    """8 run and 40 wait; whoever else comes is told so and not left to wait."""
    outcomes: Counter[str] = Counter()

    async def ask(stub: Any) -> None:
        responses = [each async for each in stub.ModelStreamInfer(iter([_request(ANSWER)]), timeout=90)]
        text = "".join(map(_text, responses)).strip()
        outcomes["answered" if text == TEXT else responses[-1].error_message] += 1

    async def ask_all() -> None:
        async with grpc.aio.insecure_channel(client.url) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            await asyncio.gather(*[ask(stub) for _ in range(10_000)])

    asyncio.run(ask_all())

    assert sum(outcomes.values()) == 10_000
    assert outcomes.pop("answered") >= 48
    refusals = ("UNAVAILABLE: 8 requests run and 40 wait", "UNAVAILABLE: the request waited 1500 ms")
    assert all(outcome.startswith(refusals) for outcome in outcomes), outcomes
    # tritonserver's own lines, which it writes in between, tear some.
    lines = [json.loads(line) for line in faulty[2] if re.fullmatch(r'\{[^{}]*"outcome": "rejected"[^{}]*\}', line)]
    full = [line["duration_ms"] for line in lines if "8 requests run" in line["error"]]
    assert len(full) > 9000
    # Nobody waits to hear that there is no room, not even as long as one that is queued.
    assert statistics.median(full) < 100
    assert max(full) < 1500


@pytest.mark.parametrize(
    ("tensors", "complaint"),
    [
        ({"messages": b"x" * (50 << 20)}, "messages has 52428800 bytes|at most 4194304|message larger than max"),
        ({"messages": b'[{"role": "user", "content": "\xff\xfe"}]'}, "messages is not UTF-8"),
        ({"messages": json.dumps(HELLO).encode(), "tools": b"[" * 1000 + b"]" * 1000}, "tools"),
        ({"messages": json.dumps(HELLO).encode(), "tools": b"[" * 100_000}, "tools"),
    ],
    ids=["50 MB", "not UTF-8", "nested 1000 deep", "nested 100000 deep"],
)
def test_hostile_requests_are_refused_in_one_line(client: Client, tensors: dict[str, bytes], complaint: str) -> None:
    begin = time.monotonic()

    with pytest.raises(InferenceServerException, match=f"INVALID_ARGUMENT: ({complaint})"):
        _answer(client.url, tensors)

    assert time.monotonic() - begin < 5


def test_a_tensor_of_millions_of_texts_holds_up_nobody(client: Client) -> None:
    """Four million empty texts, 16 MB; Triton's own way to read them would take half a minute."""
    request = service_pb2.ModelInferRequest(model_name="nemotron")
    request.inputs.add(name="stop_words", datatype="BYTES", shape=[1, 4_000_000])
    request.raw_input_contents.append(bytes(4 * 4_000_000))
    _add(request, "messages", "BYTES", json.dumps(HELLO).encode())
    begin = time.monotonic()
    with grpc.insecure_channel(client.url, options=[("grpc.max_send_message_length", -1)]) as channel:
        call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(iter([request]), timeout=60)
        assert (client.chat(HELLO, seed=ANSWER).content or "").strip() == TEXT
        (refusal,) = call

    assert "INVALID_ARGUMENT: stop_words" in refusal.error_message
    assert time.monotonic() - begin < 20


def test_sigterm_under_load_finishes_what_runs_and_refuses_what_comes(bundle: Bundle) -> None:
    with faulty_server(bundle, SETTINGS) as (server, options, _), Client(options.grpc_url, timeout_s=60) as client:
        streams = [client.stream(HELLO, seed=ENDLESS, max_tokens=2000) for _ in range(6)]
        for stream in streams:
            next(stream)
        with ThreadPoolExecutor(7) as threads:
            ends = [threads.submit(lambda stream: list(stream)[-1], stream) for stream in streams]
            drained = threads.submit(server.drain, threading.Event())
            _wait_for(lambda: _refusal(client) is not None)
            refusal = _refusal(client)
            finishes = [end.result(60) for end in ends]
            drained.result(60)

    assert isinstance(refusal, ServerUnavailable)
    assert "the server is stopping" in str(refusal)
    assert [finish.usage.output_tokens for finish in finishes if isinstance(finish, Finish)] == [2000] * 6


def test_a_full_disk_under_the_log_does_not_stop_answers(bundle: Bundle) -> None:
    """Every write of the server's log fails: /dev/full is a disk that has no room."""
    options = serve_options()
    ports = [f"{option}={port}" for option, port in options.ports.items()]
    command = [str(NEMOTRON), "serve", str(bundle.path), *ports]
    with Path("/dev/full").open("w") as full, Client(options.grpc_url, timeout_s=30) as client:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=full, text=True)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            for _ in range(20):
                assert client.chat(HELLO, max_tokens=5).usage.output_tokens <= 5
            with pytest.raises(RequestRejected):
                client.chat(HELLO, max_tokens=0)
        finally:
            process.terminate()
            process.communicate(timeout=30)

    assert process.returncode == 0


def _request(seed: int, max_tokens: int | None = None) -> Any:
    request = service_pb2.ModelInferRequest(model_name="nemotron")
    _add(request, "messages", "BYTES", json.dumps(HELLO).encode())
    _add(request, "seed", "UINT64", np.uint64(seed).tobytes())
    _add(request, "stream", "BOOL", b"\x01")
    if seed == ENDLESS:
        _add(request, "max_tokens", "INT32", np.int32(90_000).tobytes())
    return request


def _add(request: Any, name: str, datatype: str, data: bytes) -> None:
    request.inputs.add(name=name, datatype=datatype, shape=[1, 1])
    request.raw_input_contents.append(len(data).to_bytes(4, "little") + data if datatype == "BYTES" else data)


def _text(response: Any) -> str:
    for output, data in zip(response.infer_response.outputs, response.infer_response.raw_output_contents, strict=True):
        if output.name == "text_output":
            return bytes(data[4:]).decode()
    return ""


def _answer(url: str, tensors: dict[str, bytes]) -> list[Any]:
    request = service_pb2.ModelInferRequest(model_name="nemotron")
    for name, value in tensors.items():
        _add(request, name, "BYTES", value)
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(url, options=options) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        responses = list(stub.ModelStreamInfer(iter([request]), timeout=30))
        if responses[-1].error_message:
            raise InferenceServerException(responses[-1].error_message)
        return responses


def _refusal(client: Client) -> ClientError | None:
    try:
        client.chat(HELLO, seed=ANSWER)
    except ClientError as error:
        return error
    return None


def running(options: ServeOptions) -> float:
    return metric(options, "active_requests")


def waiting_now(options: ServeOptions) -> float:
    return metric(options, "waiting_requests")


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)

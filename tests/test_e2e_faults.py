"""What can go wrong under a served model, each with the error that is documented, and a server that goes on."""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from exposition import metric
from faulty import ANSWER, DIE, ENDLESS, FAIL_IN_MIDSTREAM, HANG, RAISE_AT_ONCE, STUCK, TEXT, faulty_server
from nemotron_client import (
    Client,
    ContentDelta,
    DeadlineExceeded,
    Finish,
    RequestRejected,
    ServerUnavailable,
    StreamBroken,
)
from nemotron_triton.bundle import Bundle
from nemotron_triton.errors import ServerError
from nemotron_triton.server import ServeOptions
from patience import wait_until
from running import Running
from served import served_by_command

HELLO = [{"role": "user", "content": "Hello"}]
OK = 'requests_total{outcome="ok"}'


@pytest.fixture
def client(faulty: Running) -> Iterator[Client]:
    with faulty.client(timeout_s=30, max_retries=0) as client:
        yield client
        # After every fault the server answers the next request.
        assert (client.chat(HELLO, seed=ANSWER).content or "").strip() == TEXT


def test_an_engine_that_fails_in_midstream_breaks_that_stream_only(client: Client) -> None:
    neighbour = client.stream(HELLO, seed=ENDLESS, max_tokens=1000)
    next(neighbour)

    with pytest.raises(StreamBroken, match=r"broke off the answer: the GPU has fallen off the bus"):
        list(client.stream(HELLO, seed=FAIL_IN_MIDSTREAM))
    with closing(client.stream(HELLO, seed=FAIL_IN_MIDSTREAM)) as stream:
        assert isinstance(next(stream), ContentDelta)

    *_, finish = neighbour
    assert isinstance(finish, Finish)
    assert (finish.reason, finish.usage.output_tokens) == ("length", 1000)


def test_an_unexpected_error_is_not_shown_to_the_client(client: Client, faulty: Running) -> None:
    with pytest.raises(StreamBroken, match="internal error; the server's log has the details") as caught:
        client.chat(HELLO, seed=RAISE_AT_ONCE)

    assert "secret" not in str(caught.value)
    wait_until(lambda: any("ZeroDivisionError" in line for line in list(faulty.log)))


def test_a_hanging_engine_is_ended_by_the_requests_deadline(client: Client, faulty: Running) -> None:
    begin = time.monotonic()

    with pytest.raises(DeadlineExceeded):
        client.chat(HELLO, seed=HANG, timeout_s=1.0)

    # Long before the engine is given up.
    assert time.monotonic() - begin < 20
    wait_until(lambda: metric(faulty.options, "active_requests") == 0)


def test_the_servers_own_limit_ends_a_request_that_set_none(bundle: Bundle) -> None:
    with faulty_server(bundle, max_request_ms=700) as faulty, faulty.client() as client:
        begin = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="not complete after 700 ms, the server's time limit"):
            client.chat(HELLO, seed=ENDLESS, max_tokens=90_000)

        # Long before the client's own time is up.
        assert time.monotonic() - begin < 30
        assert (client.chat(HELLO, seed=ANSWER).content or "").strip() == TEXT


@pytest.mark.parametrize(
    ("seed", "limits", "reason"),
    [
        (DIE, {}, "the executor died; the server stops"),
        (HANG, {"max_engine_silence_ms": 500}, "the engine did nothing for 500 ms; the server stops"),
    ],
)
def test_an_engine_that_is_dead_takes_the_server_out_of_service(
    bundle: Bundle, seed: int, limits: dict[str, int], reason: str
) -> None:
    with faulty_server(bundle, **limits) as faulty, faulty.client(timeout_s=30) as client:
        with pytest.raises(StreamBroken, match=reason):
            client.chat(HELLO, seed=seed)

        wait_until(lambda: not client.is_ready(timeout_s=1))
        with pytest.raises(ServerError, match="while serving"):
            faulty.server.wait(threading.Event())


def test_an_engine_that_hangs_is_found_out_when_its_callers_have_given_up(bundle: Bundle) -> None:
    with faulty_server(bundle, max_engine_silence_ms=1500) as faulty, faulty.client(timeout_s=30) as client:
        with closing(client.stream(HELLO, seed=STUCK)) as stream:
            next(stream)

        with pytest.raises(ServerError, match="while serving"):
            faulty.server.wait(threading.Event())

    assert any("the engine did nothing for 1500 ms; the server stops" in line for line in faulty.log)


def test_a_slow_reader_gets_everything_and_delays_nobody(client: Client, faulty: Running) -> None:
    """It reads one event, and the others when the server has sent everything and answered somebody else."""
    ended = metric(faulty.options, OK)
    slow = client.stream(HELLO, seed=ENDLESS, max_tokens=3000)
    first = next(slow)
    whole = client.chat(HELLO, seed=ENDLESS, max_tokens=3000)
    wait_until(lambda: metric(faulty.options, OK) == ended + 2)

    begin = time.monotonic()
    with faulty.client(timeout_s=30) as another:
        assert (another.chat(HELLO, seed=ANSWER).content or "").strip() == TEXT
    assert (client.chat(HELLO, seed=ANSWER).content or "").strip() == TEXT
    quick_s = time.monotonic() - begin
    *others, finish = slow

    text = "".join(event.text for event in (first, *others) if isinstance(event, ContentDelta))
    assert isinstance(finish, Finish)
    assert (finish.reason, finish.usage.output_tokens) == ("length", 3000)
    assert text == whole.content
    assert text == ((TEXT + " ") * 1000)[: len(text)]
    assert quick_s < 15


def test_clients_that_go_away_free_their_places_wherever_they_were(client: Client, faulty: Running) -> None:
    """Eight are answered and seven wait; one of the eight and six of the seven leave, and the last has its turn."""
    options, freed_s = faulty.options, []
    for _ in range(3):
        with all_places_taken(client) as streams, stubs(options) as stub, ThreadPoolExecutor(1) as threads:
            calls = [stub.ModelStreamInfer(iter([_request(ENDLESS)]), timeout=60) for _ in range(6)]
            wait_until(lambda: metric(options, "waiting_requests") == 6)
            last = threads.submit(_first_token_at_s, stub)
            wait_until(lambda: metric(options, "waiting_requests") == 7)

            begin = time.monotonic()
            streams[0].close()
            for call in calls:
                call.cancel()
            freed_s.append(last.result(60) - begin)

    # The best of three, because a busy machine may hold up any one; a cancel that is missed shows in all.
    assert min(freed_s) < 0.2, freed_s


def test_who_waits_too_long_is_refused_with_the_time(client: Client) -> None:
    with all_places_taken(client), pytest.raises(ServerUnavailable, match="waited 4000 ms and its turn has not come"):
        client.chat(HELLO, seed=ANSWER)


def test_who_finds_no_room_is_refused_at_once(client: Client, faulty: Running) -> None:
    """Eight are answered and forty wait: nobody waits to hear that, not even as long as one who is queued."""
    options, refused_s = faulty.options, []
    with all_places_taken(client), stubs(options) as stub:
        for _ in range(3):
            calls = [stub.ModelStreamInfer(iter([_request(ENDLESS)]), timeout=60) for _ in range(40)]
            wait_until(lambda: metric(options, "waiting_requests") == 40)

            begin = time.monotonic()
            *_, response = stub.ModelStreamInfer(iter([_request(ANSWER)]), timeout=60)
            took_s = time.monotonic() - begin

            # On a busy machine the forty requests may have timed out by then.
            refused_s.append(took_s if "8 requests run and 40 wait" in response.error_message else math.inf)
            for call in calls:
                call.cancel()
            wait_until(lambda: metric(options, "waiting_requests") == 0)

    assert min(refused_s) < 0.5, refused_s


def test_10000_requests_at_once_are_answered_or_refused(client: Client) -> None:
    """8 run and 40 wait; whoever else comes is told so."""
    outcomes: Counter[str] = Counter()

    async def ask(stub: Any) -> None:
        responses = [response async for response in stub.ModelStreamInfer(iter([_request(ANSWER)]), timeout=90)]
        text = "".join(map(_text, responses)).strip()
        outcomes["answered" if text == TEXT else responses[-1].error_message] += 1

    async def ask_all() -> None:
        async with grpc.aio.insecure_channel(client.url) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            await asyncio.gather(*[ask(stub) for _ in range(10_000)])

    asyncio.run(ask_all())

    assert sum(outcomes.values()) == 10_000
    assert outcomes.pop("answered") >= 48
    refusals = ("UNAVAILABLE: 8 requests run and 40 wait", "UNAVAILABLE: the request waited 4000 ms")
    assert all(outcome.startswith(refusals) for outcome in outcomes), outcomes


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

    assert time.monotonic() - begin < 15


def test_a_tensor_of_millions_of_texts_delays_nobody(client: Client) -> None:
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


def test_a_full_disk_under_the_log_does_not_stop_answers(bundle: Bundle) -> None:
    """Every write of the server's log fails: /dev/full is a disk that has no room."""
    with (
        Path("/dev/full").open("w") as full,
        served_by_command(bundle.path, stderr=full) as served,
        served.client() as client,
    ):
        for _ in range(20):
            assert client.chat(HELLO, max_tokens=5).usage.output_tokens <= 5
        with pytest.raises(RequestRejected):
            client.chat(HELLO, max_tokens=0)
        served.process.terminate()
        status = served.process.wait(timeout=30)

    assert status == 0


@contextmanager
def all_places_taken(client: Client) -> Iterator[list[Any]]:
    """Streams without an end at all eight places of the engine."""
    streams = [client.stream(HELLO, seed=ENDLESS, max_tokens=90_000) for _ in range(8)]
    for stream in streams:
        next(stream)
    try:
        yield streams
    finally:
        for stream in streams:
            stream.close()


@contextmanager
def stubs(options: ServeOptions) -> Iterator[Any]:
    """Triton's own, on a connection of their own; what is on its way when the block ends is cancelled."""
    with grpc.insecure_channel(options.grpc_url) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def _first_token_at_s(stub: Any) -> float:
    """When an answer began; never for one that was refused."""
    responses = stub.ModelStreamInfer(iter([_request(ANSWER)]), timeout=60)
    first, at_s = next(responses), time.monotonic()
    list(responses)
    return math.inf if first.error_message else at_s


def _request(seed: int) -> Any:
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

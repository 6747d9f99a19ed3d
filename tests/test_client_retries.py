"""What the clients retry, how often, for how long, and where."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from client_twins import Ask, ask_client, both_clients
from nemotron_client import (
    AsyncClient,
    Client,
    ClientError,
    ContentDelta,
    DeadlineExceeded,
    Finish,
    InvalidRequest,
    Reply,
    RequestRejected,
    ServerUnavailable,
    StreamBroken,
    wire,
)
from nemotron_client.attempts import Attempts
from nemotron_client.endpoints import Endpoints
from nemotron_client.refusals import BY_STATUS
from scripted_server import HI, ScriptedServer, answer, failure, response, scripted_server


class Flaky:
    """A script that fails the first requests, with *code* or with an error inside the stream, and then answers."""

    def __init__(self, failures: int, code: grpc.StatusCode | None = None) -> None:
        self.failures = failures
        self.code = code
        self.asked = 0

    def __call__(self, _request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        self.asked += 1
        if self.asked > self.failures:
            yield from answer("at last")
        elif self.code:
            context.abort(self.code, "not now")
        else:
            yield failure("UNAVAILABLE: 8 requests run: retry later")


@both_clients
@pytest.mark.parametrize("code", [None, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED])
def test_what_was_not_begun_is_tried_again_and_counted(ask: Ask, code: grpc.StatusCode | None) -> None:
    flaky = Flaky(2, code)

    with scripted_server(flaky) as server:
        reply = Reply.of(ask(server.url, HI, {"max_retries": 2}))

    assert (reply.content, reply.retries, flaky.asked) == ("at last", 2, 3)
    # It is one request in the server's log.
    assert len({request.id for request in server.requests}) == 1


@both_clients
def test_after_as_many_attempts_as_are_allowed_the_error_says_how_many(ask: Ask) -> None:
    flaky = Flaky(9)

    with scripted_server(flaky) as server, pytest.raises(ServerUnavailable, match="retry later") as caught:
        ask(server.url, HI, {"max_retries": 1})

    assert (flaky.asked, caught.value.retries) == (2, 1)


@both_clients
def test_a_request_may_have_more_attempts_than_its_client(ask: Ask) -> None:
    flaky = Flaky(1)

    with scripted_server(flaky) as server:
        events = ask(server.url, HI, {"max_retries": 0}, max_retries=3)

    assert isinstance(events[-1], Finish)
    assert events[-1].retries == 1


@both_clients
@pytest.mark.parametrize("name", [name for name, kind in BY_STATUS.items() if kind is not ServerUnavailable])
def test_nothing_else_is_tried_again(ask: Ask, name: str) -> None:
    flaky = Flaky(1, grpc.StatusCode[name])

    with scripted_server(flaky) as server, pytest.raises(ClientError):
        ask(server.url, HI, {"max_retries": 5})

    assert flaky.asked == 1


@both_clients
def test_nothing_is_tried_again_after_the_first_token(ask: Ask) -> None:
    def script(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield response({wire.TEXT_OUTPUT: "half an"})
        context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    with scripted_server(script) as server, pytest.raises(StreamBroken, match="Socket closed"):
        ask(server.url, HI, {"max_retries": 5})

    assert len(server.requests) == 1


@both_clients
def test_a_server_that_comes_back_is_found_by_the_next_call(ask: Ask) -> None:
    first = ScriptedServer(lambda request, context: answer("first"))
    first.stop()

    second = ScriptedServer(lambda request, context: answer("second"), first.port)
    events = ask(second.url, HI)
    second.stop()

    assert events[0] == ContentDelta("second")


def test_a_client_outlives_its_server() -> None:
    server = ScriptedServer(lambda request, context: answer("first"))
    with Client(server.url, timeout_s=20, max_retries=0) as client:
        first = client.chat(HI)
        server.stop()
        with pytest.raises(ServerUnavailable):
            client.chat(HI)
        server = ScriptedServer(lambda request, context: answer("second"), server.port)
        second = client.with_options(max_retries=20).chat(HI)
        server.stop()

    assert (first.content, second.content) == ("first", "second")


def attempts(timeout_s: float, max_retries: int, clock: list[float]) -> Attempts:
    """Attempts with the longest possible pauses, by a clock that the test sets."""
    return Attempts(
        Endpoints(["a:1"], "least_loaded"),
        timeout_s=timeout_s,
        max_retries=max_retries,
        clock=lambda: clock[0],
        draw=lambda low, high: high,
    )


def test_pauses_are_drawn_below_a_bound_that_doubles_up_to_eight_seconds() -> None:
    trying = attempts(timeout_s=1000, max_retries=7, clock=[0.0])

    pauses_s = [trying.pause_s(ServerUnavailable("no")) for _ in range(7)]

    assert pauses_s == [0.5, 1, 2, 4, 8, 8, 8]


def test_no_pause_outlasts_the_deadline() -> None:
    clock = [0.0]
    trying = attempts(timeout_s=2, max_retries=7, clock=clock)
    pause_s = trying.pause_s(ServerUnavailable("no"))
    clock[0] = 1.5

    assert pause_s == 0.5
    assert trying.pause_s(ServerUnavailable("no")) is None


def test_an_attempt_has_the_time_that_is_left() -> None:
    clock = [0.0]
    trying = attempts(timeout_s=2, max_retries=0, clock=clock)
    clock[0] = 1.5

    left_s = trying.remaining_s()

    assert left_s == 0.5
    clock[0] = 2.0
    with pytest.raises(DeadlineExceeded, match="within 2 s"):
        trying.remaining_s()


@both_clients
def test_a_black_hole_costs_the_deadline_and_a_tenth_of_a_second_more(ask: Ask) -> None:
    # One connection fills the backlog; then the kernel drops new ones without an answer or a refusal.
    hole = socket.socket()
    hole.bind(("127.0.0.1", 0))
    hole.listen(0)
    url = f"127.0.0.1:{hole.getsockname()[1]}"
    fillers = [socket.socket() for _ in range(2)]
    for filler in fillers:
        filler.setblocking(False)
        filler.connect_ex(hole.getsockname())

    late_s: list[float] = []
    # One of three is enough: another process may occupy the machine.
    while len(late_s) < 3 and not any(late < 0.1 for late in late_s):
        begin = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=r"0\.5 s"):
            ask(url, HI, timeout_s=0.5)
        late_s.append(time.monotonic() - begin - 0.5)

    for connection in (hole, *fillers):
        connection.close()
    assert min(late_s) < 0.1


@both_clients
def test_the_server_gets_the_time_that_is_left_for_an_attempt(ask: Ask) -> None:
    flaky = Flaky(1)

    with scripted_server(flaky) as server:
        ask(server.url, HI, {"max_retries": 1}, timeout_s=5)

    first_us, second_us = (request.parameters["timeout"].int64_param for request in server.requests)
    assert second_us < first_us <= 5_000_000


@pytest.mark.parametrize("balance", ["least_loaded", "round_robin"])
def test_requests_are_spread_over_servers(balance: Any) -> None:
    servers = [ScriptedServer(lambda request, context: answer("ja")) for _ in range(3)]
    with Client([server.url for server in servers], balance=balance) as client:
        for _ in range(9):
            client.chat(HI)
    for server in servers:
        server.stop()

    assert [len(server.requests) for server in servers] == [3, 3, 3]


def test_the_least_loaded_server_gets_the_next_request() -> None:
    endpoints = Endpoints(["a:1", "b:1", "c:1"], "least_loaded")

    with endpoints.one() as first, endpoints.one() as second, endpoints.one() as third:
        chosen = {first.url, second.url, third.url}
        with endpoints.one():
            loads = sorted(len(attempt.endpoint.attempts) for attempt in (first, second, third))
    with endpoints.one() as first, endpoints.one() as second:
        for _ in range(5):
            with endpoints.one() as free:
                assert free.url not in (first.url, second.url)

    assert chosen == {"a:1", "b:1", "c:1"}
    assert loads == [1, 1, 2]


@pytest.mark.slow
def test_a_dead_server_is_left_out_and_taken_back() -> None:
    servers = [ScriptedServer(lambda request, context: answer("ja")) for _ in range(2)]
    with Client([server.url for server in servers], timeout_s=20) as client:
        client.chat(HI)
        servers[0].stop()
        during = [client.chat(HI).content for _ in range(10)]
        asked = len(servers[1].requests)
        servers[0] = ScriptedServer(lambda request, context: answer("back"), servers[0].port)
        deadline = time.monotonic() + 20
        while client.chat(HI).content != "back" and time.monotonic() < deadline:
            threading.Event().wait(0.05)
        back = len(servers[0].requests)
    for server in servers:
        server.stop()

    assert during == ["ja"] * 10
    assert asked >= 10
    assert back >= 1


def test_a_server_that_says_it_is_not_ready_gets_no_request() -> None:
    servers = [ScriptedServer(lambda request, context: answer("ja")) for _ in range(2)]
    servers[0].ready = False
    with Client([server.url for server in servers]) as client:
        for _ in range(4):
            client.chat(HI)
        health = client.health()
    for server in servers:
        server.stop()

    assert [len(server.requests) for server in servers] == [0, 4]
    assert [(endpoint.live, endpoint.ready) for endpoint in health.endpoints] == [(True, False), (True, True)]
    assert health.ready


@both_clients
def test_all_servers_behind_a_name_are_used(ask: Ask) -> None:
    with scripted_server(lambda request, context: answer("ja")) as server:
        events = ask(f"dns:///localhost:{server.port}", HI, {"max_retries": 3})

    assert events[0] == ContentDelta("ja")


@both_clients
def test_a_name_without_an_address_is_unavailable(ask: Ask) -> None:
    with pytest.raises(ServerUnavailable, match=r"nowhere\.invalid:8001 has no address"):
        ask("dns:///nowhere.invalid:8001", HI)


def test_a_server_that_leaves_its_name_is_let_go_when_its_last_answer_has_ended() -> None:
    endpoints = Endpoints(["10.0.0.1:1"], "round_robin")

    with endpoints.one() as running:
        endpoints.replace(["10.0.0.2:1"])
        while_it_answers = endpoints.idle()
        endpoints.replace(["10.0.0.1:1"])
        with endpoints.one() as back:
            pass
        endpoints.replace(["10.0.0.2:1"])
        still_answering = endpoints.idle()
    afterwards = endpoints.idle(), endpoints.idle()

    assert back.endpoint is running.endpoint
    assert (while_it_answers, still_answering) == ((), ())
    assert afterwards == (("10.0.0.1:1",), ())


def test_limits_are_checked_before_anything_is_sent() -> None:
    with Client("127.0.0.1:1") as client:
        with pytest.raises(InvalidRequest, match=r"timeout_s is 1000000000000"):
            client.chat(HI, timeout_s=1e12)
        with pytest.raises(InvalidRequest, match="max_retries is 101"):
            client.with_options(max_retries=101)
        with pytest.raises(InvalidRequest, match="timeout_s is 0"):
            client.with_options(timeout_s=0)
    with pytest.raises(InvalidRequest, match="balance is 'best'"):
        Client("127.0.0.1:1", balance="best")  # type: ignore[arg-type]


def test_a_refusal_is_not_hidden_by_retries() -> None:
    def script(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield failure("INVALID_ARGUMENT: max_tokens is 0")

    with scripted_server(script) as server, pytest.raises(RequestRejected):
        ask_client(server.url, HI, {"max_retries": 5})

    assert len(server.requests) == 1


def test_a_refusal_counts_also_where_the_stream_then_breaks() -> None:
    def script(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield failure("INVALID_ARGUMENT: max_tokens is 0")
        context.abort(grpc.StatusCode.UNAVAILABLE, "stopping")

    with scripted_server(script) as server, pytest.raises(RequestRejected, match="max_tokens is 0"):
        ask_client(server.url, HI, {"max_retries": 5})

    assert len(server.requests) == 1


@both_clients
def test_the_first_look_at_the_servers_is_within_the_deadline(ask: Ask) -> None:
    hung = socket.create_server(("127.0.0.1", 0))
    with scripted_server(lambda request, context: answer("ja")) as server, hung:
        begin = time.monotonic()
        with contextlib.suppress(DeadlineExceeded):
            ask([f"127.0.0.1:{hung.getsockname()[1]}", server.url], HI, timeout_s=0.3)

        assert time.monotonic() - begin < 0.9


def test_no_thread_and_no_connection_outlives_a_client_that_was_forgotten() -> None:
    with scripted_server(lambda request, context: answer("ja")) as server:
        client = Client([server.url, "127.0.0.1:1"])
        client.chat(HI)
        watching = [thread for thread in threading.enumerate() if thread.name == "nemotron-health"]
        del client
        gc.collect()
        for thread in watching:
            thread.join(10)

    assert len(watching) == 1
    assert not watching[0].is_alive()


def test_no_task_outlives_an_async_client_that_was_forgotten() -> None:
    async def main(url: str) -> list[bool]:
        client = AsyncClient([url, "127.0.0.1:1"])
        await client.chat(HI)
        watching = [task for task in asyncio.all_tasks() if task.get_name() == "nemotron-health"]
        del client
        gc.collect()
        await asyncio.wait(watching, timeout=10)
        return [task.cancelled() for task in watching]

    with scripted_server(lambda request, context: answer("ja")) as server:
        assert asyncio.run(main(server.url)) == [True]

"""What becomes of requests whose server says that it stops, or says nothing any more."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from black_hole import black_hole
from client_twins import Ask, both_clients
from nemotron_client import AsyncClient, Client, ContentDelta, InvalidRequest, ServerUnavailable, StreamBroken, wire
from nemotron_client.endpoints import STOPPING_S, Endpoints
from nemotron_client.refusals import of_message
from patience import wait_until
from scripted_server import HI, ScriptedServer, answer, failure, response, scripted_server

# As the server of commit d197688 says it.
STOPPING = "UNAVAILABLE: the server is stopping; ask another one, or retry later"


def waits(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
    """A request in a queue that never moves."""
    ended = threading.Event()
    context.add_callback(ended.set)
    ended.wait()
    yield from ()


def begins(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
    """An answer of which no more comes than its first word."""
    yield response({wire.TEXT_OUTPUT: "so far"})
    yield from waits(request, context)


def test_only_a_server_that_stops_is_marked_so() -> None:
    stopping = of_message(STOPPING, "a:1", started=False)
    full = of_message("UNAVAILABLE: 8 requests run and 40 wait", "a:1", started=False)

    assert isinstance(stopping, ServerUnavailable)
    assert isinstance(full, ServerUnavailable)
    assert (stopping.stopping, full.stopping) == (True, False)


def test_a_server_that_stops_is_taken_back_when_it_was_not_ready_and_is_again() -> None:
    endpoints = Endpoints(["a:1", "b:1"], "least_loaded", clock=lambda: 0.0)
    with endpoints.one() as attempt:
        endpoints.eject(attempt.endpoint, stopping=True)

    taken_back = []
    for ready in (True, True, False, True):
        endpoints.looked_at(attempt.url, ready, patience=2)
        taken_back.append(attempt.url in endpoints.healthy_urls)

    assert taken_back == [False, False, False, True]


def test_a_server_that_stops_and_never_says_that_it_is_not_ready_is_taken_back_after_half_a_minute() -> None:
    clock = [0.0]
    endpoints = Endpoints(["a:1", "b:1"], "least_loaded", clock=lambda: clock[0])
    with endpoints.one() as attempt:
        endpoints.eject(attempt.endpoint, stopping=True)

    taken_back = []
    for clock[0] in (1.0, STOPPING_S - 0.1, STOPPING_S):
        endpoints.looked_at(attempt.url, True, patience=2)
        taken_back.append(attempt.url in endpoints.healthy_urls)

    assert taken_back == [False, False, True]


def test_a_full_server_is_taken_back_as_soon_as_it_says_that_it_is_ready() -> None:
    endpoints = Endpoints(["a:1", "b:1"], "least_loaded")
    with endpoints.one() as attempt:
        endpoints.eject(attempt.endpoint, stopping=False)

    endpoints.looked_at(attempt.url, True, patience=2)

    assert len(endpoints.healthy_urls) == 2


@pytest.mark.slow
def test_a_server_that_stops_gets_one_request_though_it_says_that_it_is_ready() -> None:
    with (
        scripted_server(lambda request, context: iter([failure(STOPPING)])) as stopping,
        scripted_server(lambda request, context: answer("ja")) as other,
        Client([stopping.url, other.url], balance="round_robin") as client,
    ):
        client.chat(HI)
        client.chat(HI)
        looks = stopping.looks
        wait_until(lambda: stopping.looks >= looks + 2)
        replies = [client.chat(HI) for _ in range(4)]

    assert [reply.retries for reply in replies] == [0] * 4
    assert len(stopping.requests) == 1


@both_clients
@pytest.mark.slow
def test_a_request_without_a_token_leaves_a_server_that_went_silent(ask: Ask) -> None:
    with (
        scripted_server(waits) as silent,
        black_hole(silent.port) as hole,
        scripted_server(lambda request, context: answer("elsewhere")) as other,
    ):
        asking = Asking(ask, [other.url, hole.url], silent)
        hole.open()
        begin = time.monotonic()
        events = asking.events()

    assert events[0] == ContentDelta("elsewhere")
    assert time.monotonic() - begin < 8


@both_clients
@pytest.mark.slow
def test_an_answer_that_was_begun_breaks_where_its_server_went_silent(ask: Ask) -> None:
    with (
        scripted_server(begins) as silent,
        black_hole(silent.port) as hole,
        scripted_server(begins) as other,
    ):
        asking = Asking(ask, [other.url, hole.url], silent)
        hole.open()
        with pytest.raises(StreamBroken, match=f"{hole.url} went silent in the middle of the answer"):
            asking.events()

    assert len(silent.requests) + len(other.requests) == 1


@both_clients
@pytest.mark.slow
def test_a_lone_server_is_asked_again_over_a_new_connection(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEMOTRON_KEEPALIVE_S", "0.2")

    def script(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        return waits(request, context) if len(server.requests) == 1 else answer("at last")

    with scripted_server(script) as server, black_hole(server.port) as hole:
        asking = Asking(ask, hole.url, server, max_retries=1)
        hole.open()
        wait_until(lambda: hole.swallowed > 0)
        # As a router that forgot its connections: new ones work.
        hole.close()
        events = asking.events()

    assert events[0] == ContentDelta("at last")


@both_clients
@pytest.mark.slow
def test_a_request_waits_as_long_as_its_server_is_there(ask: Ask) -> None:
    released = threading.Event()

    def script(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        released.wait(60)
        return answer("at last")

    with scripted_server(script) as busy, scripted_server(script) as other:
        asking = Asking(ask, [busy.url, other.url], busy, other)
        looks = busy.looks
        wait_until(lambda: busy.looks >= looks + 3)
        released.set()
        events = asking.events()

    assert events[0] == ContentDelta("at last")
    assert len(busy.requests) + len(other.requests) == 1


def test_a_slow_look_breaks_nothing_off_while_answers_go_on() -> None:
    endpoints = Endpoints(["a:1", "b:1"], "least_loaded")

    with endpoints.one() as attempt:
        lost = []
        for _ in range(2):
            endpoints.look_at(attempt.url)
            attempt.heard = True
            lost.append(endpoints.looked_at(attempt.url, None, patience=2))
        for _ in range(2):
            endpoints.look_at(attempt.url)
            lost.append(endpoints.looked_at(attempt.url, None, patience=2))

    assert lost == [False, False, False, True]


def test_a_server_that_says_that_it_is_not_ready_goes_on_with_what_it_has() -> None:
    endpoints = Endpoints(["a:1", "b:1"], "least_loaded")

    with endpoints.one() as attempt:
        lost = [endpoints.looked_at(attempt.url, False, patience=1) for _ in range(3)]

    assert lost == [False] * 3


def test_a_lone_server_is_looked_after_without_requests_too() -> None:
    with (
        scripted_server(lambda request, context: answer("ja")) as server,
        Client(server.url, keepalive_s=0.05) as client,
    ):
        client.chat(HI)

        wait_until(lambda: server.looks >= 3)


def test_a_lone_server_is_looked_after_by_an_async_client_too() -> None:
    async def main(server: ScriptedServer) -> None:
        async with AsyncClient(server.url, keepalive_s=0.05) as client:
            await client.chat(HI)
            await asyncio.to_thread(wait_until, lambda: server.looks >= 3)

    with scripted_server(lambda request, context: answer("ja")) as server:
        asyncio.run(main(server))


@pytest.mark.parametrize("keepalive_s", [0, -1, float("nan")])
def test_a_keepalive_that_is_none_is_refused(keepalive_s: float) -> None:
    with pytest.raises(InvalidRequest, match="keepalive_s is"):
        Client("127.0.0.1:1", keepalive_s=keepalive_s)


class Asking:
    """A request in a thread, which has reached one of *servers*; of several the last one gets it."""

    def __init__(self, ask: Ask, url: Any, *servers: ScriptedServer, max_retries: int = 2) -> None:
        self._result: list[Any] = []
        self._error: list[Exception] = []

        def run() -> None:
            try:
                self._result = ask(url, HI, {"max_retries": max_retries, "timeout_s": 60, "balance": "round_robin"})
            except Exception as error:
                self._error = [error]

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        wait_until(lambda: any(server.requests for server in servers))

    def events(self) -> list[Any]:
        self._thread.join(40)
        assert not self._thread.is_alive()
        if self._error:
            raise self._error[0]
        return self._result

"""However and whenever the reading of an answer ends, its request ends at a real tritonserver."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest

from exposition import metric
from faulty import ENDLESS, SILENT, TEXT, faulty_server
from nemotron_client import AsyncClient, AsyncStream, ContentDelta, Event, Finish, StreamBroken
from nemotron_triton.bundle import Bundle
from patience import wait_until
from running import Running

HELLO = [{"role": "user", "content": "What is the capital of France?"}]
# As in tests/support/faulty_model.py.
SLOTS = 8
LONG = 90_000


@pytest.fixture(scope="module")
def server(bundle: Bundle) -> Iterator[Running]:
    """A server of our own, so that nobody else's requests wait or run."""
    with faulty_server(bundle, max_queue_ms=60_000) as running:
        yield running


class Reading:
    """A task that reads one answer, response by response; `began` is set once it has the first of it."""

    def __init__(self, stream: AsyncStream[Event], *, slow: bool = False) -> None:
        self.stream = stream
        self.events: list[Event] = []
        self.began = asyncio.Event()
        self._slow = slow
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for events in self.stream.responses():
            self.events += events
            self.began.set()
            if self._slow:
                # As one who writes to a caller that does not read.
                await asyncio.sleep(3600)


async def until(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, condition)


@contextlib.asynccontextmanager
async def queued(server: Running, client: AsyncClient) -> AsyncIterator[Reading]:
    others = [asyncio.create_task(client.chat(HELLO, seed=SILENT)) for _ in range(SLOTS)]
    await until(lambda: metric(server.options, "active_requests") == SLOTS)
    reading = Reading(client.stream(HELLO, seed=SILENT))
    await until(lambda: metric(server.options, "waiting_requests") == 1)
    yield reading
    for other in others:
        other.cancel()
    await asyncio.wait(others)


@contextlib.asynccontextmanager
async def first_token_awaited(server: Running, client: AsyncClient) -> AsyncIterator[Reading]:
    reading = Reading(client.stream(HELLO, seed=SILENT))
    await until(lambda: metric(server.options, "active_requests") == 1)
    yield reading


@contextlib.asynccontextmanager
async def in_mid_answer(_server: Running, client: AsyncClient) -> AsyncIterator[Reading]:
    reading = Reading(client.stream(HELLO, seed=ENDLESS, max_tokens=LONG))
    await reading.began.wait()
    yield reading


@contextlib.asynccontextmanager
async def in_mid_answer_of_a_slow_reader(_server: Running, client: AsyncClient) -> AsyncIterator[Reading]:
    reading = Reading(client.stream(HELLO, seed=ENDLESS, max_tokens=LONG), slow=True)
    await reading.began.wait()
    yield reading
    reading.task.cancel()


async def close(reading: Reading) -> None:
    await reading.stream.close()


async def cancel(reading: Reading) -> None:
    reading.task.cancel()


States = Callable[[Running, AsyncClient], contextlib.AbstractAsyncContextManager[Reading]]


@pytest.mark.parametrize("end", [close, cancel])
@pytest.mark.parametrize("state", [queued, first_token_awaited, in_mid_answer, in_mid_answer_of_a_slow_reader])
def test_the_end_of_reading_cancels_the_request_in_each_state(
    server: Running, state: States, end: Callable[[Reading], Awaitable[None]]
) -> None:
    async def main() -> BaseException | None:
        async with AsyncClient(server.options.grpc_url, timeout_s=300, max_retries=0) as client:
            async with state(server, client) as reading:
                await end(reading)
                await until(lambda: bool(line(server, reading.stream.request_id)))
            (failure,) = await asyncio.gather(reading.task, return_exceptions=True)
            await until(lambda: metric(server.options, "active_requests") == 0)
            assert line(server, reading.stream.request_id)["outcome"] == "cancelled"
            return failure

    failure = asyncio.run(main())

    reads_on = state is not in_mid_answer_of_a_slow_reader
    assert isinstance(failure, StreamBroken if end is close and reads_on else asyncio.CancelledError)


def line(server: Running, request_id: str) -> dict[str, Any]:
    """What the log says of a request, empty where it is not over."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in list(server.log) if line.startswith("{")]
    return next((line for line in lines if line.get("request_id") == request_id), {})


def test_each_response_is_yielded_with_all_that_it_brought(server: Running) -> None:
    async def main() -> list[Sequence[Event]]:
        async with AsyncClient(server.options.grpc_url) as client:
            stream = client.stream(HELLO, thinking=False, request_id="whole")
            return [events async for events in stream.responses()]

    responses = asyncio.run(main())

    wait_until(lambda: bool(line(server, "whole")))
    assert len(responses) == line(server, "whole")["responses"] > 1
    assert isinstance(responses[-1][-1], Finish)
    said = [event.text for events in responses for event in events if isinstance(event, ContentDelta)]
    assert "".join(said).strip() == TEXT

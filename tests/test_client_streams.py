"""To stop reading a stream cancels its request, and only that one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import grpc
import pytest

from nemotron_client import AsyncClient, Client, ContentDelta, Event, InvalidRequest, wire
from scripted_server import HI, Endless, ScriptedServer, answer, response, scripted_server


@pytest.fixture
def endless() -> Iterator[tuple[Endless, ScriptedServer]]:
    """A server with an endless script."""
    script = Endless()
    with scripted_server(script) as server:
        yield script, server


def leave_the_loop(client: Client) -> Any:
    stream = client.stream(HI)
    for _ in stream:
        break
    return stream  # held by somebody, and cancelled all the same


def leave_the_block(client: Client) -> Any:
    with client.stream(HI) as stream:
        next(stream)
    return stream


def close_the_stream(client: Client) -> Any:
    stream = client.stream(HI)
    next(stream)
    stream.close()
    return stream


def fail_in_the_loop(client: Client) -> Any:
    with contextlib.suppress(ZeroDivisionError):
        for _ in client.stream(HI):
            _ = 1 / 0


def forget_the_stream(client: Client) -> Any:
    next(client.stream(HI))


@pytest.mark.parametrize(
    "stop", [leave_the_loop, leave_the_block, close_the_stream, fail_in_the_loop, forget_the_stream]
)
def test_to_stop_reading_is_to_cancel(endless: tuple[Endless, ScriptedServer], stop: Callable[[Client], Any]) -> None:
    script, server = endless

    with Client(server.url) as client:
        held = stop(client)

        assert script.cancelled.wait(5)
    del held


async def leave_the_async_loop(client: AsyncClient) -> Any:
    stream = client.stream(HI)
    async for _ in stream:
        break
    return stream


async def leave_the_async_block(client: AsyncClient) -> Any:
    async with client.stream(HI) as stream:
        await anext(stream)
    return stream


async def close_the_async_stream(client: AsyncClient) -> Any:
    stream = client.stream(HI)
    await anext(stream)
    await stream.close()
    return stream


async def time_out(client: AsyncClient) -> Any:
    async def read() -> None:
        async for _ in client.stream(HI):
            pass

    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(read(), 0.2)


async def cancel_the_task(client: AsyncClient) -> Any:
    begun = asyncio.Event()

    async def read() -> None:
        async for _ in client.stream(HI):
            begun.set()

    task = asyncio.create_task(read())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def cancel_a_chat(client: AsyncClient) -> Any:
    task = asyncio.create_task(client.chat(HI))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    "stop",
    [
        leave_the_async_loop,
        leave_the_async_block,
        close_the_async_stream,
        time_out,
        cancel_the_task,
        cancel_a_chat,
    ],
)
def test_to_stop_reading_in_a_task_is_to_cancel(
    endless: tuple[Endless, ScriptedServer], stop: Callable[[AsyncClient], Awaitable[Any]]
) -> None:
    script, server = endless

    async def main() -> bool:
        async with AsyncClient(server.url) as client:
            held = await stop(client)
            cancelled = await asyncio.to_thread(script.cancelled.wait, 5)
            del held
            return cancelled

    assert asyncio.run(main())


def test_a_deadline_cancels_at_the_server_too(endless: tuple[Endless, ScriptedServer]) -> None:
    script, server = endless

    with Client(server.url) as client, pytest.raises(Exception, match=r"within 0\.3 s"):
        client.chat(HI, timeout_s=0.3)

    assert script.cancelled.wait(5)


def test_a_finished_stream_is_not_cancelled() -> None:
    ended: list[bool] = []

    def script(_request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        context.add_callback(lambda: ended.append(context.code() is None))
        yield from answer("ja")

    with scripted_server(script) as server, Client(server.url) as client:
        stream = client.stream(HI)
        events = list(stream)
        stream.close()
        again = list(stream)

    assert events[0] == ContentDelta("ja")
    assert again == []


def test_next_reads_on_where_next_stopped(endless: tuple[Endless, ScriptedServer]) -> None:
    script, server = endless

    with Client(server.url) as client, client.stream(HI) as stream:
        events = [next(stream) for _ in range(3)]
        before = script.cancelled.is_set()

    assert events == [ContentDelta("word ")] * 3
    assert not before


def test_nothing_is_sent_before_the_first_event_is_asked_for() -> None:
    with scripted_server(lambda request, context: answer("ja")) as server, Client(server.url) as client:
        client.stream(HI)
        asked = len(server.requests)

    assert asked == 0


def test_an_async_client_belongs_to_one_event_loop() -> None:
    with scripted_server(lambda request, context: answer("ja")) as server:
        client = AsyncClient(server.url)
        asyncio.run(client.chat(HI))
        with pytest.raises(InvalidRequest, match="belongs to another event loop"):
            asyncio.run(client.chat(HI))


def test_a_slow_reader_delays_nobody_else() -> None:
    endless = Endless()
    calls = iter([endless])

    def script(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield from (next(calls, None) or (lambda request, context: answer("ja")))(request, context)

    with scripted_server(script) as server, Client(server.url) as client, client.stream(HI) as slow:
        next(slow)
        others = [client.chat(HI).content for _ in range(5)]

    assert others == ["ja"] * 5


def test_many_streams_at_once_keep_their_texts_apart() -> None:
    def script(request: Any, _context: grpc.ServicerContext) -> Iterator[Any]:
        for _ in range(3):
            yield response({wire.TEXT_OUTPUT: request.id})
        yield from answer("")

    async def main(url: str) -> list[tuple[str, list[Event]]]:
        async with AsyncClient(url) as client:

            async def read() -> tuple[str, list[Event]]:
                stream = client.stream(HI)
                return stream.request_id, [event async for event in stream]

            return await asyncio.gather(*(read() for _ in range(200)))

    with scripted_server(script) as server:
        results = asyncio.run(main(server.url))

    assert len({request_id for request_id, _ in results}) == 200
    assert all(events[:3] == [ContentDelta(request_id)] * 3 for request_id, events in results)


def test_a_ctrl_c_that_falls_between_grpcs_locks_is_a_ctrl_c(
    endless: tuple[Endless, ScriptedServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    script, server = endless

    def wait_that_is_interrupted(*_: Any, **__: Any) -> None:
        # As `threading.Condition` does where the interrupt finds its lock released.
        try:
            raise KeyboardInterrupt
        finally:
            raise RuntimeError("cannot release un-acquired lock")

    with Client(server.url) as client:
        stream = client.stream(HI)
        next(stream)
        with monkeypatch.context() as patched:
            patched.setattr("grpc._common.wait", wait_that_is_interrupted)
            with pytest.raises(KeyboardInterrupt):
                next(stream)

        assert script.cancelled.wait(5)

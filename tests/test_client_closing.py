"""Closing a client, or a stream that another thread or task reads, ends what is being read with an error."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from nemotron_client import AsyncClient, Client, ContentDelta, Event, InvalidRequest, StreamBroken, wire
from scripted_server import HI, LAST, Endless, ScriptedServer, answer, response, scripted_server


@pytest.fixture
def endless() -> Iterator[tuple[Endless, ScriptedServer]]:
    """A server with an endless script."""
    script = Endless()
    with scripted_server(script) as server:
        yield script, server


def test_closing_the_client_ends_its_streams_with_an_error(endless: tuple[Endless, ScriptedServer]) -> None:
    script, server = endless
    client = Client(server.url)
    stream = client.stream(HI)
    next(stream)

    client.close()

    with pytest.raises(StreamBroken):
        for _ in stream:
            pass
    assert script.cancelled.wait(5)
    with pytest.raises(InvalidRequest, match="is closed; make a new one"):
        client.chat(HI)


def test_closing_the_async_client_ends_its_streams_with_an_error(endless: tuple[Endless, ScriptedServer]) -> None:
    script, server = endless

    async def main() -> None:
        client = AsyncClient(server.url)
        stream = client.stream(HI)
        await anext(stream)
        closing = asyncio.create_task(client.close())
        with pytest.raises(StreamBroken):
            async for _ in stream:
                pass
        await closing
        with pytest.raises(InvalidRequest, match="is closed; make a new one"):
            await client.chat(HI)

    asyncio.run(main())

    assert script.cancelled.wait(5)


def test_closing_the_async_client_during_its_first_check_is_reported_to_callers() -> None:
    async def main(hung: str, url: str) -> None:
        client = AsyncClient([hung, url], timeout_s=20)
        asking = asyncio.create_task(client.chat(HI))
        while not any(task.get_name() == "nemotron-health" for task in asyncio.all_tasks()):
            await asyncio.sleep(0)
        await client.close()
        with pytest.raises(InvalidRequest, match="is closed"):
            await asking
        with pytest.raises(InvalidRequest, match="is closed"):
            await client.chat(HI)

    hung = socket.create_server(("127.0.0.1", 0))
    with hung, scripted_server(lambda request, context: answer("ja")) as server:
        asyncio.run(main(f"127.0.0.1:{hung.getsockname()[1]}", server.url))


def test_another_thread_can_close_a_stream_that_is_being_read() -> None:
    began, cancelled = threading.Event(), threading.Event()

    def script(_request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        context.add_callback(cancelled.set)
        began.set()
        cancelled.wait(20)
        yield response({wire.TEXT_OUTPUT: "too late"})

    def close(stream: Any) -> None:
        began.wait(20)
        stream.close()

    with scripted_server(script) as server, Client(server.url) as client:
        stream = client.stream(HI)
        closer = threading.Thread(target=close, args=(stream,))
        closer.start()
        with pytest.raises(StreamBroken):
            next(stream)
        closer.join(20)

        assert cancelled.wait(5)


@pytest.mark.parametrize("begun", [False, True], ids=["before the first event", "in the middle"])
def test_another_task_can_close_a_stream_that_is_being_read(begun: bool) -> None:
    waiting, cancelled = threading.Event(), threading.Event()

    def script(_request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        context.add_callback(cancelled.set)
        if begun:
            yield response({wire.TEXT_OUTPUT: "word "})
        waiting.set()
        cancelled.wait(20)
        yield response({wire.TEXT_OUTPUT: "too late"})

    async def main(url: str) -> list[Event]:
        async with AsyncClient(url) as client:
            stream = client.stream(HI)
            events: list[Event] = []

            async def read() -> None:
                async for event in stream:
                    events.append(event)

            reading = asyncio.create_task(read())
            assert await asyncio.to_thread(waiting.wait, 20)
            while begun and not events:
                await asyncio.sleep(0)
            await stream.close()
            with pytest.raises(StreamBroken, match="the stream was closed"):
                await reading
            # It stays closed.
            await stream.close()
            events += [event async for event in stream]
            assert await asyncio.to_thread(cancelled.wait, 5)
            # The client goes on.
            assert await client.is_ready()
            return events

    with scripted_server(script) as server:
        events = asyncio.run(main(server.url))

    assert events == ([ContentDelta("word ")] if begun else [])


def test_another_task_can_close_a_run_that_waits_for_its_second_answer() -> None:
    waiting, cancelled = threading.Event(), threading.Event()
    call = '[{"index": 0, "id": "call_1", "function": {"name": "f", "arguments": "{}"}}]'

    def script(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        if len(server.requests) == 1:
            yield response({wire.TEXT_OUTPUT: "", wire.TOOL_CALLS: call, **LAST})
            return
        context.add_callback(cancelled.set)
        waiting.set()
        cancelled.wait(20)

    def f() -> str:
        """Nothing."""
        return "done"

    async def main(url: str) -> None:
        async with AsyncClient(url) as client:
            stream = client.run_stream(HI, tools=[f])

            async def read() -> None:
                async for _ in stream:
                    pass

            reading = asyncio.create_task(read())
            assert await asyncio.to_thread(waiting.wait, 20)
            await stream.close()
            with pytest.raises(StreamBroken, match="the stream was closed"):
                await reading
            assert await asyncio.to_thread(cancelled.wait, 5)

    with scripted_server(script) as server:
        asyncio.run(main(server.url))

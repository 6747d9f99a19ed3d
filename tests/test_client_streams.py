"""Ending a stream cancels its request, in every way to end one."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import grpc
import pytest

from nemotron_client import (
    AsyncClient,
    AsyncStream,
    Client,
    ContentDelta,
    Event,
    InvalidRequest,
    Stream,
    StreamBroken,
    wire,
)
from scripted_server import HI, LAST, ScriptedServer, answer, response, scripted_server


class Endless:
    """A script that sends text until it is cancelled, and notes that."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.cancelled = threading.Event()

    def __call__(self, _request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        context.add_callback(self.cancelled.set)
        self.began.set()
        while context.is_active():
            yield response({wire.TEXT_OUTPUT: "word "})
            time.sleep(0.002)


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


def public_methods(kind: type) -> dict[str, Any]:
    """The public methods."""
    return {
        name: value
        for name, value in inspect.getmembers(kind, inspect.isfunction)
        if name == "__init__" or not name.startswith("_")
    }


def test_both_clients_have_the_same_methods_with_the_same_parameters() -> None:
    ours, theirs = public_methods(Client), public_methods(AsyncClient)

    def parameters(method: Any) -> list[inspect.Parameter]:
        return list(inspect.signature(method).parameters.values())

    assert {name: parameters(method) for name, method in ours.items()} == {
        name: parameters(method) for name, method in theirs.items()
    }
    assert {name: method.__doc__ for name, method in ours.items()} == {
        name: method.__doc__ for name, method in theirs.items()
    }


def test_both_streams_have_the_same_methods() -> None:
    ours, theirs = public_methods(Stream), public_methods(AsyncStream)

    assert ours.keys() == theirs.keys()
    assert ours["responses"].__doc__ == theirs["responses"].__doc__


def test_what_returns_a_value_is_awaited_and_what_returns_a_stream_is_not() -> None:
    ours, theirs = public_methods(Client), public_methods(AsyncClient)

    def returns(method: Any) -> str:
        return str(inspect.signature(method).return_annotation)

    for name, method in theirs.items():
        streams = returns(ours[name]).startswith("Stream[")
        plain = name in ("__init__", "with_options")
        assert inspect.iscoroutinefunction(method) != (streams or plain), name
        assert returns(method) == ("Async" if streams else "") + returns(ours[name]), name


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

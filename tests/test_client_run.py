"""`run`: the model's calls are made for it until it answers; bounded, at the same time, and never silently wrong."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import AsyncIterable, Callable, Iterator
from typing import Any

import grpc
import pytest

from nemotron_client import (
    AsyncClient,
    Client,
    Finish,
    InvalidArguments,
    InvalidRequest,
    Run,
    RunEvent,
    Tool,
    ToolCall,
    ToolError,
    ToolFailed,
    ToolMessage,
    ToolResult,
    TooManyTurns,
    UnknownTool,
    UserMessage,
    wire,
)
from scripted_server import LAST, response, scripted_server

QUESTION = [UserMessage("How warm is it in Paris?")]
# A function's name and its arguments as the model writes them, or an answer.
Turn = list[tuple[str, str]] | str
Running = Callable[..., tuple[Run | None, list[RunEvent]]]


class Scripted:
    """A model that gives *turns*, lists of calls or answers, one after another, and the last one again and again."""

    def __init__(self, *turns: Turn) -> None:
        self._turns = list(turns)

    def __call__(self, _request: Any, _context: grpc.ServicerContext) -> Iterator[Any]:
        turn = self._turns.pop(0) if len(self._turns) > 1 else self._turns[0]
        if isinstance(turn, str):
            yield response({wire.TEXT_OUTPUT: turn, **LAST})
            return
        calls = [
            {"index": place, "id": f"call_{place}", "type": "function", "function": {"name": name, "arguments": text}}
            for place, (name, text) in enumerate(turn)
        ]
        yield response({wire.TOOL_CALLS: json.dumps(calls), **LAST, wire.FINISH_REASON: "tool_calls"})


def run_client(url: str, tools: Any, **options: Any) -> list[RunEvent]:
    """The events of `Client.run_stream`."""
    with Client(url, timeout_s=20) as client:
        return list(client.run_stream(QUESTION, tools=tools, **options))


def run_async_client(url: str, tools: Any, **options: Any) -> list[RunEvent]:
    """The events of `AsyncClient.run_stream`."""

    async def run() -> list[RunEvent]:
        async with AsyncClient(url, timeout_s=20) as client:
            events: AsyncIterable[RunEvent] = client.run_stream(QUESTION, tools=tools, **options)
            return [event async for event in events]

    return asyncio.run(run())


both_clients = pytest.mark.parametrize("run", [run_client, run_async_client], ids=["Client", "AsyncClient"])


def sent_messages(request: Any) -> list[dict[str, Any]]:
    """The messages in a request."""
    sent = dict(zip([tensor.name for tensor in request.inputs], request.raw_input_contents, strict=True))
    messages: list[dict[str, Any]] = json.loads(sent["messages"][4:])
    return messages


def temperature(city: str) -> float:
    """How warm it is in a city."""
    return {"Paris": 21.5}[city]


@both_clients
def test_what_a_function_returns_goes_back_to_the_model(run: Any) -> None:
    with scripted_server(Scripted([("temperature", '{"city": "Paris"}')], "It is 21.5 degrees.")) as server:
        events = run(server.url, [temperature])

    results = [event for event in events if isinstance(event, ToolResult)]
    call = next(event for event in events if isinstance(event, ToolCall))
    assert results == [ToolResult(call=call, content="21.5")]
    assert sent_messages(server.requests[1]) == [
        {"role": "user", "content": "How warm is it in Paris?"},
        {"role": "assistant", "content": None, "tool_calls": [call.as_openai()]},
        {"role": "tool", "tool_call_id": "call_0", "content": "21.5", "name": "temperature"},
    ]
    finished = Run.of(events, QUESTION)
    assert (finished.content, len(finished.replies), finished.results) == ("It is 21.5 degrees.", 2, tuple(results))
    assert isinstance(finished.messages[2], ToolMessage)
    assert finished.reply.content == "It is 21.5 degrees."


@both_clients
def test_thoughts_go_back_with_the_calls_they_led_to(run: Any) -> None:
    scripted = Scripted([("temperature", '{"city": "Paris"}')], "warm")

    def script(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield response({wire.REASONING_OUTPUT: "I should look."})
        yield from scripted(request, context)

    with scripted_server(script) as server:
        events = run(server.url, [temperature])

    assert sent_messages(server.requests[1])[1]["reasoning_content"] == "I should look."
    assert Run.of(events, QUESTION).reply.message.reasoning is None


@both_clients
def test_an_answer_without_calls_is_the_end(run: Any) -> None:
    with scripted_server(Scripted("I do not know.")) as server:
        events = run(server.url, [temperature])

    assert isinstance(events[-1], Finish)
    assert len(server.requests) == 1


@both_clients
def test_the_calls_of_one_answer_run_at_the_same_time_and_keep_their_order(run: Any) -> None:
    together = threading.Barrier(3, timeout=20)

    def meet(name: str) -> str:
        """Waits for the two others."""
        together.wait()
        return name

    calls = [("meet", json.dumps({"name": name})) for name in "abc"]
    with scripted_server(Scripted(calls, "done")) as server:
        events = run(server.url, [meet])

    assert [event.content for event in events if isinstance(event, ToolResult)] == ["a", "b", "c"]
    assert [message["content"] for message in sent_messages(server.requests[1])[2:]] == ["a", "b", "c"]


@both_clients
@pytest.mark.parametrize(
    ("name", "arguments", "kind", "complaint"),
    [
        ("humidity", "{}", UnknownTool, "humidity"),
        ("temperature", "{}", InvalidArguments, "city"),
        ("temperature", '{"city": 7}', InvalidArguments, "city"),
        ("temperature", '{"city": "Paris", "unit": "K"}', InvalidArguments, "unit"),
        ("temperature", '"Paris"', InvalidArguments, "temperature"),
        ("temperature", '{"city": "Rome"}', ToolFailed, "Rome"),
    ],
)
def test_a_call_that_cannot_be_made_is_raised_or_reported(
    run: Any, name: str, arguments: str, kind: type[ToolError], complaint: str
) -> None:
    with scripted_server(Scripted([(name, arguments)], "sorry")) as server, pytest.raises(ToolError) as caught:
        run(server.url, [temperature])

    assert type(caught.value) is kind
    assert complaint in str(caught.value)
    assert caught.value.tool == name
    with scripted_server(Scripted([(name, arguments)], "sorry")) as server:
        events = run(server.url, [temperature], on_tool_error="tell")
    (result,) = (event for event in events if isinstance(event, ToolResult))
    assert type(result.error) is kind
    assert result.content == f"error: {result.error}"
    assert sent_messages(server.requests[1])[-1]["content"] == result.content


@both_clients
def test_a_model_that_calls_for_ever_is_stopped(run: Any) -> None:
    stopped = pytest.raises(TooManyTurns, match="still calls temperature after 3 answers; raise max_turns")
    with scripted_server(Scripted([("temperature", '{"city": "Paris"}')])) as server, stopped:
        run(server.url, [temperature], max_turns=3)

    assert len(server.requests) == 3


@both_clients
@pytest.mark.parametrize("choice", ["required", "temperature"])
def test_a_call_that_was_asked_for_is_asked_for_once(run: Any, choice: str) -> None:
    with scripted_server(Scripted([("temperature", '{"city": "Paris"}')], "warm")) as server:
        run(server.url, [temperature], tool_choice=choice)

    def sent_choice(request: Any) -> bytes:
        sent = dict(zip([tensor.name for tensor in request.inputs], request.raw_input_contents, strict=True))
        return bytes(sent["tool_choice"][4:])

    assert choice.encode() in sent_choice(server.requests[0])
    assert sent_choice(server.requests[1]) == b"auto"


@both_clients
def test_a_tool_may_bring_its_own_schema(run: Any) -> None:
    tool = Tool(
        name="double",
        description="Twice a number",
        parameters={"type": "object", "properties": {"x": {"type": "number", "maximum": 10}}, "required": ["x"]},
        function=lambda x: 2 * x,
    )
    with scripted_server(Scripted([("double", '{"x": 4}')], "8")) as server:
        events = run(server.url, [tool])

    assert [event.content for event in events if isinstance(event, ToolResult)] == ["8"]


def test_what_cannot_be_called_is_refused_before_anything_is_asked() -> None:
    schema = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}

    with scripted_server(Scripted("never")) as server, Client(server.url) as client:
        for tools, complaint in (([schema], "f"), ([temperature, temperature], "temperature"), ([7], "7")):
            with pytest.raises(InvalidRequest, match=complaint):
                client.run(QUESTION, tools=tools)  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest, match="max_turns is 0"):
            client.run(QUESTION, tools=[temperature], max_turns=0)
        with pytest.raises(InvalidRequest, match="on_tool_error is 'ignore'"):
            client.run(QUESTION, tools=[temperature], on_tool_error="ignore")  # type: ignore[arg-type]

    assert server.requests == []


def test_a_function_that_fails_stops_those_beside_it_in_a_task() -> None:
    cancelled: list[bool] = []

    async def wait_for_ever(seconds: int) -> int:
        """Waits."""
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise
        return seconds

    calls = [("wait_for_ever", '{"seconds": 1}'), ("temperature", '{"city": "Rome"}')]
    with scripted_server(Scripted(calls, "done")) as server, pytest.raises(ToolFailed, match="Rome"):
        run_async_client(server.url, [wait_for_ever, temperature])

    assert cancelled == [True]


def test_a_cancelled_run_cancels_its_functions() -> None:
    async def main(url: str) -> bool:
        entered, cancelled = asyncio.Event(), asyncio.Event()

        async def wait_for_ever() -> None:
            """Waits."""
            entered.set()
            try:
                await asyncio.sleep(3600)
            finally:
                cancelled.set()

        async with AsyncClient(url) as client:
            run = asyncio.create_task(client.run(QUESTION, tools=[wait_for_ever]))
            await asyncio.wait_for(entered.wait(), 20)
            run.cancel()
            with pytest.raises(asyncio.CancelledError):
                await run
        return cancelled.is_set()

    with scripted_server(Scripted([("wait_for_ever", "{}")], "done")) as server:
        assert asyncio.run(main(server.url))


def test_a_synchronous_run_calls_asynchronous_functions_too() -> None:
    async def double(x: int) -> int:
        """Twice a number."""
        await asyncio.sleep(0)
        return 2 * x

    with scripted_server(Scripted([("double", '{"x": 4}')], "8")) as server:
        events = run_client(server.url, [double])

    assert [event.content for event in events if isinstance(event, ToolResult)] == ["8"]


def test_an_asynchronous_function_is_called_where_an_event_loop_runs_already() -> None:
    async def double(x: int) -> int:
        """Twice a number."""
        return 2 * x

    async def notebook(url: str) -> list[RunEvent]:
        return run_client(url, [double])

    with scripted_server(Scripted([("double", '{"x": 4}')], "8")) as server:
        events = asyncio.run(notebook(server.url))

    assert [event.content for event in events if isinstance(event, ToolResult)] == ["8"]


def test_calls_that_wait_behind_one_that_failed_are_not_made() -> None:
    done: list[int] = []

    def work(x: int) -> int:
        """Fails at 0, and else takes a little."""
        if not x:
            raise ValueError("no")
        done.append(x)
        threading.Event().wait(0.05)
        return x

    calls = [("work", json.dumps({"x": x})) for x in range(60)]
    with scripted_server(Scripted(calls, "done")) as server, pytest.raises(ToolFailed):
        run_client(server.url, [work])

    assert len(done) < 59


@both_clients
def test_a_function_that_was_cancelled_by_itself_failed(run: Any) -> None:
    async def give_up() -> None:
        """Waits for what was cancelled."""
        task = asyncio.ensure_future(asyncio.sleep(3600))
        task.cancel()
        await task

    if run is run_async_client and sys.version_info < (3, 11):
        pytest.skip("before CPython 3.11 nobody can tell who was cancelled")
    with scripted_server(Scripted([("give_up", "{}")], "sorry")) as server:
        events = run(server.url, [give_up], on_tool_error="tell")

    (result,) = (event for event in events if isinstance(event, ToolResult))
    assert "was cancelled" in result.content

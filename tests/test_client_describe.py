"""What the clients make of a server's description of what it serves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from nemotron_client import AsyncClient, Client, Description, RequestRejected, StreamBroken, wire
from scripted_server import failure, response, scripted_server

SERVED: dict[str, Any] = {
    "name": "nano",
    "names": ["nvidia/Nano", "Nano"],
    "context_tokens": 4096,
    "kind": "cpu",
    "precision": "q8_0",
    "gpu": "cpu",
    "built_at": "2026-12-01T07:21:25+00:00",
}
WITHOUT_CONTEXT = {name: value for name, value in SERVED.items() if name != "context_tokens"}


def describe(url: str) -> Description:
    with Client(url, timeout_s=10, max_retries=0) as client:
        return client.describe()


def describe_async(url: str) -> Description:
    async def ask() -> Description:
        async with AsyncClient(url, timeout_s=10, max_retries=0) as client:
            return await client.describe()

    return asyncio.run(ask())


both_clients = pytest.mark.parametrize("ask", [describe, describe_async], ids=["Client", "AsyncClient"])


def described(value: Any) -> Any:
    return response({wire.DESCRIPTION: json.dumps(value)})


@both_clients
def test_it_is_asked_alone_and_may_say_more_than_this_client_knows(ask: Callable[[str], Description]) -> None:
    with scripted_server(lambda request, context: iter([described(SERVED | {"colour": "green"})])) as server:
        description = ask(server.url)

    assert description == Description(**SERVED | {"names": ("nvidia/Nano", "Nano")})
    (request,) = server.requests
    assert [tensor.name for tensor in request.inputs] == ["describe"]
    assert list(request.raw_input_contents) == [b"\x01"]


@pytest.mark.parametrize(
    ("responses", "complaint"),
    [
        ([], "does not say what it serves"),
        ([response({wire.TEXT_OUTPUT: "green"})], "this client cannot read"),
        ([described(WITHOUT_CONTEXT)], "this client cannot read: KeyError.*context_tokens"),
        ([described(["nano"])], "this client cannot read"),
        ([described(SERVED), described(SERVED)], "a second description"),
    ],
    ids=["nothing", "no description", "a part of one", "a list", "two"],
)
@both_clients
def test_what_is_no_description_is_a_broken_stream(
    ask: Callable[[str], Description], responses: list[Any], complaint: str
) -> None:
    with (
        scripted_server(lambda request, context: iter(responses)) as server,
        pytest.raises(StreamBroken, match=complaint),
    ):
        ask(server.url)


@both_clients
def test_a_server_that_is_too_old_to_know_refuses(ask: Callable[[str], Description]) -> None:
    refusal = failure("[request id: a] unexpected inference input 'describe' for model 'nemotron'")

    with (
        scripted_server(lambda request, context: iter([refusal])) as server,
        pytest.raises(RequestRejected, match="unexpected inference input 'describe'"),
    ):
        ask(server.url)

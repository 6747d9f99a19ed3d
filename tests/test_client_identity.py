"""What a request says of itself: its id, its trace, for whom it asks; and what no header may hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from client_twins import Ask, both_clients
from nemotron_client import Event, Finish, InvalidRequest
from scripted_server import HI, answer, scripted_server

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@both_clients
def test_it_goes_out_beside_the_client_s_own_metadata(ask: Ask) -> None:
    headers: list[dict[str, Any]] = []

    def script(_request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        headers.append(dict(context.invocation_metadata()))
        yield from answer("ja")

    def finish(events: list[Event]) -> Finish:
        assert isinstance(events[-1], Finish)
        return events[-1]

    with scripted_server(script) as server:
        named = ask(server.url, HI, {"secret": "horse"}, request_id="chat-17/a", traceparent=TRACE, caller="carol")
        plain = [finish(ask(server.url, HI)).request_id for _ in range(2)]

    theirs = {"traceparent", "nemotron-caller", "triton-grpc-protocol-nemotron-secret", "triton_grpc_error"}
    assert [{name: value for name, value in sent.items() if name in theirs} for sent in headers] == [
        {"traceparent": TRACE, "nemotron-caller": "carol", "triton-grpc-protocol-nemotron-secret": "horse"},
        {},
        {},
    ]
    assert finish(named).request_id == server.requests[0].id == "chat-17/a"
    assert plain == [request.id for request in server.requests[1:]]
    assert len(set(plain)) == 2


@pytest.mark.parametrize(
    "option",
    [
        {"request_id": ""},
        {"request_id": "two words"},
        {"request_id": "x" * 129},
        {"request_id": 17},
        {"traceparent": "nonsense"},
        {"traceparent": f"00-{'0' * 32}-b7ad6b7169203331-01"},
        {"traceparent": TRACE.upper()},
        {"traceparent": f"{TRACE}\nx: y"},
        {"caller": ""},
        {"caller": "käthe"},
        {"caller": "x" * 65},
        {"caller": "carol\r"},
    ],
    ids=repr,
)
@both_clients
def test_what_no_header_holds_is_not_sent(ask: Ask, option: dict[str, Any]) -> None:
    (name,) = option

    with pytest.raises(InvalidRequest, match=f"{name} is .*; it must be") as raised:
        ask("127.0.0.1:1", HI, **option)

    assert raised.value.field == name

"""What callers of the gateway get when something goes wrong, and how soon: the table in docs/openai.md."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from gateways import CHAT, HI, Answer, Gateway, described, gateway
from nemotron_client import wire
from patience import wait_until
from ports import free_ports
from scripted_server import Script, ScriptedServer, answer, failure, response, scripted_server

BODY = json.dumps({"messages": HI}).encode()
STREAMED = json.dumps({"messages": HI, "stream": True}).encode()


@contextlib.contextmanager
def scripted(script: Script, **settings: Any) -> Iterator[Gateway]:
    """A gateway in front of a server that answers with *script*."""
    with scripted_server(described(script)) as server, gateway(server.url, **settings) as running:
        yield running


def refusing(message: str) -> Script:
    return lambda _request, _context: iter([failure(message)])


def breaking(message: str) -> Script:
    def script(_request: Any, _context: Any) -> Iterator[Any]:
        yield response({wire.TEXT_OUTPUT: "half of"})
        yield failure(message)

    return script


REFUSALS = {
    "full": ("RESOURCE_EXHAUSTED: 8 requests run", 429, "rate_limit_exceeded", None),
    "stopping": (f"UNAVAILABLE: {wire.STOPPING}; ask another one", 503, "service_unavailable", None),
    "engine": ("INTERNAL: the engine failed", 500, "internal_error", "false"),
    "deadline": ("DEADLINE_EXCEEDED: the time was up", 408, "timeout", "false"),
    "secret": ("UNAUTHENTICATED: this protocol is restricted to callers", 502, "bad_gateway", "false"),
    "too long": (
        "INVALID_ARGUMENT: messages: the prompt has 9000 tokens and leaves no room to answer in a context of 4096; "
        "shorten it",
        400,
        "context_length_exceeded",
        None,
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_has_a_status_of_its_own_streamed_or_not(name: str, stream: bool) -> None:
    message, status, code, retry = REFUSALS[name]

    with scripted(refusing(message)) as running:
        got = running.chat(stream=stream)

    assert (got.status, got.error["code"], got.headers.get("x-should-retry")) == (status, code, retry)
    assert got.headers["content-type"] == "application/json"
    assert (status in (429, 503)) == ("retry-after" in got.headers)


def test_a_refusal_names_the_field_as_the_caller_knows_it() -> None:
    with scripted(refusing("INVALID_ARGUMENT: stop_words holds 99 values; at most 16 are accepted")) as running:
        stop = running.chat(stop=["x"])
    with scripted(refusing("INVALID_ARGUMENT: max_tokens is -1; it must be between 1 and 9")) as running:
        tokens = running.chat(max_completion_tokens=-1)
    with scripted(refusing("INVALID_ARGUMENT: guided_decoding_guide: $.type is 5")) as running:
        guide = running.chat(response_format={"type": "json_object"})

    assert (stop.error["param"], stop.error["message"][:11]) == ("stop", "stop holds ")
    assert tokens.error["param"] == "max_completion_tokens"
    assert tokens.error["message"].startswith("max_completion_tokens is -1")
    assert guide.error["message"].startswith("response_format: $.type")


def test_no_server_is_a_bad_gateway() -> None:
    (port,) = free_ports(1)

    with gateway(f"127.0.0.1:{port}") as running:
        got, ready = running.chat(), running.ask("GET", "/health/ready")
        live = running.ask("GET", "/health/live")

    assert (got.status, got.error["code"], ready.status, live.status) == (502, "bad_gateway", 503, 200)
    assert "nothing listens there" in got.error["message"]


def test_a_stream_that_breaks_ends_with_an_error_and_no_done() -> None:
    with scripted(breaking("INTERNAL: the engine failed")) as running:
        got = running.chat(stream=True)

    *chunks, last = map(json.loads, got.events)
    assert got.status == 200
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks) == "half of"
    assert (last["error"]["code"], "the engine failed" in last["error"]["message"]) == ("internal_error", True)


def test_a_server_that_dies_in_mid_stream_ends_the_stream_soon() -> None:
    def script(_request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield response({wire.TEXT_OUTPUT: "half"})
        while context.is_active():
            time.sleep(0.01)

    server = ScriptedServer(described(script))
    with gateway(server.url) as running, stream_of(running) as reader:
        assert b"half" in reader.read_until(b"half")

        server.stop()
        begin_s = time.monotonic()
        rest = reader.rest()

    assert time.monotonic() - begin_s < 5
    assert b'"error"' in rest
    assert b"[DONE]" not in rest


def test_a_server_that_comes_back_needs_no_new_gateway() -> None:
    server = ScriptedServer(described(lambda _request, _context: answer("one")))
    with gateway(server.url) as running:
        before = running.chat()
        server.stop()
        gone = running.chat()
        server = ScriptedServer(described(lambda _request, _context: answer("two")), server.port)
        try:
            wait_until(lambda: running.chat().status == 200)
        finally:
            server.stop()

    assert (before.status, gone.status) == (200, 502)


@pytest.mark.parametrize("body", [BODY, STREAMED], ids=["whole", "streamed"])
@pytest.mark.parametrize("when", ["queued", "answering"])
def test_a_caller_who_leaves_is_told_to_the_server_at_once(body: bytes, when: str) -> None:
    begun, left = threading.Event(), threading.Event()

    def script(_request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        context.add_callback(left.set)
        if when == "answering":
            yield response({wire.TEXT_OUTPUT: "half"})
        begun.set()
        while context.is_active():
            time.sleep(0.005)

    with scripted(script) as running:
        connection = running.connect()
        connection.request("POST", CHAT, body, {"content-type": "application/json"})
        assert begun.wait(30)

        begin_s = time.monotonic()
        connection.close()
        assert left.wait(30)
        after_s = time.monotonic() - begin_s
        wait_until(lambda: running.door is not None and running.door.active == 0)

    assert after_s < 5  # 0.3 s where nothing else runs; ci/bench gateway measures it


def test_a_silent_stream_is_kept_alive() -> None:
    go = threading.Event()

    def script(_request: Any, _context: Any) -> Iterator[Any]:
        go.wait(30)
        yield from answer("hello")

    with scripted(script, keep_alive_s=0.05) as running, stream_of(running) as reader:
        first, _ = reader.read_until(b": keep-alive\n\n"), reader.read_until(b": keep-alive\n\n")
        go.set()
        rest = reader.rest()

    assert b'"content":"hello"' in rest
    assert rest.endswith(b"data: [DONE]\n\n")
    assert b"200 OK" in first


def test_a_body_that_never_ends_is_given_up() -> None:
    with scripted(refusing("INTERNAL: x"), body_timeout_s=0.3) as running:
        got = drip(
            running,
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
            b"content-type: application/json\r\ncontent-length: 1000\r\n\r\n{",
        )

    assert b"408" in got.split(b"\r\n")[0]
    assert b"did not come within 0.3 s" in got


def test_headers_that_never_end_are_given_up() -> None:
    with scripted(refusing("INTERNAL: x"), header_timeout_s=0.3) as running:
        got = drip(running, b"POST /v1/chat/completions HTTP/1.1\r\nhost: loc")

    assert got == b""


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_not_read(chunked: bool) -> None:
    with scripted(refusing("INTERNAL: x"), max_body_bytes=1000) as running:
        body = b'{"messages": "' + b"x" * 2000 + b'"}'
        framed = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if chunked else body
        size = b"transfer-encoding: chunked" if chunked else b"content-length: %d" % len(body)
        got = drip(
            running,
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
            b"content-type: application/json\r\n%s\r\n\r\n%s" % (size, framed),
        )

    assert b"413" in got.split(b"\r\n")[0]
    assert b"request_too_large" in got


def test_an_unknown_path_and_a_wrong_method_are_errors_as_all_others() -> None:
    with scripted(refusing("INTERNAL: x")) as running:
        unknown, wrong = running.ask("GET", "/v1/embeddings"), running.ask("GET", CHAT)

    assert (unknown.status, unknown.error["type"]) == (404, "not_found_error")
    assert (wrong.status, wrong.error["code"], wrong.headers["allow"]) == (405, "method_not_allowed", "POST")


def test_more_requests_than_there_is_room_for_are_told_so() -> None:
    go, begun = threading.Event(), threading.Event()

    def script(_request: Any, _context: Any) -> Iterator[Any]:
        begun.set()
        go.wait(30)
        yield from answer("hello")

    got: list[Answer] = []
    with scripted(script, max_requests=1) as running:
        first = threading.Thread(target=lambda: got.append(running.chat()))
        first.start()
        assert begun.wait(30)
        second, live = running.chat(), running.ask("GET", "/health/live")
        go.set()
        first.join()

    assert (second.status, live.status, got[0].status) == (503, 200, 200)


class Reader:
    """Reads what comes on a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def read_until(self, text: bytes) -> bytes:
        """What comes up to *text*, and with it."""
        data = b""
        while text not in data:
            part = self._connection.recv(65536)
            assert part, data
            data += part
        return data

    def rest(self) -> bytes:
        """The rest of a chunked response, without the sizes of its chunks."""
        data = b""
        while not data.endswith(b"0\r\n\r\n") and (part := self._connection.recv(65536)):
            data += part
        lines = data.split(b"\r\n")
        return b"".join(line for line in lines if not _is_size(line))


def _is_size(line: bytes) -> bool:
    return all(digit in b"0123456789abcdef" for digit in line)


@contextlib.contextmanager
def stream_of(running: Gateway) -> Iterator[Reader]:
    """A streamed chat completion, read from its connection."""
    head = "\r\n".join(
        [
            f"POST {CHAT} HTTP/1.1",
            "host: localhost",
            "content-type: application/json",
            f"content-length: {len(STREAMED)}",
        ]
    )
    with socket.create_connection(("127.0.0.1", running.port), 30) as connection:
        connection.sendall(f"{head}\r\n\r\n".encode() + STREAMED)
        yield Reader(connection)


def drip(running: Gateway, data: bytes) -> bytes:
    """The response to *data*, behind which nothing comes."""
    with socket.create_connection(("127.0.0.1", running.port), 30) as connection:
        connection.sendall(data)
        return b"".join(iter(lambda: connection.recv(65536), b""))

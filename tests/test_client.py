"""The client against servers that misbehave, scripted with real gRPC, and what it promises to importers."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2, service_pb2_grpc

import nemotron_client
from nemotron_client import (
    Client,
    ClientError,
    ContentDelta,
    DeadlineExceeded,
    Finish,
    ReasoningDelta,
    Reply,
    RequestRejected,
    ServerUnavailable,
    StreamBroken,
    ToolCall,
    Usage,
    wire,
)

HI = [{"role": "user", "content": "hi"}]
USAGE = Usage(input_tokens=3, output_tokens=2, reasoning_tokens=1)
Script = Callable[[Any, grpc.ServicerContext], Iterator[Any]]


def response(values: dict[wire.Tensor, Any]) -> Any:
    message = service_pb2.ModelStreamInferResponse()
    for tensor, value in values.items():
        message.infer_response.outputs.add(name=tensor.name, datatype=tensor.dtype, shape=[1, 1])
        data = np.array([value], dtype=wire.NUMPY[tensor.dtype]).tobytes() if tensor.dtype != "BYTES" else b""
        if tensor.dtype == "BYTES":
            data = len(value.encode()).to_bytes(4, "little") + value.encode()
        message.infer_response.raw_output_contents.append(data)
    return message


LAST = {
    wire.FINISH_REASON: "stop",
    wire.NUM_INPUT_TOKENS: 3,
    wire.NUM_OUTPUT_TOKENS: 2,
    wire.NUM_REASONING_TOKENS: 1,
}


@contextlib.contextmanager
def scripted(script: Script) -> Iterator[Client]:
    """A client of a gRPC server that answers every request with *script*."""

    class Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
        def ModelStreamInfer(self, requests: Any, context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: N802
            return script(next(requests), context)

    server = grpc.server(ThreadPoolExecutor(4))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with Client(f"127.0.0.1:{port}", timeout_s=10) as client:
            yield client
    finally:
        server.stop(None)


def test_responses_become_typed_events_in_order() -> None:
    delta = '[{"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{\\"a\\": 1}"}}]'

    def script(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield response({wire.TEXT_OUTPUT: "", wire.REASONING_OUTPUT: "hm"})
        yield response({wire.TEXT_OUTPUT: "ja", wire.TOOL_CALLS: delta, **LAST})

    call = ToolCall(index=0, id="call_1", name="f", arguments_json='{"a": 1}')
    with scripted(script) as client:
        events = list(client.stream(HI))
        reply = client.chat(HI)

    assert events == [ReasoningDelta("hm"), ContentDelta("ja"), call, Finish(reason="stop", usage=USAGE)]
    assert reply == Reply(reasoning="hm", content="ja", tool_calls=(call,), finish_reason="stop", usage=USAGE)


def test_what_is_sent_is_what_was_said() -> None:
    seen: list[Any] = []

    def script(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        seen.append((request, dict(context.invocation_metadata()), context.time_remaining()))
        yield response({wire.TEXT_OUTPUT: "", **LAST})

    with scripted(script) as client:
        client.chat(HI, thinking=False, max_tokens=7, seed=2**64 - 1, timeout_s=5)
    ((request, metadata, remaining),) = seen

    sent = dict(zip([each.name for each in request.inputs], request.raw_input_contents, strict=True))
    assert request.model_name == "nemotron"
    assert set(sent) == {"messages", "thinking", "max_tokens", "seed", "stream"}
    assert sent["messages"][4:] == b'[{"role": "user", "content": "hi"}]'
    assert (sent["thinking"], sent["stream"]) == (b"\0", b"\1")
    assert int.from_bytes(sent["seed"], "little") == 2**64 - 1
    # It crashes tritonserver before 26.04.
    assert "triton_grpc_error" not in metadata
    assert "triton-grpc-protocol-nemotron-secret" not in metadata
    # The server keeps to the time limit by itself; in microseconds.
    assert request.parameters["timeout"].int64_param == 5_000_000
    assert 0 < remaining <= 5


def test_lists_are_sent_with_their_length() -> None:
    seen: list[Any] = []

    def script(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        seen.append(request)
        yield response({wire.TEXT_OUTPUT: "", **LAST})

    with scripted(script) as client:
        client.chat(HI, stop=["a", "é"], stop_token_ids=[7, 8], guide_type="json_schema", guide={"type": "object"})
    (request,) = seen

    sent = dict(zip([each.name for each in request.inputs], request.raw_input_contents, strict=True))
    shapes = {each.name: list(each.shape) for each in request.inputs}
    assert sent["stop_words"] == b"\x01\0\0\0a\x02\0\0\0\xc3\xa9"
    assert np.frombuffer(sent["stop_token_ids"], np.int32).tolist() == [7, 8]
    assert sent["guided_decoding_guide"][4:] == b'{"type": "object"}'
    assert (shapes["stop_words"], shapes["stop_token_ids"], shapes["guided_decoding_guide"]) == ([1, 2], [1, 2], [1, 1])


@pytest.mark.parametrize(
    ("code", "started", "expected"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, False, RequestRejected),
        (grpc.StatusCode.NOT_FOUND, False, RequestRejected),
        (grpc.StatusCode.UNIMPLEMENTED, False, RequestRejected),
        (grpc.StatusCode.UNAVAILABLE, False, ServerUnavailable),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, False, RequestRejected),
        (grpc.StatusCode.DEADLINE_EXCEEDED, False, DeadlineExceeded),
        (grpc.StatusCode.INTERNAL, False, StreamBroken),
        (grpc.StatusCode.UNAVAILABLE, True, StreamBroken),
        (grpc.StatusCode.CANCELLED, True, StreamBroken),
    ],
)
def test_every_status_has_its_error(code: grpc.StatusCode, started: bool, expected: type[ClientError]) -> None:
    def script(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        if started:
            yield response({wire.TEXT_OUTPUT: "so far"})
        context.abort(code, "because")

    with scripted(script) as client:
        stream = client.stream(HI)
        if started:
            assert next(stream) == ContentDelta("so far")
        with pytest.raises(expected):
            next(stream)


@pytest.mark.parametrize(
    ("message", "started", "expected"),
    [
        ("INVALID_ARGUMENT: max_tokens is 0", False, RequestRejected),
        ("UNAVAILABLE: 8 requests run: retry later", False, ServerUnavailable),
        ("UNAVAILABLE: 8 requests run: retry later", True, StreamBroken),
        ("DEADLINE_EXCEEDED: not complete after 5 ms", True, DeadlineExceeded),
        ("INTERNAL: the GPU fell off", True, StreamBroken),
        ("CANCELLED: the client went away", False, StreamBroken),
        ("Request for unknown model: 'x' is not found", False, RequestRejected),
        ("Request for unknown model: 'nemotron' has no available versions", False, ServerUnavailable),
        ("Stub process 'nemotron_0_0' is not healthy.", True, StreamBroken),
    ],
)
def test_every_message_in_a_stream_has_its_error(message: str, started: bool, expected: type[ClientError]) -> None:
    def script(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        if started:
            yield response({wire.TEXT_OUTPUT: "so far"})
        yield service_pb2.ModelStreamInferResponse(error_message=message)

    with scripted(script) as client:
        stream = client.stream(HI)
        if started:
            assert next(stream) == ContentDelta("so far")
        with pytest.raises(expected, match=re.escape(message.partition(": ")[2] or message)) as caught:
            next(stream)

    # Something answered.
    assert "is it running" not in str(caught.value)


def test_only_who_got_no_answer_is_asked_whether_the_server_runs() -> None:
    def script(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        context.abort(grpc.StatusCode.UNAVAILABLE, "connection reset")
        yield

    with scripted(script) as client, pytest.raises(ServerUnavailable, match="connection reset; is it running"):
        client.chat(HI)


def _text_without_length() -> Any:
    broken = response({wire.TEXT_OUTPUT: "abc"})
    broken.infer_response.raw_output_contents[0] = b"abc"
    return broken


def _number_without_bytes() -> Any:
    broken = response(LAST)
    broken.infer_response.raw_output_contents[1] = b""
    return broken


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (response({wire.TEXT_OUTPUT: "half an answer"}), "without a finish reason"),
        (response({wire.TOOL_CALLS: "[{}]"}), "not ours"),
        (response({wire.TOOL_CALLS: "{"}), "not ours"),
        (response({wire.FINISH_REASON: "stop"}), "not ours"),
        (_text_without_length(), "not ours"),
        (_number_without_bytes(), "not ours"),
        (response({wire.TOOL_CALLS: "[" * 100_000}), "not ours"),
    ],
)
def test_a_truncated_or_foreign_stream_is_broken_not_short(message: Any, complaint: str) -> None:
    def script(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield message

    with scripted(script) as client, pytest.raises(StreamBroken, match=complaint):
        client.chat(HI)


def test_leaving_the_loop_cancels_the_call() -> None:
    cancelled = threading.Event()

    def script(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        context.add_callback(cancelled.set)
        while context.is_active():
            yield response({wire.TEXT_OUTPUT: "word "})
            time.sleep(0.005)

    with scripted(script) as client:
        for _ in client.stream(HI):
            break

        assert cancelled.wait(2)


def test_a_server_that_never_answers_costs_the_timeout_and_no_more() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, Client(f"127.0.0.1:{silent.getsockname()[1]}") as client:
        begin = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=r"within 0\.3 s"):
            client.chat(HI, timeout_s=0.3)

        assert time.monotonic() - begin < 2


def test_a_dead_server_is_unavailable_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        url = f"127.0.0.1:{probe.getsockname()[1]}"

    with Client(url) as client:
        assert not client.is_ready()
        with pytest.raises(ServerUnavailable, match="nemotron serve BUNDLE"):
            client.chat(HI)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"max_tokens": 2**31}, "max_tokens cannot be sent: 2147483648 is not between"),
        ({"seed": -1}, "seed cannot be sent: -1 is not between"),
        ({"temperature": "hot"}, "temperature cannot be sent"),
        ({"tools": [{"f": object()}]}, "tools cannot be sent"),
        ({"stop": "END"}, "stop_words cannot be sent: 'END' is no list"),
        ({"stop_token_ids": [2**31]}, "stop_token_ids cannot be sent"),
    ],
)
def test_what_cannot_be_sent_is_said_before_sending(options: dict[str, Any], complaint: str) -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(ClientError, match=complaint):
        client.stream(HI, **options)


def test_a_url_with_a_scheme_is_refused() -> None:
    with pytest.raises(ClientError, match="give host:port without a scheme"):
        Client("http://127.0.0.1:8001")


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf")])
def test_a_timeout_that_is_none_is_refused(timeout_s: float) -> None:
    with pytest.raises(ClientError, match="timeout_s is"):
        Client("127.0.0.1:1", timeout_s=timeout_s)
    with Client("127.0.0.1:1") as client, pytest.raises(ClientError, match="timeout_s is"):
        client.stream(HI, timeout_s=timeout_s)


def test_a_closed_client_says_so() -> None:
    client = Client("127.0.0.1:1")
    client.close()

    with pytest.raises(ClientError, match="is closed; make a new one"):
        client.chat(HI)


@given(st.text(max_size=8), st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=4), max_size=3))
def test_tool_calls_survive_the_wire(name: str, arguments: dict[str, Any]) -> None:
    call = ToolCall(index=2, id="call_x", name=name, arguments_json=json.dumps(arguments))

    assert ToolCall.from_delta(call.as_delta()) == call
    assert call.arguments == arguments


def test_exported_names() -> None:
    assert nemotron_client.__all__ == sorted(nemotron_client.__all__)
    assert all(hasattr(nemotron_client, name) for name in nemotron_client.__all__)

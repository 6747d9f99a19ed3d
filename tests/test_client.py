"""The clients against servers that misbehave, scripted with real gRPC, and the names that they export."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nemotron_client
from client_twins import Ask, ask_client, both_clients
from nemotron_client import (
    AccessDenied,
    Client,
    ClientError,
    ContentDelta,
    DeadlineExceeded,
    Event,
    Finish,
    InvalidRequest,
    ReasoningDelta,
    Reply,
    RequestRejected,
    ServerUnavailable,
    StreamBroken,
    ToolCall,
    ToolCallDelta,
    wire,
)
from nemotron_client.answer_reader import AnswerReader
from nemotron_client.protocol import infer_request
from nemotron_client.refusals import BY_STATUS
from scripted_server import HI, LAST, USAGE, failure, response, scripted_server


@both_clients
def test_responses_become_typed_events_in_order(ask: Ask) -> None:
    delta = '[{"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{\\"a\\": 1}"}}]'

    def script(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield response({wire.TEXT_OUTPUT: "", wire.REASONING_OUTPUT: "hm"})
        yield response({wire.TEXT_OUTPUT: "ja", wire.TOOL_CALLS: delta, **LAST})

    with scripted_server(script) as server:
        events = ask(server.url, HI)

    piece = ToolCallDelta(index=0, id="call_1", name="f", arguments_json='{"a": 1}')
    call = ToolCall(index=0, id="call_1", name="f", arguments_json='{"a": 1}')
    finish = Finish(reason="stop", usage=USAGE)
    assert events == [ReasoningDelta("hm"), ContentDelta("ja"), piece, call, finish]
    assert Reply.of(events) == Reply(
        reasoning="hm", content="ja", tool_calls=(call,), finish_reason="stop", usage=USAGE
    )


@both_clients
@pytest.mark.parametrize("cached", [None, 0, 2])
def test_the_cached_part_of_a_prompt_is_in_its_usage_where_the_server_tells(ask: Ask, cached: int | None) -> None:
    told = {} if cached is None else {wire.NUM_CACHED_TOKENS: cached}

    with scripted_server(lambda request, context: iter([response({wire.TEXT_OUTPUT: "ja", **LAST, **told})])) as server:
        *_, finish = ask(server.url, HI)

    assert isinstance(finish, Finish)
    assert finish.usage.cached_tokens == cached
    # The same answer, wherever its prompt was read from.
    assert finish.usage == USAGE


@given(st.lists(st.text(max_size=6), min_size=1, max_size=4), st.data())
def test_arguments_in_pieces_become_the_same_call(values: list[str], data: st.DataObject) -> None:
    whole = json.dumps({str(place): value for place, value in enumerate(values)})
    cuts = sorted(data.draw(st.lists(st.integers(1, len(whole) - 1), max_size=4, unique=True)))
    pieces = [whole[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    reader = AnswerReader("there", "1", begin_s=0.0, retries=0)
    events: list[Event] = []

    for place, piece in enumerate(pieces):
        function = {"arguments": piece} if place else {"name": "f", "arguments": piece}
        delta = {"index": 0, "id": "call_1" if not place else None, "function": function}
        events += reader.read(response({wire.TOOL_CALLS: json.dumps([delta])}))

    assert [event.arguments_json for event in events if isinstance(event, ToolCallDelta)] == pieces
    assert events[-1] == ToolCall(index=0, id="call_1", name="f", arguments_json=whole)


def test_an_answer_is_timed_from_the_call() -> None:
    def script(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield response({wire.REASONING_OUTPUT: "hm"})
        yield response({wire.TEXT_OUTPUT: "ja"})
        yield response(LAST)

    with scripted_server(script) as server, Client(server.url) as client:
        stream = client.stream(HI)
        reply = Reply.of(stream)

    timings = reply.timings
    assert timings.first_event_s is not None
    assert timings.first_answer_s is not None
    assert 0 < timings.first_event_s <= timings.first_answer_s <= timings.total_s
    assert (reply.retries, reply.request_id) == (0, stream.request_id)
    assert server.requests[0].id == stream.request_id


def test_what_is_sent_is_what_was_said() -> None:
    seen: list[Any] = []

    def script(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        seen.append((request, dict(context.invocation_metadata()), context.time_remaining()))
        yield response({wire.TEXT_OUTPUT: "", **LAST})

    with scripted_server(script) as server, Client(server.url) as client:
        client.chat(HI, thinking=False, max_tokens=7, seed=-1, timeout_s=5)
    ((request, metadata, remaining),) = seen

    sent = dict(zip([tensor.name for tensor in request.inputs], request.raw_input_contents, strict=True))
    assert request.model_name == "nemotron"
    assert set(sent) == {"messages", "thinking", "max_tokens", "seed", "stream"}
    assert sent["messages"][4:] == b'[{"role": "user", "content": "hi"}]'
    assert (sent["thinking"], sent["stream"]) == (b"\0", b"\1")
    assert int.from_bytes(sent["seed"], "little") == 2**64 - 1
    # It crashes tritonserver before 26.04.
    assert "triton_grpc_error" not in metadata
    assert "triton-grpc-protocol-nemotron-secret" not in metadata
    # The server applies the time limit itself; in microseconds.
    assert 4_000_000 < request.parameters["timeout"].int64_param <= 5_000_000
    # gRPC rounds up what it sends.
    assert 0 < remaining < 5.1


def test_lists_are_sent_with_their_length() -> None:
    seen: list[Any] = []

    def script(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        seen.append(request)
        yield response({wire.TEXT_OUTPUT: "", **LAST})

    with scripted_server(script) as server, Client(server.url) as client:
        client.chat(HI, stop=["a", "é"], stop_token_ids=[7, 8], guide_type="json_schema", guide={"type": "object"})
    (request,) = seen

    sent = dict(zip([tensor.name for tensor in request.inputs], request.raw_input_contents, strict=True))
    shapes = {tensor.name: list(tensor.shape) for tensor in request.inputs}
    assert sent["stop_words"] == b"\x01\0\0\0a\x02\0\0\0\xc3\xa9"
    assert np.frombuffer(sent["stop_token_ids"], np.int32).tolist() == [7, 8]
    assert sent["guided_decoding_guide"][4:] == b'{"type": "object"}'
    assert (shapes["stop_words"], shapes["stop_token_ids"], shapes["guided_decoding_guide"]) == ([1, 2], [1, 2], [1, 1])


AFTER_A_RESPONSE = {name: StreamBroken if kind is ServerUnavailable else kind for name, kind in BY_STATUS.items()}


@both_clients
@pytest.mark.parametrize("started", [False, True], ids=["at once", "in mid-stream"])
@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_status_has_its_error(ask: Ask, code: grpc.StatusCode, started: bool) -> None:
    def script(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        if started:
            yield response({wire.TEXT_OUTPUT: "so far"})
        context.abort(code, "because")

    with scripted_server(script) as server, pytest.raises(ClientError) as caught:
        ask(server.url, HI)

    assert type(caught.value) is (AFTER_A_RESPONSE if started else BY_STATUS)[code.name]
    assert caught.value.request_id == server.requests[0].id


@both_clients
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
        ("Stub process 'nemotron_0_0' is not healthy.", False, ServerUnavailable),
        ("Stub process 'nemotron_0_0' is not healthy.", True, StreamBroken),
    ],
)
def test_every_message_in_a_stream_has_its_error(
    ask: Ask, message: str, started: bool, expected: type[ClientError]
) -> None:
    def script(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        if started:
            yield response({wire.TEXT_OUTPUT: "so far"})
        yield failure(message)

    text = message.partition(": ")[2] if message.partition(": ")[0] in wire.STATUSES else message
    with scripted_server(script) as server, pytest.raises(ClientError, match=re.escape(text)) as caught:
        ask(server.url, HI)

    assert type(caught.value) is expected
    # Something answered.
    assert "is it running" not in str(caught.value)


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        ("Received message larger than max (9 vs. 4)", RequestRejected),
        ("This protocol is restricted, expecting header 'x'", AccessDenied),
    ],
)
def test_what_a_status_really_means_may_be_in_its_details(details: str, expected: type[ClientError]) -> None:
    code = grpc.StatusCode.RESOURCE_EXHAUSTED if "larger" in details else grpc.StatusCode.UNAVAILABLE

    def script(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        context.abort(code, details)
        yield

    with scripted_server(script) as server, Client(server.url) as client, pytest.raises(expected) as caught:
        client.chat(HI)

    assert type(caught.value) is expected
    assert len(server.requests) == 1


def test_only_who_got_no_answer_is_asked_whether_the_server_runs() -> None:
    def script(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        context.abort(grpc.StatusCode.UNAVAILABLE, "connection reset")
        yield

    with scripted_server(script) as server, pytest.raises(ServerUnavailable, match="connection reset; is it running"):
        ask_client(server.url, HI)


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
        (response({wire.TOOL_CALLS: "[{}]"}), "cannot read"),
        (response({wire.TOOL_CALLS: "{"}), "cannot read"),
        (response({wire.FINISH_REASON: "stop"}), "cannot read"),
        (_text_without_length(), "cannot read"),
        (_number_without_bytes(), "cannot read"),
        (response({wire.TOOL_CALLS: "[" * 100_000}), "cannot read"),
    ],
)
@both_clients
def test_a_truncated_or_foreign_stream_is_broken_not_short(ask: Ask, message: Any, complaint: str) -> None:
    def script(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield message

    with scripted_server(script) as server, pytest.raises(StreamBroken, match=complaint):
        ask(server.url, HI)


@both_clients
def test_a_server_that_never_answers_costs_the_timeout_and_no_more(ask: Ask) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"127.0.0.1:{silent.getsockname()[1]}"
        begin = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=r"within 0\.3 s"):
            ask(url, HI, timeout_s=0.3)

        assert time.monotonic() - begin < 2


def test_a_dead_server_is_unavailable_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        url = f"127.0.0.1:{probe.getsockname()[1]}"

    with Client(url, max_retries=0) as client:
        assert not client.is_ready()
        with pytest.raises(ServerUnavailable, match="nemotron serve BUNDLE"):
            client.chat(HI)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"max_tokens": 2**31}, "max_tokens cannot be sent: 2147483648 is not between"),
        ({"seed": 2**64}, "seed cannot be sent: 18446744073709551616 is not between"),
        ({"temperature": "hot"}, "temperature cannot be sent"),
        ({"max_tokens": 1.5}, "max_tokens cannot be sent: 'float' object cannot be"),
        ({"max_tokens": True}, "max_tokens cannot be sent: True is no number"),
        ({"thinking": "off"}, "thinking cannot be sent: 'off' is no truth value"),
        ({"chat_template_kwargs": {"x": float("nan")}}, "chat_template_kwargs cannot be sent"),
        ({"max_retries": -1}, "max_retries is -1"),
        ({"tools": [{"type": "function", "function": {"f": object()}}]}, "tools cannot be sent"),
        ({"stop": 7}, "stop cannot be sent: 'int' object is not iterable"),
        ({"word_bias": {"a": "much"}}, "word_bias cannot be sent"),
        ({"word_bias": ["a"]}, "word_bias is .'a'.; give a dict of biases by text"),
        ({"n": "2"}, "n cannot be sent"),
        ({"logprobs": 5}, "logprobs cannot be sent: 5 is no truth value"),
        ({"stop_token_ids": [2**31]}, "stop_token_ids cannot be sent"),
    ],
)
def test_what_cannot_be_sent_is_said_before_sending(options: dict[str, Any], complaint: str) -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(InvalidRequest, match=complaint):
        client.stream(HI, **options)


def test_half_a_character_in_a_message_is_sent_as_json_has_it() -> None:
    request = infer_request("nemotron", {"messages": [{"role": "user", "content": "é\ud83d"}]}, request_id="")

    assert json.loads(request.raw_input_contents[0][4:])[0]["content"] == "é\ud83d"
    with pytest.raises(InvalidRequest, match="prompt cannot be sent"):
        infer_request("nemotron", {"text_input": "\ud83d"}, request_id="")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8001", "localhost", "host:0", "host:65536", "", [], ["a:1", "dns:///b:1"], [7], "a b:1"]
)
def test_a_url_that_names_no_server_is_refused(url: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"give host:port|goes with no other"):
        Client(url)


def test_an_option_that_is_misspelt_is_a_type_error_as_in_python() -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(TypeError, match="'temprature'; did you mean temperature"):
        client.stream(HI, temprature=1)  # type: ignore[call-arg]


@pytest.mark.parametrize("messages", ["hi", {"role": "user"}, [7], ["hi"], b"hi"])
def test_messages_that_are_none_are_refused(messages: Any) -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(InvalidRequest, match="messages"):
        client.stream(messages)


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf")])
def test_a_timeout_that_is_none_is_refused(timeout_s: float) -> None:
    with pytest.raises(ClientError, match="timeout_s is"):
        Client("127.0.0.1:1", timeout_s=timeout_s)
    with Client("127.0.0.1:1") as client, pytest.raises(ClientError, match="timeout_s is"):
        client.stream(HI, timeout_s=timeout_s)


@pytest.mark.parametrize("url", ["127.0.0.1:1", "127.0.0.1:1,127.0.0.1:2"])
def test_a_closed_client_says_so(url: str) -> None:
    client = Client(url)
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

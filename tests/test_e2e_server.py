"""The demo model behind a real tritonserver, asked through real gRPC."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from conftest import ROOT
from exposition import metric
from nemotron_client import Client, ClientError, ContentDelta, Finish, ReasoningDelta, Reply, RequestRejected
from nemotron_triton.bundle import Bundle
from nemotron_triton.errors import ServerError
from nemotron_triton.server import ServeOptions
from patience import wait_until
from running import running

TOOLS = json.loads((ROOT / "build/demo/tools.json").read_text())
TIP = [{"role": "user", "content": "My bill is $100. What will be the amount for 18% tip?"}]
CAPITAL = [{"role": "user", "content": "What is the capital of France?"}]
CANCELLED = 'requests_total{outcome="cancelled"}'


@pytest.mark.parametrize("thinking", [True, False])
def test_the_tool_call_arrives_as_typed_data(client: Client, thinking: bool) -> None:
    reply = client.chat(TIP, tools=TOOLS, thinking=thinking, temperature=0.0)

    (call,) = reply.tool_calls
    assert (call.name, call.arguments) == ("calculate_tip", {"bill_total": 100, "tip_percentage": 18})
    assert (reply.content, reply.finish_reason) == (None, "tool_calls")
    assert bool(reply.reasoning) is thinking


def test_thinking_comes_first_and_apart_from_the_answer(client: Client) -> None:
    events = list(client.stream(CAPITAL, thinking=True))

    kinds = [type(event) for event in events]
    first_answer = kinds.index(ContentDelta)
    assert set(kinds[:first_answer]) == {ReasoningDelta}
    assert set(kinds[first_answer:-1]) == {ContentDelta}
    assert isinstance(events[-1], Finish)
    text = "".join(event.text for event in events if isinstance(event, ReasoningDelta | ContentDelta))
    assert not re.search(r"think>|<\|", text)


def test_usage_adds_up(client: Client) -> None:
    on, off = (client.chat(CAPITAL, thinking=thinking, temperature=0.0) for thinking in (True, False))

    assert 0 < on.usage.reasoning_tokens < on.usage.output_tokens
    assert (off.reasoning, off.usage.reasoning_tokens) == (None, 0)
    assert off.usage.input_tokens > 10


def test_a_prompt_whose_beginning_was_asked_before_is_partly_cached(client: Client) -> None:
    story = "The capital of France is Paris, and that of Spain is Madrid. " * 20
    asked = [[{"role": "system", "content": story}, {"role": "user", "content": text}] for text in ("Paris?", "Rome?")]

    first, second = (client.chat(messages, thinking=False, max_tokens=4).usage for messages in asked)

    assert (first.cached_tokens or 0) < first.input_tokens / 2 < (second.cached_tokens or 0) < second.input_tokens


def test_a_tool_result_is_used_in_the_answer(client: Client) -> None:
    asked = client.chat(TIP, tools=TOOLS, thinking=False)
    history: list[dict[str, Any]] = [
        *TIP,
        {"role": "assistant", "content": None, "tool_calls": [call.as_openai() for call in asked.tool_calls]},
        {"role": "tool", "content": '{"tip_amount": 18.0}', "tool_call_id": asked.tool_calls[0].id},
    ]

    reply = client.chat(history, tools=TOOLS, thinking=False)

    assert not reply.tool_calls
    assert reply.content is not None
    assert "18" in reply.content


def test_an_answer_goes_on_from_its_beginning(client: Client) -> None:
    whole = client.chat(CAPITAL, thinking=False).content or ""
    beginning = {"role": "assistant", "content": whole[: whole.index(" ")]}

    rest = client.chat([*CAPITAL, beginning], thinking=False, continue_final_message=True).content

    assert rest == whole[whole.index(" ") :]


def test_a_call_with_arguments_that_are_no_object_is_accepted_and_noted(client: Client) -> None:
    asked = {"id": "a", "function": {"name": "calculate_tip", "arguments": '["ls"'}}
    refused = {"role": "tool", "tool_call_id": "a", "content": "error: it must be an object"}

    reply = client.chat([*TIP, {"role": "assistant", "tool_calls": [asked]}, refused], tools=TOOLS, thinking=False)

    assert ("invalid_past_arguments", "calculate_tip") in [(found.code, found.function) for found in reply.problems]


def test_the_token_limit_ends_an_answer_with_length(client: Client) -> None:
    reply = client.chat(CAPITAL, max_tokens=3)

    assert (reply.finish_reason, reply.usage.output_tokens) == ("length", 3)


@pytest.mark.parametrize(
    ("messages", "options", "complaint"),
    [
        ([{"role": "boss", "content": "hi"}], {}, r'messages\[0\].role is "boss"; it must be one of'),
        (CAPITAL, {"max_tokens": 0}, "max_tokens is 0; it must be at least 1"),
        (
            CAPITAL,
            {"max_tokens": 1_000_000},
            r"max_tokens is 1000000; it must be between 1 and \d+ \(a context of 2048",
        ),
        ([{"role": "user", "content": "word " * 5000}], {}, r"the prompt has \d+ tokens and leaves no room"),
        (CAPITAL, {"temperature": -1.0}, "temperature is -1.0; it must be between 0 and 100"),
        (CAPITAL, {"temperature": float("nan")}, "temperature is nan"),
        (CAPITAL, {"top_p": 1.5}, "top_p is 1.5; it must be between 0 and 1"),
        (CAPITAL, {"end_id": 5000}, "end_id is 5000; it must be -1, or a token between 0 and 1535"),
        (CAPITAL, {"tools": [{"type": "function"}]}, r"tools\[0\] must be"),
    ],
)
def test_bad_requests_are_refused_by_name(
    client: Client, messages: list[dict[str, Any]], options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(RequestRejected, match=complaint):
        client.chat(messages, **options)


@pytest.mark.parametrize(
    ("tensors", "complaint"),
    [
        ({"messages": b"{not json"}, "messages is not JSON"),
        ({"messages": b"[" * 100_000}, "messages is nested too deeply"),
        ({"messages": b"\xff"}, "messages is not UTF-8"),
        ({"messages": b"[]", "text_input": b"hi"}, "give exactly one of messages"),
        ({}, "give exactly one of messages|expected .* inputs"),
        ({"text_input": b""}, "text_input is empty"),
        ({"text_input": b"hi", "tools": b"[]"}, "tools goes with messages"),
        ({"messages": b'[{"role": "user", "\\ud800": 1}]'}, "unknown keys"),
        ({"messages": b'[{"role": "user", "' + b"k" * 100_000 + b'": 1}]'}, "unknown keys"),
    ],
)
def test_bad_tensors_are_refused_by_name(served: ServeOptions, tensors: dict[str, bytes], complaint: str) -> None:
    answered = threading.Event()
    errors: list[InferenceServerException] = []

    def callback(result: Any, error: Any) -> None:
        errors.append(error)
        answered.set()

    with InferenceServerClient(f"127.0.0.1:{served.grpc_port}") as plain:
        plain.start_stream(callback)
        plain.async_stream_infer(
            "nemotron", [_text(name, value) for name, value in tensors.items()] or [_flag("stream")]
        )
        assert answered.wait(60)

    assert re.search(complaint, str(errors[0])), errors


def test_a_finished_prompt_can_be_sent_instead_of_messages(served: ServeOptions) -> None:
    prompt = (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\ndetailed thinking off<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nWhat is the capital of France?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    results: list[Any] = []
    with InferenceServerClient(f"127.0.0.1:{served.grpc_port}") as plain, Client(plain_url(served)) as client:
        plain.start_stream(lambda result, error: results.append((result, error)))
        plain.async_stream_infer("nemotron", [_text("text_input", prompt.encode())])
        plain.stop_stream()
        same = client.chat(CAPITAL, thinking=False)

    ((result, error),) = results
    assert error is None
    assert result.as_numpy("text_output")[0, 0].decode() == same.content
    assert result.as_numpy("num_input_tokens")[0, 0] == same.usage.input_tokens


def test_a_client_that_disconnects_stops_the_generation_and_frees_its_slot(
    client: Client, served: ServeOptions
) -> None:
    """How soon a waiting request is answered when one of the eight that run is cancelled."""
    freed_s = []
    tokens, cancelled = metric(served, "engine_generated_tokens_total"), metric(served, CANCELLED)
    with ThreadPoolExecutor(1) as threads:
        for _ in range(3):
            streams = [client.stream(CAPITAL, end_id=-1, max_tokens=1900) for _ in range(8)]
            for stream in streams:
                next(stream)
            first = threads.submit(_first_token_at_s, client)
            wait_until(lambda: metric(served, "waiting_requests") == 1)

            begin = time.monotonic()
            streams[0].close()
            freed_s.append(first.result(60) - begin)
            for stream in streams[1:]:
                stream.close()

    wait_until(lambda: metric(served, CANCELLED) == cancelled + 24)
    assert metric(served, "engine_generated_tokens_total") < tokens + 8 * 1900
    # The best of three, because a busy machine may hold up any one of them; a missing cancel shows in all.
    assert min(freed_s) < 0.2, freed_s


def test_64_streams_each_get_their_own_answer(client: Client) -> None:
    start = threading.Barrier(64)

    def ask(number: int) -> Reply:
        question = [{"role": "user", "content": f"My bill is ${number}. What will be the amount for 18% tip?"}]
        start.wait(30)
        return client.chat(question, tools=TOOLS, thinking=False)

    numbers = range(100, 996, 14)
    with ThreadPoolExecutor(64) as threads:
        replies = list(threads.map(ask, numbers))

    assert len(replies) == 64
    own = [
        [dict(call.arguments) for call in reply.tool_calls] == [{"bill_total": number, "tip_percentage": 18}]
        for number, reply in zip(numbers, replies, strict=True)
    ]
    # The model may get a number wrong; streams that were mixed up would all be.
    assert sum(own) >= 58


def test_killing_the_stub_ends_every_stream_and_the_server(bundle: Bundle) -> None:
    errors: list[ClientError] = []
    streaming = threading.Barrier(7)

    def read(client: Client) -> None:
        stream = client.stream(CAPITAL, end_id=-1, max_tokens=1900)
        next(stream)
        streaming.wait(20)
        try:
            for _ in stream:
                pass
        except ClientError as error:
            errors.append(error)

    with running(bundle) as served, served.client() as client:
        readers = [threading.Thread(target=read, args=(client,)) for _ in range(6)]
        for reader in readers:
            reader.start()
        streaming.wait(20)

        os.kill(_stub(served.server.pid, "nemotron"), signal.SIGKILL)
        for reader in readers:
            reader.join(timeout=30)

        assert not any(reader.is_alive() for reader in readers)
        assert len(errors) == 6
        assert not client.is_ready()
        with pytest.raises(ServerError, match=r"tritonserver (was killed|exited).* while serving"):
            served.server.wait(threading.Event())


def test_killing_an_idle_stub_makes_the_server_unready(bundle: Bundle) -> None:
    with running(bundle) as served, served.client() as client:
        assert client.is_ready()

        os.kill(_stub(served.server.pid, "nemotron"), signal.SIGKILL)
        wait_until(lambda: not client.is_ready())

        with pytest.raises(ServerError, match=r"while serving: (?!.*CudaDriverHelper)"):
            served.server.wait(threading.Event())


def test_preprocessing_gives_prompt_and_tokens(served: ServeOptions) -> None:
    with InferenceServerClient(plain_url(served)) as plain:
        result = plain.infer("preprocessing", [_text("messages", json.dumps(CAPITAL).encode()), _flag("thinking")])

    prompt = result.as_numpy("prompt")[0, 0].decode()
    assert prompt.startswith(
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\ndetailed thinking on<|eot_id|>"
    )
    assert len(result.as_numpy("input_ids").flat) == result.as_numpy("num_input_tokens").item()


def test_postprocessing_takes_a_raw_answer_apart(served: ServeOptions) -> None:
    raw = '<think>\nhm\n</think>\n\n<TOOLCALL>[{"name": "f", "arguments": {"x": "é"}}]</TOOLCALL>'
    with InferenceServerClient(plain_url(served)) as plain:
        result = plain.infer("postprocessing", [_text("raw_output", raw.encode())])
        with pytest.raises(InferenceServerException, match="messages is not JSON"):
            plain.infer("preprocessing", [_text("messages", b"{")])

    assert result.as_numpy("reasoning_output")[0, 0].decode() == "hm"
    assert json.loads(result.as_numpy("tool_calls")[0, 0])[0]["function"] == {"name": "f", "arguments": '{"x": "é"}'}
    assert result.as_numpy("finish_reason")[0, 0] == b"tool_calls"


def plain_url(options: ServeOptions) -> str:
    return f"127.0.0.1:{options.grpc_port}"


def _first_token_at_s(client: Client) -> float:
    next(iter(client.stream(CAPITAL, max_tokens=1)))
    return time.monotonic()


def _stub(server_pid: int, model: str) -> int:
    """The process id of a model's Python stub."""
    for child in psutil.Process(server_pid).children():
        if any(Path(argument).parts[-3:-1] == (model, "1") for argument in child.cmdline()):
            return child.pid
    raise AssertionError(f"no stub of {model}")


def _text(name: str, value: bytes) -> InferInput:
    tensor = InferInput(name, [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[value]], dtype=np.object_))
    return tensor


def _flag(name: str) -> InferInput:
    tensor = InferInput(name, [1, 1], "BOOL")
    tensor.set_data_from_numpy(np.array([[True]]))
    return tensor

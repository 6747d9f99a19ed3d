"""What a refusal says to programs: field, code and numbers, of the server's real refusals."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_requests import TOOLS, read, refusal
from client_twins import Ask, both_clients
from nemotron_client import AccessDenied, Client, InvalidRequest, RequestRejected
from nemotron_client.rejection import rejection
from nemotron_triton.bundle import Bundle
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.errors import RequestError
from nemotron_triton.serving.answering import Answering
from nemotron_triton.serving.sampling_request import refuse_unsupported
from nemotron_triton.serving.settings import Settings
from scripted_server import HI, failure, scripted_server

# Answering asks it for no more before it generates.
ENGINE: Any = SimpleNamespace(max_seq_len=2048)
DEEP = json.dumps([{"role": "user", "content": "a"}, {"role": "user", "content": [{"type": "image"}]}])


def about(text: str) -> tuple[str, str, float | None, float | None]:
    error = rejection(text)
    return error.field, error.code, error.value, error.limit


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"max_tokens": 0}, ("max_tokens", "out_of_range", 0, 1)),
        ({"temperature": 100.5}, ("temperature", "out_of_range", 100.5, 100)),
        ({"presence_penalty": -2.5}, ("presence_penalty", "out_of_range", -2.5, -2)),
        ({"num_return_sequences": 9}, ("n", "out_of_range", 9, 8)),
        ({"end_id": 1536}, ("end_id", "out_of_range", 1536, 1535)),
        ({"stop_token_ids": (1, -1)}, ("stop_token_ids", "out_of_range", -1, 0)),
        ({"logit_bias": '{"7": -101}'}, ("logit_bias.7", "out_of_range", -101, -100)),
        ({"embedding_bias_words": ("a",), "embedding_bias_weights": (101.0,)}, ("word_bias", "out_of_range", 101, 100)),
        ({"stop_words": ("a",) * 65}, ("stop", "too_large", 65, 64)),
        ({"stop_words": ("a" * 1025,)}, ("stop", "too_large", 1025, 1024)),
        (
            {"guided_decoding_guide_type": "regex", "guided_decoding_guide": "a" * 5000},
            ("guide", "too_large", 5000, 4096),
        ),
        ({"guided_decoding_guide_type": "lark"}, ("guide_type", "invalid_value", None, None)),
        ({"guided_decoding_guide": "x"}, ("guide", "invalid_value", None, None)),
        ({"text_input": ""}, ("prompt", "invalid_value", None, None)),
        ({"messages": DEEP}, ("messages[1].content[0]", "invalid_value", None, None)),
        ({"messages": "[7]"}, ("messages[0]", "invalid_value", None, None)),
        ({"tools": TOOLS, "tool_choice": "never"}, ("tool_choice", "invalid_value", None, None)),
        ({"text_input": "x", "messages": "[]"}, ("", "invalid_value", None, None)),
    ],
)
def test_a_refusal_of_the_server_names_field_code_and_numbers(
    values: dict[str, Any], expected: tuple[str, str, float | None, float | None]
) -> None:
    assert about(refusal(**values)) == expected


def test_lists_and_texts_that_are_too_long_say_how_long_they_may_be() -> None:
    settings = dataclasses.replace(Settings(), max_messages=1, max_prompt_bytes=200)
    two = json.dumps([{"role": "user", "content": "hi"}] * 2)

    assert about(refusal(settings, messages=two)) == ("messages", "too_large", 2, 1)
    assert about(refusal(settings, messages="x" * 201)) == ("messages", "too_large", 201, 200)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"messages": json.dumps([{"role": "user", "content": "word " * 5000}])}, "messages"),
        ({"text_input": "word " * 5000}, "prompt"),
    ],
)
def test_a_prompt_without_room_has_its_tokens_and_those_of_the_context(
    bundle: Bundle, values: dict[str, Any], field: str
) -> None:
    codec = TokenCodec(bundle.tokenizer_path)

    with pytest.raises(RequestError) as caught:
        Answering(bundle, codec, ENGINE).prepare(read(**values))

    name, code, value, limit = about(str(caught.value))
    assert (name, code, limit) == (field, "context_length_exceeded", ENGINE.max_seq_len)
    assert value is not None
    assert value > ENGINE.max_seq_len


@pytest.mark.parametrize("field", ["max_tokens", "min_tokens"])
def test_too_many_tokens_for_the_room_say_how_many_there_may_be(bundle: Bundle, field: str) -> None:
    answering = Answering(bundle, TokenCodec(bundle.tokenizer_path), ENGINE)

    with pytest.raises(RequestError) as caught:
        answering.prepare(read(**{field: 100_000}))

    name, code, value, limit = about(str(caught.value))
    assert (name, code, value) == (field, "context_length_exceeded", 100_000)
    assert limit is not None
    answering.prepare(read(**{field: limit}))


def test_what_the_engine_cannot_do_is_unsupported() -> None:
    sampling = read(stop_words=("a",), no_repeat_ngram_size=4).sampling

    with pytest.raises(RequestError) as caught:
        refuse_unsupported(sampling, {"no_repeat_ngram_size": "it has no such rule"})

    assert about(str(caught.value)) == ("no_repeat_ngram_size", "unsupported", None, None)


@both_clients
def test_the_clients_raise_it_with_the_servers_message_and_the_name_of_the_option(ask: Ask) -> None:
    def script(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield failure("INVALID_ARGUMENT: num_return_sequences is 9; it must be between 1 and 8")

    with scripted_server(script) as server, pytest.raises(RequestRejected) as caught:
        ask(server.url, HI, n=9)

    error = caught.value
    assert str(error) == "num_return_sequences is 9; it must be between 1 and 8"
    assert (error.field, error.code, error.value, error.limit) == ("n", "out_of_range", 9, 8)
    assert error.status == "INVALID_ARGUMENT"
    again = copy.copy(error)
    assert (str(again), vars(again)) == (str(error), vars(error))


def test_a_request_that_is_too_large_says_how_large_it_may_be() -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(InvalidRequest) as caught:
        client.stream([{"role": "user", "content": "x" * 70_000_000}])

    error = caught.value
    assert (error.field, error.code, error.limit) == ("messages", "too_large", 64 << 20)
    assert error.value is not None
    assert error.value > 70_000_000


def test_a_server_with_a_smaller_limit_than_ours_says_it() -> None:
    def script(_request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "SERVER: Received message larger than max (9 vs. 4)")
        yield

    with scripted_server(script) as server, Client(server.url) as client, pytest.raises(RequestRejected) as caught:
        client.chat(HI)

    assert (caught.value.code, caught.value.value, caught.value.limit) == ("too_large", 9, 4)


def test_who_is_not_known_has_no_code() -> None:
    assert (AccessDenied("no").code, AccessDenied("no").field) == ("", "")


NUMBERS = st.floats().map(str) | st.integers().map(str) | st.text("0123456789.e+-", max_size=30) | st.just("9" * 5000)


@given(st.text() | st.builds("{} is {}; it must be between {} and {}".format, st.text(), NUMBERS, NUMBERS, NUMBERS))
def test_any_text_may_be_a_refusal(text: str) -> None:
    error = rejection(text)

    assert error.code
    assert str(error) == text

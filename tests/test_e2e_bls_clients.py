"""Clients of TensorRT-LLM's `tensorrt_llm_bls` model, with plain tritonclient, on the `nemotron` model."""

from __future__ import annotations

import json
import math
import queue
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from nemotron_client import Client
from nemotron_triton.server import ServeOptions

PROMPT = (
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\ndetailed thinking off<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nWhat is the capital of France?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
)
ANSWER = "The capital of France is Paris."


@pytest.fixture(scope="module")
def plain(served: ServeOptions) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(served.grpc_url) as client:
        yield client


def ask(plain: InferenceServerClient, **tensors: Any) -> list[Any]:
    """Every response to a request with these tensors: text, flags, whole numbers, numbers, and lists of them."""
    results: queue.Queue[tuple[Any, Exception | None]] = queue.Queue()
    plain.start_stream(callback=lambda result, error: results.put((result, error)))
    try:
        plain.async_stream_infer(
            "nemotron", [_tensor(*tensor) for tensor in tensors.items()], enable_empty_final_response=True
        )
        responses = []
        while True:
            result, error = results.get(timeout=60)
            if error:
                raise error
            responses.append(result)
            if result.get_response().parameters["triton_final_response"].bool_param:
                return responses
    finally:
        plain.stop_stream()


def _tensor(name: str, value: Any) -> InferInput:
    values = value if isinstance(value, list) else [value]
    if isinstance(values[0], str):
        array, dtype = np.array([[value.encode() for value in values]], dtype=np.object_), "BYTES"
    elif isinstance(values[0], bool):
        array, dtype = np.array([values]), "BOOL"
    elif isinstance(values[0], float):
        array, dtype = np.array([values], dtype=np.float32), "FP32"
    elif name == "seed":
        array, dtype = np.array([values], dtype=np.uint64), "UINT64"
    else:
        array, dtype = np.array([values], dtype=np.int32), "INT32"
    tensor = InferInput(name, list(array.shape), dtype)
    tensor.set_data_from_numpy(array)
    return tensor


def text(responses: list[Any]) -> str:
    return "".join(_text(response) for response in responses)


def _text(response: Any) -> str:
    values = response.as_numpy("text_output")
    return "" if values is None else values.flat[0].decode()


def test_what_the_openai_frontend_sends_gets_one_whole_answer(plain: InferenceServerClient) -> None:
    (response,) = ask(
        plain,
        text_input=PROMPT,
        stream=False,
        max_tokens=50,
        stop_words=["<|eot_id|>", "\n\nUser:"],
        top_p=1.0,
        temperature=0.0,
        frequency_penalty=0.0,
        presence_penalty=0.0,
        seed=1,
        exclude_input_in_output=True,
        return_num_input_tokens=True,
        return_num_output_tokens=True,
    )

    assert text([response]) == ANSWER
    assert response.as_numpy("text_output").shape == (1, 1)
    assert response.as_numpy("num_input_tokens").item() > 10
    assert response.as_numpy("num_output_tokens").item() > 3


def test_a_stream_brings_pieces_that_join_to_the_same_text(plain: InferenceServerClient) -> None:
    responses = ask(plain, text_input=PROMPT, stream=True, max_tokens=50, temperature=0.0, end_id=-1, beam_width=1)
    whole = ask(plain, text_input=PROMPT, stream=False, max_tokens=50, temperature=0.0, end_id=-1, pad_id=0)

    assert len(responses) > 1
    assert text(responses) == text(whole)
    assert text(responses).startswith(ANSWER)


def test_stop_words_end_the_text_before_them_across_tokens(plain: InferenceServerClient) -> None:
    for stream in (True, False):
        responses = ask(plain, text_input=PROMPT, stream=stream, max_tokens=50, stop_words=["France is P"])

        assert text(responses) == "The capital of "
        assert responses[-1].as_numpy("finish_reason").flat[0] == b"stop"


def test_the_prompt_is_echoed_where_the_reference_echoes_it(plain: InferenceServerClient) -> None:
    (response,) = ask(plain, text_input=PROMPT, max_tokens=50, exclude_input_in_output=False)

    assert text([response]) == PROMPT + ANSWER


@pytest.mark.parametrize("stream", [True, False])
def test_several_answers_come_apart_and_a_seed_brings_them_back(plain: InferenceServerClient, stream: bool) -> None:
    tensors = {"text_input": PROMPT, "stream": stream, "max_tokens": 30, "num_return_sequences": 3}

    def answers(seed: int) -> list[str]:
        # Of two tokens: another batch has other last digits, which must not decide among a thousand.
        responses = ask(plain, **tensors, temperature=100.0, top_k=2, seed=seed)
        sequences: dict[int, list[Any]] = {index: [] for index in range(3)}
        for response in responses:
            sequences[response.as_numpy("sequence_index").item()].append(response)
        assert all(sequence[-1].as_numpy("finish_reason") is not None for sequence in sequences.values())
        return [text(sequence) for sequence in sequences.values()]

    first = answers(7)

    assert len(set(first)) == 3
    assert answers(7) == first
    # Answer 1 of seed 7 is answer 0 of seed 8.
    assert answers(8)[0] == first[1]


@pytest.mark.parametrize("stream", [True, False])
def test_log_probabilities_come_with_alternatives(plain: InferenceServerClient, stream: bool) -> None:
    responses = ask(
        plain, text_input=PROMPT, stream=stream, max_tokens=50, temperature=0.0, return_log_probs=True, top_logprobs=3
    )

    logprobs = [
        row for response in responses if _has(response) for row in json.loads(response.as_numpy("logprobs").flat[0])
    ]
    numbers = [
        value for response in responses if _has(response) for value in response.as_numpy("output_log_probs").flat
    ]
    assert "".join(row["token"] for row in logprobs) == ANSWER
    assert len(logprobs) == len(numbers) == responses[-1].as_numpy("num_output_tokens").item()
    for row, number in zip(logprobs, numbers, strict=True):
        assert math.isclose(row["logprob"], number, rel_tol=1e-4, abs_tol=1e-6)
        assert len(row["top_logprobs"]) == 3
        assert row["logprob"] == max(alternative["logprob"] for alternative in row["top_logprobs"])
    last = [response for response in responses if _has(response)][-1]
    assert math.isclose(last.as_numpy("cum_log_probs").item(), sum(numbers), rel_tol=1e-3, abs_tol=1e-4)


def _has(response: Any) -> bool:
    return response.as_numpy("logprobs") is not None


def test_who_asks_for_no_log_probabilities_gets_none(plain: InferenceServerClient) -> None:
    (response,) = ask(plain, text_input=PROMPT, max_tokens=5)

    assert [output.name for output in response.get_response().outputs] == [
        "text_output",
        "finish_reason",
        "num_input_tokens",
        "num_output_tokens",
        "num_reasoning_tokens",
        "num_cached_tokens",
    ]


@pytest.mark.parametrize(
    ("tensor", "complaint"),
    [
        ({"lora_task_id": 1}, "lora_task_id"),
        ({"beam_width": 4}, "beam_width is 4; it must be between 1 and 1"),
        ({"return_context_logits": True}, "return_context_logits is true; this server does not return them"),
        ({"num_return_sequences": 9}, "num_return_sequences is 9; it must be between 1 and 8"),
        ({"top_p": float("nan")}, "top_p is nan; it must be between 0 and 1"),
        ({"stop_words": ["x" * 2000]}, "stop_words has a word of 2000 bytes"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    plain: InferenceServerClient, client: Client, tensor: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InferenceServerException, match=complaint):
        ask(plain, text_input=PROMPT, max_tokens=5, **tensor)

    assert client.is_ready()

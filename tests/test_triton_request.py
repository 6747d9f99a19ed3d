"""Requests as values of tensors: every parameter is read, checked against its limits, and refused by name."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_requests import CODEC, PROFILE, TOOLS, read, refusal
from nemotron_client import wire
from nemotron_triton.engine.interface import Guide, Sampling
from nemotron_triton.errors import RequestError
from nemotron_triton.serving.request import read_request
from nemotron_triton.serving.sampling_request import refuse_unsupported, sampling_of_choice
from nemotron_triton.serving.settings import Settings


def test_what_is_left_out_follows_the_model_and_changes_nothing() -> None:
    request = read()

    assert request.sampling == Sampling(max_tokens=8192, temperature=0.0, top_p=1.0)
    assert (request.stop_words, request.choices, request.echo) == ((), 1, False)
    assert request.max_tokens is None


def test_every_parameter_reaches_the_sampling() -> None:
    request = read(
        max_tokens=7,
        min_tokens=3,
        min_p=0.25,
        no_repeat_ngram_size=4,
        end_id=5,
        stop_token_ids=(6, 5),
        stop_words=("\n\n", "", "END"),
        num_return_sequences=2,
        top_logprobs=3,
        pad_id=0,
        beam_width=1,
        length_penalty=1.5,
        return_context_logits=False,
    )

    sampling = request.sampling
    assert (request.max_tokens, sampling.max_tokens, sampling.min_tokens, sampling.min_p) == (7, 7, 3, 0.25)
    assert (sampling.no_repeat_ngram_size, sampling.stop_ids, sampling.ignore_end) == (4, (5, 6), False)
    assert (sampling.logprobs, request.choices) == (3, 2)
    assert request.stop_words == ("\n\n", "END")


def test_a_request_that_can_wait_says_so() -> None:
    assert [read().priority, read(priority=0).priority, read(priority=1).priority] == [0, 0, 1]
    assert refusal(priority=2) == "priority is 2; it must be between 0 and 1"


def test_values_that_other_servers_take_mean_the_same() -> None:
    assert [read(top_k=top_k).sampling.top_k for top_k in (-1, 0, 5)] == [0, 0, 5]
    assert [read(seed=seed).sampling.seed for seed in (-1, 0, 2**64 - 1)] == [2**64 - 1, 0, 2**64 - 1]


def test_log_probabilities_without_alternatives_are_asked_for_by_the_reference_name() -> None:
    assert read(return_log_probs=True).sampling.logprobs == 0
    assert read(return_log_probs=False).sampling.logprobs is None


def test_an_end_id_of_minus_one_goes_on_past_the_end() -> None:
    assert read(end_id=-1).sampling.ignore_end
    assert read(end_id=-1, stop_token_ids=(9,)).sampling.stop_ids == (9,)


def test_words_are_read_with_and_without_a_blank_before_them() -> None:
    (bare, behind_a_blank) = read(bad_words=("Sweden",)).sampling.bad_ids

    assert b"".join(map(CODEC.bytes_of, bare)) == b"Sweden"
    assert b"".join(map(CODEC.bytes_of, behind_a_blank)) == b" Sweden"


def test_a_bias_by_id_is_added_to_those_by_word() -> None:
    (token_id,) = CODEC.encode_text("a")

    bias = read(
        embedding_bias_words=("a",), embedding_bias_weights=(1.5,), logit_bias=f'{{"{token_id}": -3, "7": 100.0}}'
    ).sampling.logit_bias

    assert bias == {token_id: -1.5, 7: 100.0}


def test_a_bias_is_given_to_every_token_of_its_word() -> None:
    bias = read(embedding_bias_words=("Sweden", "Sweden"), embedding_bias_weights=(1.5, 2.0)).sampling.logit_bias

    assert bias == dict.fromkeys(CODEC.encode_text("Sweden"), 3.5)


@pytest.mark.parametrize(
    ("values", "echo"),
    [
        ({"text_input": "Once", "exclude_input_in_output": False}, True),
        ({"text_input": "Once", "exclude_input_in_output": True}, False),
        ({"text_input": "Once", "exclude_input_in_output": False, "stream": True}, False),
        ({"text_input": "Once"}, False),
        ({"exclude_input_in_output": False}, False),
    ],
)
def test_only_a_whole_answer_to_a_finished_prompt_repeats_it_on_demand(values: dict[str, Any], echo: bool) -> None:
    assert read(**values).echo is echo


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"max_tokens": 4, "min_tokens": 5}, "min_tokens is 5; it must be between 0 and 4"),
        ({"min_tokens": -1}, "min_tokens is -1"),
        ({"min_p": 1.5}, "min_p is 1.5; it must be between 0 and 1"),
        ({"top_k": -2}, "top_k is -2; it must be at least -1"),
        ({"num_return_sequences": 0}, "num_return_sequences is 0; it must be between 1 and 8"),
        ({"num_return_sequences": 9}, "num_return_sequences is 9"),
        ({"top_logprobs": 21}, "top_logprobs is 21; it must be between 0 and 20"),
        ({"top_logprobs": 2, "return_log_probs": False}, "top_logprobs is 2, but return_log_probs is false"),
        ({"beam_width": 2}, "beam_width is 2; it must be between 1 and 1"),
        ({"length_penalty": math.nan}, "length_penalty is nan"),
        ({"return_context_logits": True}, "return_context_logits is true; this server does not return them"),
        ({"return_generation_logits": True}, "return_generation_logits is true"),
        ({"return_perf_metrics": True}, "return_perf_metrics is true"),
        ({"end_id": 1536}, "end_id is 1536; it must be -1, or a token between 0 and 1535"),
        ({"stop_token_ids": (1, -1)}, "stop_token_ids is -1; it must be a token between 0 and 1535"),
        ({"stop_token_ids": (1,) * 65}, "stop_token_ids has 65 entries; it may have at most 64"),
        ({"stop_words": ("a",) * 65}, "stop_words has 65 entries"),
        ({"stop_words": ("é" * 513,)}, "stop_words has a word of 1026 bytes; it may have at most 1024"),
        ({"bad_words": ("a" * 1025,)}, "bad_words has a word of 1025 bytes"),
        ({"embedding_bias_words": ("a",)}, "embedding_bias_words has 1 entries and embedding_bias_weights 0"),
        ({"embedding_bias_words": ("a",), "embedding_bias_weights": (101.0,)}, "embedding_bias_weights is 101.0"),
        ({"embedding_bias_words": ("a",), "embedding_bias_weights": (-math.inf,)}, "embedding_bias_weights is -inf"),
        ({"logit_bias": "[1]"}, "logit_bias must be a JSON object of biases by token id"),
        ({"logit_bias": '{"1536": 1}'}, "logit_bias has '1536'; its keys must be token ids between 0 and 1535"),
        ({"logit_bias": '{"a": 1}'}, "logit_bias has 'a'"),
        ({"logit_bias": '{"-1": 1}'}, "logit_bias has '-1'"),
        ({"logit_bias": '{"7": 100.5}'}, "logit_bias.7 is 100.5; it must be between -100 and 100"),
        ({"logit_bias": '{"7": NaN}'}, "logit_bias.7 is nan; it must be between -100 and 100"),
        ({"logit_bias": '{"7": "1"}'}, "logit_bias.7 must be a number"),
        ({"logit_bias": json.dumps(dict.fromkeys(range(1025), 1))}, "logit_bias has 1025 entries; it may have at most"),
        ({"guided_decoding_guide": "x"}, "guided_decoding_guide needs guided_decoding_guide_type"),
        ({"guided_decoding_guide_type": "lark"}, "guided_decoding_guide_type is 'lark'; it must be one of json, "),
        ({"guided_decoding_guide_type": "regex"}, "guided_decoding_guide_type regex needs guided_decoding_guide"),
        ({"guided_decoding_guide_type": "json", "guided_decoding_guide": "{}"}, "takes no guided_decoding_guide"),
        ({"text_input": "x", "tools": TOOLS}, "tools goes with messages"),
    ],
)
def test_what_is_out_of_bounds_is_refused_with_its_name_and_its_limits(values: dict[str, Any], complaint: str) -> None:
    assert complaint in refusal(**values)


@given(
    st.sampled_from(
        [
            "temperature",
            "top_p",
            "min_p",
            "repetition_penalty",
            "presence_penalty",
            "frequency_penalty",
            "length_penalty",
        ]
    ),
    st.floats(width=32),
)
def test_a_number_is_within_its_limits_or_refused_by_name(name: str, value: float) -> None:
    sampling, refused = None, ""
    try:
        sampling = read(**{name: value}).sampling
    except RequestError as error:
        refused = str(error)

    assert (sampling is None) == refused.startswith(f"{name} is {value}; it must be between ")
    assert sampling is None or math.isfinite(value)
    assert sampling is None or name == "length_penalty" or getattr(sampling, name) == value


@given(st.dictionaries(st.sampled_from(wire.INPUTS), st.text(max_size=20) | st.integers(0, 9)))
def test_values_of_the_right_types_are_read_or_refused_and_nothing_else(drawn: dict[wire.Tensor, Any]) -> None:
    numbers = {"BOOL": bool, "INT32": int, "UINT64": int, "FP32": float}
    values = {
        tensor: (value,) if tensor.dims == (-1,) else value
        for tensor, value in drawn.items()
        if isinstance(value, str) == (tensor.dtype == "BYTES")
    }
    typed = {
        tensor: numbers[tensor.dtype](value) if isinstance(value, int) else value for tensor, value in values.items()
    }

    request, refused = None, ""
    try:
        request = read_request(typed, PROFILE, Settings(), CODEC)
    except RequestError as error:
        refused = str(error)

    assert (request is None) == any(tensor.name in refused for tensor in wire.INPUTS)


@pytest.mark.parametrize("depth", [100, 1_000, 100_000])
@pytest.mark.parametrize("name", ["messages", "tools", "tool_choice", "chat_template_kwargs", "guided_decoding_guide"])
@pytest.mark.parametrize(("opener", "closer"), [("[", "]"), ('{"a":', "}")])
def test_deep_nesting_is_refused_quickly(name: str, depth: int, opener: str, closer: str) -> None:
    text = opener * depth + "1" + closer * depth
    kind = {"guided_decoding_guide_type": "json_schema"} if name == "guided_decoding_guide" else {}
    begin_s = time.monotonic()

    message = refusal(**{name: text}, **kind)

    assert name in message
    assert time.monotonic() - begin_s < 5


def test_settings_limit_what_a_request_may_hold() -> None:
    settings = Settings(max_prompt_bytes=1000, max_messages=2, max_tools=1)
    three = json.dumps([{"role": "user", "content": "hi"}] * 3)

    assert "messages has 3 entries; at most 2" in refusal(settings, messages=three)
    assert "tools has 2 entries; at most 1" in refusal(settings, tools=json.dumps(json.loads(TOOLS) * 2))
    assert "text_input has 1002 bytes; at most 1000" in refusal(settings, text_input="é" * 501)
    assert "messages has 2002 bytes" in refusal(settings, messages=json.dumps("x" * 2000))
    assert "guided_decoding_guide has 1001 bytes" in refusal(
        settings, guided_decoding_guide="x" * 1001, guided_decoding_guide_type="regex"
    )


@pytest.mark.parametrize(
    ("values", "thinking", "budget"),
    [
        ({}, False, None),
        ({"max_thinking_tokens": 17}, False, 17),
        ({"max_thinking_tokens": 17, "thinking": True}, True, 17),
        ({"max_thinking_tokens": 0}, False, 0),
        ({"max_thinking_tokens": 0, "text_input": "x"}, False, 0),
        ({"reasoning_effort": "none"}, False, 0),
        ({"reasoning_effort": "minimal"}, True, 256),
        ({"reasoning_effort": "low"}, True, 1024),
        ({"reasoning_effort": "medium"}, True, 4096),
        ({"reasoning_effort": "high"}, True, 16_384),
        # Of several, the smallest.
        ({"reasoning_effort": "high", "max_thinking_tokens": 17}, True, 17),
        ({"reasoning_effort": "low", "max_thinking_tokens": 5000}, True, 1024),
        ({"reasoning_effort": "none", "max_thinking_tokens": 17}, False, 0),
        ({"chat_template_kwargs": '{"reasoning_budget": 7}', "thinking": True}, True, 7),
        ({"chat_template_kwargs": '{"reasoning_budget": 7}', "max_thinking_tokens": 9}, False, 7),
        ({"chat_template_kwargs": '{"reasoning_budget": 0}'}, False, 0),
        ({"chat_template_kwargs": '{"reasoning_budget": -1}', "thinking": True}, True, None),
        ({"chat_template_kwargs": '{"reasoning_budget": null}', "thinking": True}, True, None),
    ],
)
def test_a_budget_for_thinking_has_three_spellings(values: dict[str, Any], thinking: bool, budget: int | None) -> None:
    request = read(**values)

    assert (request.thinking, request.max_thinking_tokens) == (thinking, budget)
    assert request.render.thinking is (
        thinking if budget == 0 or "reasoning_effort" in values else request.render.thinking
    )


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"max_thinking_tokens": -1}, "max_thinking_tokens is -1; it must be at least 0"),
        (
            {"reasoning_effort": "max"},
            'reasoning_effort is "max"; it must be one of none, minimal, low, medium, high',
        ),
        ({"reasoning_effort": ""}, 'reasoning_effort is ""; it must be one of none'),
        (
            {"max_thinking_tokens": 0, "thinking": True},
            "max_thinking_tokens is 0, and thinking is true; leave one of them out",
        ),
        ({"reasoning_effort": "none", "thinking": True}, "reasoning_effort is none, and thinking is true"),
        ({"reasoning_effort": "low", "thinking": False}, "reasoning_effort is low, and thinking is false"),
        (
            {"max_thinking_tokens": 0, "chat_template_kwargs": '{"enable_thinking": true}'},
            "max_thinking_tokens is 0, and thinking is true",
        ),
        ({"reasoning_effort": "low", "text_input": "x"}, "reasoning_effort goes with messages"),
        ({"chat_template_kwargs": '{"reasoning_budget": "7"}'}, 'chat_template_kwargs.reasoning_budget is "7"'),
        ({"chat_template_kwargs": '{"reasoning_budget": true}'}, "chat_template_kwargs.reasoning_budget is true"),
        ({"chat_template_kwargs": '{"reasoning_budget": -2}'}, "chat_template_kwargs.reasoning_budget is -2"),
        (
            {"include_reasoning": False, "top_logprobs": 1},
            "return_log_probs cannot go with include_reasoning false",
        ),
    ],
)
def test_what_contradicts_itself_about_thinking_is_refused(values: dict[str, Any], complaint: str) -> None:
    assert complaint in refusal(**values)


# One value other than the default for each field that has one.
OTHERS: dict[str, Any] = {
    "top_k": 1,
    "min_p": 0.5,
    "min_tokens": 1,
    "seed": 0,
    "repetition_penalty": 1.1,
    "presence_penalty": 0.1,
    "frequency_penalty": 0.1,
    "no_repeat_ngram_size": 2,
    "ignore_end": True,
    "stop_ids": (1,),
    "bad_ids": ((1,),),
    "logit_bias": {1: 1.0},
    "guide": Guide(kind="regex", text="a"),
    "logprobs": 0,
}


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Sampling) if field.name in OTHERS])
def test_what_an_engine_cannot_do_is_refused_by_the_tensors_name(field: str) -> None:
    plain = Sampling(max_tokens=1, temperature=0.0, top_p=1.0)

    refuse_unsupported(plain, {field: "it is old"})
    refuse_unsupported(dataclasses.replace(plain, **{field: OTHERS[field]}), {})
    with pytest.raises(RequestError, match="cannot be used with this model's engine: it is old") as caught:
        refuse_unsupported(dataclasses.replace(plain, **{field: OTHERS[field]}), {field: "it is old"})

    assert str(caught.value).split()[0] in {tensor.name for tensor in wire.INPUTS}


def test_every_field_that_can_be_left_out_is_in_the_test_above() -> None:
    optional = {field.name for field in dataclasses.fields(Sampling)} - {"max_tokens", "temperature", "top_p"}

    assert set(OTHERS) == optional


def test_every_choice_has_a_seed_of_its_own_and_the_first_has_the_requests() -> None:
    seeded = Sampling(max_tokens=1, temperature=1.0, top_p=1.0, seed=2**64 - 1)

    assert [sampling_of_choice(seeded, index).seed for index in range(3)] == [2**64 - 1, 0, 1]
    assert sampling_of_choice(dataclasses.replace(seeded, seed=None), 1).seed is None


@pytest.mark.parametrize(
    ("tensor", "value"),
    [
        (wire.STOP_WORDS, ("a", "é\n", "")),
        (wire.STOP_WORDS, ()),
        (wire.STOP_TOKEN_IDS, (1, 2)),
        (wire.EMBEDDING_BIAS_WEIGHTS, (0.5, -1.0)),
        (wire.MAX_TOKENS, 5),
        (wire.TEXT_INPUT, "é"),
    ],
)
def test_values_survive_as_tensors(tensor: wire.Tensor, value: Any) -> None:
    array = wire.array(tensor, value)

    assert array.shape == (1, 1 if tensor.dims == (1,) else len(value))
    assert wire.read(tensor, array) == value


def test_rows_become_a_tensor_with_the_batch_dimension_first() -> None:
    array = wire.array(wire.OUTPUT_LOG_PROBS, [[-1.0, math.nan]])

    assert (array.shape, array.dtype) == ((1, 1, 2), np.float32)


def test_a_list_of_a_million_is_refused_before_it_is_read() -> None:
    with pytest.raises(ValueError, match="stop_words holds 1000000 values; at most 1024 are accepted"):
        wire.read(wire.STOP_WORDS, np.full((1, 1_000_000), b"x", dtype=np.object_))

"""Sampling of the `tensorrt` and `pytorch` engines: every field of `Sampling` is obeyed or refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from contract import llm_arguments
from engine_answers import on_loop, read
from nemotron_triton.bundle import Bundle
from nemotron_triton.engine.interface import Guide, Sampling
from nemotron_triton.engine.stream import TokenLogprob
from nemotron_triton.errors import EngineError, RequestError
from tensorrt_llm_engine import (
    END,
    KINDS,
    OTHER_ENDS,
    PLAIN,
    ask,
    gpu_bundle,
    start,
    tensorrt_llm,
)


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[ModuleType]:
    with tensorrt_llm(tmp_path / "site") as llmapi:
        yield llmapi


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def loadable(bundle: Bundle, tmp_path: Path, kind: str, stand_in: ModuleType) -> Bundle:
    return gpu_bundle(bundle, tmp_path / "bundle", kind)


GUIDED = {
    "grammar": {"grammar": 'root ::= "a"'},
    "json_schema": {"json": '{"type": "object"}'},
    "regex": {"regex": "[a-z]+"},
}
# Each field of `Sampling`: a value, and the fields of `SamplingParams` that it sets.
MAPPED: dict[str, tuple[Any, dict[str, Any]]] = {
    "max_tokens": (7, {"max_tokens": 7}),
    "temperature": (0.25, {"temperature": 0.25, "top_p": 0.9}),
    "top_p": (0.5, {"top_p": 0.5}),
    "top_k": (40, {"top_k": 40}),
    "min_p": (0.1, {"min_p": 0.1}),
    "min_tokens": (3, {"min_tokens": 3, "end_id": END}),
    "seed": (42, {"seed": 42}),
    "repetition_penalty": (1.2, {"repetition_penalty": 1.2}),
    "presence_penalty": (0.3, {"presence_penalty": 0.3}),
    "frequency_penalty": (-0.4, {"frequency_penalty": -0.4}),
    "no_repeat_ngram_size": (4, {"no_repeat_ngram_size": 4}),
    "ignore_end": (True, {"ignore_eos": True, "stop_token_ids": None}),
    "stop_ids": ((9, 8), {"stop_token_ids": [*OTHER_ENDS, 9, 8]}),
    "bad_ids": (((5,), (6, 7)), {"bad_token_ids": [5], "bad_words": [[5], [6, 7]]}),
    "logit_bias": ({1: -2.5, 3: 4.0}, {"embedding_bias": ("float32", [0.0, -2.5, 0.0, 4.0] + [0.0] * 1532)}),
    "logprobs": (2, {"logprobs": 2}),
    "guide": (Guide(kind="regex", text="[a-z]+"), {}),
}
# The fields that are set in any case, except for greedy sampling.
UNASKED = {
    "n": 1,
    "end_id": END,
    "pad_id": END,
    "stop_token_ids": OTHER_ENDS,
    "ignore_eos": False,
    "bad_words": [],
    "embedding_bias": None,
    "guided_decoding": None,
    "min_p": None,
    "min_tokens": None,
    "repetition_penalty": None,
    "presence_penalty": None,
    "frequency_penalty": None,
    "no_repeat_ngram_size": None,
    "logprobs": None,
    "exclude_input_from_output": True,
    "detokenize": False,
    "add_special_tokens": False,
}


def params_of(bundle: Bundle, sampling: Sampling) -> Any:
    """The `SamplingParams` that *sampling* becomes."""
    engine, llm = start(bundle)

    async def test() -> None:
        stream = ask(engine, sampling)
        engine.close()
        with pytest.raises(EngineError, match=r"^the engine is closed$"):
            await stream.__anext__()

    on_loop(test)
    return llm.requests[0].sampling_params


def holds(params: Any, expected: dict[str, Any]) -> bool:
    return {name: getattr(params, name) for name in expected} == expected


def test_every_field_is_obeyed_or_refused(bundle: Bundle, tmp_path: Path, stand_in: ModuleType, kind: str) -> None:
    one_end = Bundle(bundle.path, replace(bundle.manifest, end_ids=[END]))
    full = gpu_bundle(one_end, tmp_path / "full", kind, gather_generation_logits=True)
    several = gpu_bundle(bundle, tmp_path / "several", kind)

    cannot = {"tensorrt": set(), "pytorch": {"min_p", "seed", "repetition_penalty", "presence_penalty"}}[kind]
    cannot |= {"frequency_penalty", "no_repeat_ngram_size", "bad_ids"} if kind == "pytorch" else set()
    cannot |= {"guide.thinking"}

    assert set(MAPPED) == {field.name for field in dataclasses.fields(Sampling)}
    assert set(start(full)[0].cannot) == cannot
    assert set(start(several)[0].cannot) == cannot | {"min_tokens"} | ({"logprobs"} if kind == "tensorrt" else set())
    assert all(reason and "\n" not in reason for reason in start(several)[0].cannot.values())
    for name, (value, expected) in MAPPED.items():
        if name not in cannot:
            several_ends = name in ("ignore_end", "stop_ids")
            params = params_of(several if several_ends else full, replace(PLAIN, **{name: value}))
            assert holds(params, expected), (name, expected)


def test_nothing_is_returned_that_was_not_asked_for(loadable: Bundle) -> None:
    params = params_of(loadable, PLAIN)

    assert holds(params, UNASKED | {"max_tokens": 20, "temperature": 0.5, "top_p": 0.9, "top_k": 0})
    assert not params.greedy


@pytest.mark.parametrize(("temperature", "greedy"), [(0.0, True), (1.0, False)])
def test_only_temperature_0_is_greedy(loadable: Bundle, temperature: float, greedy: bool) -> None:
    params = params_of(loadable, Sampling(max_tokens=1, temperature=temperature, top_p=1.0))

    assert params.greedy is greedy
    assert holds(params, {"temperature": None if greedy else temperature})


@pytest.mark.parametrize("guide", ["grammar", "json_schema", "regex"])
def test_a_guide_goes_into_the_one_field_for_it(loadable: Bundle, guide: Any) -> None:
    ((field, text),) = GUIDED[guide].items()

    params = params_of(loadable, replace(PLAIN, guide=Guide(kind=guide, text=text)))

    assert {name: getattr(params.guided_decoding, name) for name in ("json", "regex", "grammar")} == {
        name: text if name == field else None for name in ("json", "regex", "grammar")
    }


def test_without_a_backend_for_them_guides_are_refused(bundle: Bundle, tmp_path: Path, stand_in: ModuleType) -> None:
    guided = gpu_bundle(bundle, tmp_path / "bundle", "pytorch")
    hybrid = replace(guided.manifest, llm_args=llm_arguments(model="engine", tokenizer="tokenizer", hybrid=True))

    assert "guide" not in start(guided)[0].cannot
    assert start(Bundle(guided.path, hybrid))[0].cannot["guide"] == "this engine was built without guided decoding"


def test_a_seed_is_drawn_for_each_request_that_has_none(bundle: Bundle, tmp_path: Path, stand_in: ModuleType) -> None:
    compiled = gpu_bundle(bundle, tmp_path / "bundle", "tensorrt")

    seeds = {params_of(compiled, PLAIN).seed for _ in range(3)}

    assert len(seeds) == 3
    assert params_of(compiled, replace(PLAIN, seed=-1)).seed == 2**64 - 1


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"logit_bias": {1536: 1.0}}, "logit_bias names token 1536; the model's tokens are 0 to 1535"),
        ({"min_tokens": 2, "stop_ids": (9,)}, "give min_tokens or stop_ids, not both"),
        ({"top_p": 0.0}, "TensorRT-LLM refuses the request: topP must be in"),
    ],
)
def test_what_cannot_be_said_fails_in_its_stream(loadable: Bundle, changes: Any, complaint: str) -> None:
    engine, _ = start(loadable)

    async def test() -> None:
        with pytest.raises(RequestError, match=complaint):
            await ask(engine, replace(PLAIN, **changes)).__anext__()

    on_loop(test)


def test_log_probabilities_come_with_their_tokens(bundle: Bundle, tmp_path: Path, stand_in: ModuleType) -> None:
    engine, llm = start(gpu_bundle(bundle, tmp_path / "bundle", "pytorch"))
    logprob = stand_in.Logprob

    async def test() -> None:
        stream = ask(engine, replace(PLAIN, logprobs=1))
        llm.requests[0].respond(5, logprobs=[{6: logprob(-2.0, 2), 5: logprob(-0.1, 1)}])
        llm.requests[0].respond(7, 8, logprobs=[{9: logprob(-0.5, 1)}])
        llm.requests[0].respond(END, finish="stop", logprobs=[{END: logprob(0.0, 1)}])

        assert await read(stream) == (
            [5, 7, 8],
            "stop",
            [TokenLogprob(-0.1, ((5, -0.1),)), TokenLogprob(None, ((9, -0.5),)), TokenLogprob(None)],
        )

    on_loop(test)


def test_without_alternatives_only_the_token_s_own_comes(bundle: Bundle, tmp_path: Path, stand_in: ModuleType) -> None:
    engine, llm = start(gpu_bundle(bundle, tmp_path / "bundle", "pytorch"))

    async def test() -> None:
        stream = ask(engine, replace(PLAIN, logprobs=0))
        (request,) = llm.requests
        assert request.sampling_params.logprobs == 1
        request.respond(5, 6, finish="length", logprobs=[{5: stand_in.Logprob(-0.1)}, -0.25])

        assert await read(stream) == ([5, 6], "length", [TokenLogprob(-0.1), TokenLogprob(-0.25)])

    on_loop(test)

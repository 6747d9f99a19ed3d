"""Sampling of the `tensorrt` and `pytorch` engines: every field of `Sampling` is obeyed or refused."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from contract import llm_arguments
from engine_answers import on_loop, read
from nemotron_triton.bundle import Bundle
from nemotron_triton.engine.interface import Guide, Sampling
from nemotron_triton.engine.least_tokens import LeastTokens
from nemotron_triton.engine.stream import TokenLogprob
from nemotron_triton.errors import EngineError, RequestError
from tensorrt_llm_engine import (
    END,
    ENDS,
    KINDS,
    OTHER_ENDS,
    PLAIN,
    PROMPT,
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
    "min_tokens": (3, {"min_tokens": None, "logits_processor": LeastTokens(3, 3, frozenset(ENDS))}),
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
    "logits_processor": None,
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


# The fields that an engine refuses which was built as builds are made today.
REFUSED: dict[str, set[str]] = {
    "tensorrt": {"guide.characters"},
    "pytorch": {
        "guide.characters",
        "min_p",
        "seed",
        "repetition_penalty",
        "presence_penalty",
        "frequency_penalty",
        "no_repeat_ngram_size",
        "bad_ids",
    },
}


def test_every_field_is_obeyed_or_refused(loadable: Bundle, kind: str) -> None:
    cannot = start(loadable)[0].cannot

    assert set(MAPPED) == {field.name for field in dataclasses.fields(Sampling)}
    assert set(cannot) == REFUSED[kind]
    assert all(reason and "\n" not in reason for reason in cannot.values())
    for name, (value, expected) in MAPPED.items():
        if name not in cannot:
            assert holds(params_of(loadable, replace(PLAIN, **{name: value})), expected), (name, expected)


def test_an_engine_that_was_built_without_its_logits_refuses_log_probabilities(
    bundle: Bundle, tmp_path: Path, stand_in: ModuleType
) -> None:
    """As every bundle of 0.1 is."""
    old = gpu_bundle(bundle, tmp_path / "bundle", "tensorrt", gather_generation_logits=False)

    assert set(start(old)[0].cannot) == {"logprobs", "guide.characters"}


def test_nothing_is_returned_that_was_not_asked_for(loadable: Bundle) -> None:
    params = params_of(loadable, PLAIN)

    assert holds(params, UNASKED | {"max_tokens": 20, "temperature": 0.5, "top_p": 0.9, "top_k": 0})
    assert not params.greedy


@pytest.mark.parametrize(("temperature", "greedy"), [(0.0, True), (1.0, False)])
def test_only_temperature_0_is_greedy(loadable: Bundle, temperature: float, greedy: bool) -> None:
    params = params_of(loadable, Sampling(max_tokens=1, temperature=temperature, top_p=1.0))

    assert params.greedy is greedy
    assert holds(params, {"temperature": None if greedy else temperature})


def test_no_end_token_comes_before_the_least_tokens(loadable: Bundle) -> None:
    sampling = replace(PLAIN, min_tokens=2, stop_ids=(9,), ignore_end=True)
    processor = params_of(loadable, sampling).logits_processor

    def held_back(*answer: int) -> list[int]:
        logits = np.zeros((1, 1, 20))
        processor(1, logits, [[*PROMPT, *answer]], None, None)
        return [token_id for token_id, logit in enumerate(logits[0, 0]) if logit < 0]

    assert (held_back(), held_back(5), held_back(5, 6)) == ([9], [9], [])


def test_logits_are_changed_on_the_stream_that_computes_them(stand_in: ModuleType) -> None:
    entered: list[int] = []

    @contextlib.contextmanager
    def on(address: int) -> Iterator[None]:
        entered.append(address)
        yield

    sys.modules["torch"].__dict__["cuda"] = SimpleNamespace(stream=on, ExternalStream=int)
    LeastTokens(1, 1, frozenset({0}))(1, np.zeros((1, 1, 2)), [[7]], 0x7F00, None)

    assert entered == [0x7F00]


@pytest.mark.parametrize("guide", ["grammar", "json_schema", "regex"])
def test_a_guide_goes_into_the_one_field_for_it(loadable: Bundle, guide: Any) -> None:
    ((field, text),) = GUIDED[guide].items()

    params = params_of(loadable, replace(PLAIN, guide=Guide(kind=guide, text=text)))

    assert {name: getattr(params.guided_decoding, name) for name in ("json", "regex", "grammar")} == {
        name: text if name == field else None for name in ("json", "regex", "grammar")
    }


def test_characters_beyond_ascii_are_written_out(loadable: Bundle) -> None:
    grammar = Guide(kind="grammar", text="root ::= [\\u0061\\u00e8-\\u00e9]+ [^a\\u2028]")

    params = params_of(loadable, replace(PLAIN, guide=grammar))

    assert params.guided_decoding.grammar == 'root ::= written0+ [^a]\nwritten0 ::= [a] | "è" | "é"'


@pytest.mark.parametrize(("thinking", "begin"), [("opened", ""), ("model opens", "<think>\n")])
@pytest.mark.parametrize(
    ("guide", "text", "guided"),
    [
        ("json_schema", '{"type": "object"}', {"type": "json_schema", "json_schema": {"type": "object"}}),
        ("regex", "[a-z]+", {"type": "regex", "pattern": "[a-z]+"}),
    ],
)
def test_a_guide_behind_thinking_is_a_structural_tag(
    loadable: Bundle, thinking: Any, begin: str, guide: Any, text: str, guided: dict[str, Any]
) -> None:
    params = params_of(loadable, replace(PLAIN, guide=Guide(kind=guide, text=text, thinking=thinking)))

    assert (params.guided_decoding.json, params.guided_decoding.regex) == (None, None)
    assert json.loads(params.guided_decoding.structural_tag) == {
        "type": "structural_tag",
        "format": {
            "type": "sequence",
            "elements": [
                {"type": "tag", "begin": begin, "content": {"type": "any_text"}, "end": "</think>"},
                {"type": "regex", "pattern": "\\n{0,2}"},
                guided,
            ],
        },
    }


def test_log_probabilities_that_would_fill_the_memory_are_refused(
    bundle: Bundle, tmp_path: Path, stand_in: ModuleType
) -> None:
    compiled = gpu_bundle(bundle, tmp_path / "bundle", "tensorrt")
    most = 2**31 // (4 * 1536)
    engine, _ = start(compiled)

    async def test() -> None:
        with pytest.raises(RequestError, match=f"2 GiB in TensorRT-LLM; give a max_tokens of at most {most}$"):
            await ask(engine, replace(PLAIN, logprobs=0, max_tokens=most + 1)).__anext__()

    on_loop(test)
    assert params_of(compiled, replace(PLAIN, logprobs=0, max_tokens=most)).logprobs == 1


def test_without_a_backend_for_them_guides_are_refused(bundle: Bundle, tmp_path: Path, stand_in: ModuleType) -> None:
    guided = gpu_bundle(bundle, tmp_path / "bundle", "pytorch")
    hybrid = replace(guided.manifest, llm_args=llm_arguments(model="engine", tokenizer="tokenizer", hybrid=True))

    assert "guide" not in start(guided)[0].cannot
    assert "built without guides" in start(Bundle(guided.path, hybrid))[0].cannot["guide"]


def test_a_seed_is_drawn_for_each_request_that_has_none(bundle: Bundle, tmp_path: Path, stand_in: ModuleType) -> None:
    compiled = gpu_bundle(bundle, tmp_path / "bundle", "tensorrt")

    seeds = {params_of(compiled, PLAIN).seed for _ in range(3)}

    assert len(seeds) == 3
    assert params_of(compiled, replace(PLAIN, seed=-1)).seed == 2**64 - 1


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"logit_bias": {1536: 1.0}}, "logit_bias names token 1536; the model's tokens are 0 to 1535"),
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

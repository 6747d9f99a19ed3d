"""Sampling of the `edge` engine: every field of `Sampling` is obeyed or refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edge_llm_engine import PLAIN, Running, edge_llm, running_engine, thor_bundle
from engine_answers import on_loop, read
from nemotron_triton.bundle import Bundle
from nemotron_triton.engine.interface import Guide, Sampling
from nemotron_triton.engine.stream import TokenLogprob
from nemotron_triton.errors import RequestError


@pytest.fixture
def native(tmp_path: Path) -> Iterator[ModuleType]:
    with edge_llm(tmp_path / "site") as native:
        yield native


@pytest.fixture
def thor(bundle: Bundle, tmp_path: Path, native: ModuleType) -> Bundle:
    return thor_bundle(bundle, tmp_path / "bundle")


@pytest.fixture
def running(thor: Bundle, native: ModuleType) -> Iterator[Running]:
    with running_engine(thor, native) as running:
        yield running


# Each field of `Sampling` that is obeyed: a value, and the fields of the request, or of its one sequence.
MAPPED: dict[str, tuple[Any, dict[str, Any]]] = {
    "max_tokens": (7, {"max_generate_length": 7}),
    "temperature": (0.25, {"temperature": 0.25, "top_k": 0, "top_p": 0.9}),
    "top_p": (0.5, {"top_p": 0.5}),
    "top_k": (40, {"top_k": 40, "top_p": 0.9}),
    "seed": (42, {"sampling_seed": 42}),
    "stop_ids": ((9,), {}),
    "logit_bias": ({1: -2.5}, {"logit_bias": {1: -2.5}}),
    "logprobs": (2, {"num_logprobs": 2}),
    "guide": (Guide(kind="regex", text="[a-z]+"), {}),
}
ALWAYS = {"apply_chat_template": False, "add_generation_prompt": False, "skip_special_tokens": False}


def request_of(running: Running, sampling: Sampling) -> Any:
    """The request that *sampling* becomes, with the fields of its one sequence."""
    requests: list[Any] = []

    async def test() -> None:
        stream = running.ask(sampling)
        handle = await running.handle()
        requests.append(handle.request)
        handle.respond(finish="LENGTH")
        await read(stream)

    on_loop(test)
    return requests[0]


def fields_of(request: Any) -> dict[str, Any]:
    return {**vars(request.requests[0]), **vars(request)}


def test_every_field_is_obeyed_or_refused(running: Running) -> None:
    cannot = set(running.engine.cannot)

    assert set(MAPPED) | cannot == {field.name for field in dataclasses.fields(Sampling)} | {"guide.characters"}
    assert not set(MAPPED) & cannot
    for name, (value, expected) in MAPPED.items():
        fields = fields_of(request_of(running, replace(PLAIN, **{name: value})))
        assert {name: fields[name] for name in (*expected, *ALWAYS)} == expected | ALWAYS


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "greedy"),
    [(0.0, 0, 1.0, True), (1.0, 0, 1.0, False), (0.7, 0, 1.0, False), (1.0, 5, 1.0, False), (1.0, 0, 0.9, False)],
)
def test_only_temperature_0_is_greedy(
    running: Running, temperature: float, top_k: int, top_p: float, greedy: bool
) -> None:
    request = request_of(running, Sampling(max_tokens=1, temperature=temperature, top_k=top_k, top_p=top_p))

    assert request.greedy is greedy
    assert request.top_k == (1 if greedy else top_k)
    assert request.top_p == pytest.approx(top_p, abs=1e-5)


@pytest.mark.parametrize(("kind", "member"), [("grammar", "EBNF"), ("json_schema", "JSON_SCHEMA"), ("regex", "REGEX")])
def test_a_guide_is_sent_with_its_kind(running: Running, kind: Any, member: str) -> None:
    guide = fields_of(request_of(running, replace(PLAIN, guide=Guide(kind=kind, text="text"))))["guided_decoding"]

    assert (guide.type.name, guide.guide) == (member, "text")


def test_characters_beyond_ascii_are_written_out(running: Running) -> None:
    grammar = Guide(kind="grammar", text="root ::= [\\u00e8-\\u00e9]")

    guide = fields_of(request_of(running, replace(PLAIN, guide=grammar)))["guided_decoding"]

    assert guide.guide == 'root ::= written0\nwritten0 ::= "è" | "é"'


def test_a_guide_behind_thinking_is_a_structural_tag(running: Running) -> None:
    behind = Guide(kind="regex", text="[a-z]+", thinking="model opens")
    guide = fields_of(request_of(running, replace(PLAIN, guide=behind)))["guided_decoding"]
    thought, blank, guided = json.loads(guide.guide)["format"]["elements"]

    assert guide.type.name == "STRUCTURAL_TAG"
    assert (thought["begin"], thought["end"]) == ("<think>\n", "</think>")
    assert (blank["pattern"], guided) == ("\\n{0,2}", {"type": "regex", "pattern": "[a-z]+"})


def test_a_seed_is_drawn_for_each_request_that_has_none(running: Running) -> None:
    seeds = {fields_of(request_of(running, PLAIN))["sampling_seed"] for _ in range(3)}

    assert len(seeds) == 3
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"logprobs": 51}, "logprobs is 51; TensorRT Edge-LLM reports at most 50"),
        ({"logit_bias": {1: 101.0}}, "logit_bias is for at most 1024 tokens, between -100 and 100 each"),
        ({"logit_bias": dict.fromkeys(range(1025), 1.0)}, "logit_bias is for at most 1024 tokens"),
        ({"guide": Guide(kind="regex", text="refused")}, "refuses the regex: it uses refused"),
        ({"guide": Guide(kind="regex", text="refused", thinking="opened")}, "refuses the regex: it uses refused"),
    ],
)
def test_what_cannot_be_said_fails_in_its_stream(running: Running, changes: Any, complaint: str) -> None:
    async def test() -> None:
        with pytest.raises(RequestError, match=complaint):
            await running.ask(replace(PLAIN, **changes)).__anext__()

    on_loop(test)


def test_log_probabilities_come_with_their_tokens(running: Running, native: ModuleType) -> None:
    async def test() -> None:
        stream = running.ask(replace(PLAIN, logprobs=1))
        handle = await running.handle()
        entry = native.LogprobEntry
        handle.respond(5, logprobs=[[entry(token_id=5, logprob=-0.1), entry(token_id=6, logprob=-2.0)]])
        handle.respond(7, 8, finish="LENGTH", logprobs=[[entry(token_id=9, logprob=-0.5)]])

        assert await read(stream) == (
            [5, 7, 8],
            "length",
            [TokenLogprob(-0.1, ((5, -0.1),)), TokenLogprob(None, ((9, -0.5),)), TokenLogprob(None)],
        )

    on_loop(test)

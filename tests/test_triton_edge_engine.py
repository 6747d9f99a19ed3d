"""The `edge` engine on a stand-in that has what TensorRT Edge-LLM 0.11.0's binding declares, and nothing else."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import shutil
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from contract import BreachError
from machines import THOR, FakeNvml, install
from nemotron_triton.bundle import Bundle
from nemotron_triton.chat.render import Prompt
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.engine.factory import start_engine
from nemotron_triton.engine.interface import Engine, Guide, Sampling
from nemotron_triton.engine.stream import TokenLogprob, TokenStream
from nemotron_triton.errors import BundleError, EngineError, RequestError

STAND_IN = Path(__file__).parent / "edge_llm_stand_in"
PLAIN = Sampling(max_tokens=20, temperature=0.5, top_p=0.9)
END = 1533
PATIENCE_S = 30
CONTROL = "<|eot_id|>"


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    """The stand-in's native module on a Jetson Thor; whatever was imported of it goes again."""
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(THOR))
    install(tmp_path / "site", "tensorrt_edgellm", "0.11.0")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.syspath_prepend(STAND_IN)
    yield importlib.import_module("tensorrt_edgellm.native")
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorrt_edgellm"]:
        del sys.modules[name]


@pytest.fixture
def thor(bundle: Bundle, tmp_path: Path, native: ModuleType) -> Bundle:
    """The demo's bundle as if it had been built on a Jetson Thor, for one request at a time."""
    folder = tmp_path / "bundle"
    for name in ("tokenizer", "engine", "checkpoint"):
        shutil.copytree(bundle.path / "tokenizer", folder / name)
    (folder / "engine" / "llm.engine").write_bytes(b"")
    manifest = replace(
        bundle.manifest,
        kind="edge",
        gpu="jetson-thor",
        sm=110,
        precision="fp8",
        engine_file="engine",
        max_batch_size=1,
        tool_versions={"tensorrt-edgellm": "0.11.0"},
    )
    return Bundle(folder, manifest)


@dataclasses.dataclass
class Running:
    """An engine, and what the stand-in has of it."""

    engine: Engine
    native: Any
    codec: TokenCodec

    def ids(self, text: str, *control: str) -> list[int]:
        return self.codec.encode(Prompt(text, "\0", control or ("\1",)))

    def ask(self, sampling: Sampling = PLAIN, prompt: Sequence[int] = ()) -> TokenStream:
        stream = TokenStream(pace=lambda: 0.0)
        self.engine.generate(prompt or self.ids("What is 18% of 100?"), sampling, stream)
        return stream

    async def handle(self) -> Any:
        """The next request that reaches Edge-LLM."""
        return await asyncio.to_thread(self.native.handles.get, timeout=PATIENCE_S)


@pytest.fixture
def running(thor: Bundle, native: ModuleType) -> Iterator[Running]:
    codec = TokenCodec(thor.tokenizer_path)
    engine = start_engine(thor, codec)
    yield Running(engine, native.RequestEngine.started[-1], codec)
    engine.close()


def on_loop(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(test(), timeout=PATIENCE_S)

    asyncio.run(bounded())


async def read(stream: TokenStream) -> tuple[list[int], str | None, list[TokenLogprob]]:
    """All of an answer."""
    chunks = [chunk async for chunk in stream]
    ids = [token_id for chunk in chunks for token_id in chunk.ids]
    return ids, chunks[-1].finish_reason, [logprob for chunk in chunks for logprob in chunk.logprobs]


def happens(event: threading.Event) -> Awaitable[bool]:
    return asyncio.to_thread(event.wait, PATIENCE_S)


@pytest.mark.parametrize(
    ("last", "finish", "reason"),
    [((7, END), "END_ID", "stop"), ((7,), "END_ID", "stop"), ((7,), "STOP_WORDS", "stop"), ((7,), "LENGTH", "length")],
)
def test_an_answer_arrives_in_order_and_without_its_end_token(
    running: Running, last: tuple[int, ...], finish: str, reason: str
) -> None:
    async def test() -> None:
        stream = running.ask()
        handle = await running.handle()
        handle.respond(5)
        assert (await stream.__anext__()).ids == (5,)
        handle.respond(6)
        handle.respond(*last, finish=finish)

        assert await read(stream) == ([6, 7], reason, [])
        assert not handle.cancelled.is_set()

    on_loop(test)


def test_the_prompt_is_the_text_that_was_rendered(running: Running) -> None:
    async def test() -> None:
        prompt = running.ids(f"Häuser? {CONTROL}\n", CONTROL)
        stream = running.ask(prompt=prompt)
        handle = await running.handle()
        handle.respond(finish="LENGTH")

        assert await read(stream) == ([], "length", [])
        assert handle.prompt == f"Häuser? {CONTROL}\n"
        assert running.codec.control_id(CONTROL) in prompt

    on_loop(test)


def test_a_message_that_spells_a_control_token_is_refused(running: Running) -> None:
    """Edge-LLM would take it for the token, and the message would speak as the system."""

    async def test() -> None:
        spelt = running.ids(f"Häuser? {CONTROL}\n")
        assert running.codec.control_id(CONTROL) not in spelt

        with pytest.raises(
            RequestError, match=r"reads this prompt of \d+ tokens as \d+: it takes the spelling of a co"
        ):
            await running.ask(prompt=spelt).__anext__()
        assert running.native.handles.empty()

    on_loop(test)


def test_a_stop_token_of_the_request_ends_it(running: Running) -> None:
    async def test() -> None:
        stream = running.ask(replace(PLAIN, stop_ids=(77,)))
        handle = await running.handle()
        handle.respond(5, 77, 6)

        assert await read(stream) == ([5], "stop", [])
        assert await happens(handle.cancelled)

    on_loop(test)


def test_a_request_that_is_cancelled_is_stopped(running: Running) -> None:
    async def test() -> None:
        stream = running.ask()
        handle = await running.handle()
        handle.respond(5)
        await stream.__anext__()

        stream.cancel()

        assert await happens(handle.cancelled)
        # It has given up its thread, and counts until the runtime has let go of it.
        other = running.ask()
        later = await running.handle()
        assert running.engine.statistics().active_requests == 2
        handle.break_off("it was cancelled")
        assert running.engine.statistics().active_requests == 1
        later.respond(finish="LENGTH")
        await read(other)

    on_loop(test)


def test_a_request_that_is_cancelled_while_it_waits_is_never_asked(running: Running) -> None:
    async def test() -> None:
        first, second, third = running.ask(), running.ask(replace(PLAIN, max_tokens=2)), running.ask()
        handle = await running.handle()
        statistics = running.engine.statistics()
        assert (statistics.active_requests, statistics.waiting_requests) == (1, 2)

        second.cancel()
        handle.respond(5, finish="LENGTH")

        assert await read(first) == ([5], "length", [])
        later = await running.handle()
        assert later.request.max_generate_length == 20
        later.respond(6, finish="LENGTH")
        assert await read(third) == ([6], "length", [])
        assert running.engine.statistics().generated_tokens == 2

    on_loop(test)


def test_an_error_in_mid_stream_ends_that_answer_only(running: Running) -> None:
    async def test() -> None:
        broken, whole = running.ask(), running.ask()
        handle = await running.handle()
        handle.respond(5)
        assert (await broken.__anext__()).ids == (5,)
        handle.break_off("CUDA has no memory\nat somewhere.cpp:12")

        with pytest.raises(EngineError, match=r"^TensorRT Edge-LLM failed: CUDA has no memory$"):
            await broken.__anext__()
        (await running.handle()).respond(6, finish="LENGTH")
        assert await read(whole) == ([6], "length", [])

    on_loop(test)


def test_the_last_tokens_are_not_lost_between_two_looks(
    running: Running, native: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native.StreamChannel, "late", True)

    async def test() -> None:
        stream = running.ask()
        (await running.handle()).respond(5, 6, finish="LENGTH")

        assert await read(stream) == ([5, 6], "length", [])

    on_loop(test)


def test_an_end_without_a_reason_is_an_error(running: Running) -> None:
    async def test() -> None:
        stream = running.ask()
        (await running.handle()).respond(finish="ERROR")

        with pytest.raises(EngineError, match=r"^TensorRT Edge-LLM ended an answer without saying why$"):
            await stream.__anext__()

    on_loop(test)


def test_a_request_that_is_refused_fails_in_its_stream(running: Running) -> None:
    running.native.refuses = "EDGELLM_INPUT_TOO_LONG: 9 tokens"

    async def test() -> None:
        with pytest.raises(EngineError, match=r"^TensorRT Edge-LLM failed: EDGELLM_INPUT_TOO_LONG: 9 tokens$"):
            await running.ask().__anext__()

    on_loop(test)


def test_a_scheduler_that_stopped_is_a_problem(running: Running) -> None:
    assert running.engine.statistics().problem is None

    running.native.running = False

    assert running.engine.statistics().problem == "TensorRT Edge-LLM's scheduler has stopped"


def test_an_engine_that_is_closed_lets_go_of_everybody(running: Running) -> None:
    async def test() -> None:
        active, waiting = running.ask(), running.ask()
        await running.handle()

        await asyncio.to_thread(running.engine.close)

        for stream in (active, waiting, running.ask()):
            with pytest.raises(EngineError, match=r"^the engine is closed$"):
                await stream.__anext__()
        statistics = running.engine.statistics()
        assert (statistics.problem, statistics.active_requests, statistics.waiting_requests) == (
            "the engine is closed",
            0,
            0,
        )

    on_loop(test)


# How tokens are picked.

# Each field of `Sampling` that is obeyed: a value, and what the request, or its one sequence, says.
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


def told(running: Running, sampling: Sampling) -> Any:
    """The request that *sampling* becomes, with the fields of its one sequence."""
    found: list[Any] = []

    async def test() -> None:
        stream = running.ask(sampling)
        handle = await running.handle()
        found.append(handle.request)
        handle.respond(finish="LENGTH")
        await read(stream)

    on_loop(test)
    return found[0]


def fields_of(request: Any) -> dict[str, Any]:
    return {**vars(request.requests[0]), **vars(request)}


def test_every_field_is_obeyed_or_refused(running: Running) -> None:
    cannot = set(running.engine.cannot) - {"guide.thinking"}

    assert len(cannot) == len(running.engine.cannot) - 1
    assert set(MAPPED) | cannot == {each.name for each in dataclasses.fields(Sampling)}
    assert not set(MAPPED) & cannot
    for name, (value, expected) in MAPPED.items():
        fields = fields_of(told(running, replace(PLAIN, **{name: value})))
        assert {name: fields[name] for name in (*expected, *ALWAYS)} == expected | ALWAYS


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "greedy"),
    [(0.0, 0, 1.0, True), (1.0, 0, 1.0, False), (0.7, 0, 1.0, False), (1.0, 5, 1.0, False), (1.0, 0, 0.9, False)],
)
def test_only_temperature_0_is_greedy(
    running: Running, temperature: float, top_k: int, top_p: float, greedy: bool
) -> None:
    request = told(running, Sampling(max_tokens=1, temperature=temperature, top_k=top_k, top_p=top_p))

    assert request.greedy is greedy
    assert request.top_k == (1 if greedy else top_k)
    assert request.top_p == pytest.approx(top_p, abs=1e-5)


@pytest.mark.parametrize(("kind", "member"), [("grammar", "EBNF"), ("json_schema", "JSON_SCHEMA"), ("regex", "REGEX")])
def test_a_guide_is_told_with_its_kind(running: Running, kind: Any, member: str) -> None:
    guide = fields_of(told(running, replace(PLAIN, guide=Guide(kind=kind, text="text"))))["guided_decoding"]

    assert (guide.type.name, guide.guide) == (member, "text")


def test_a_seed_is_drawn_for_each_request_that_has_none(running: Running) -> None:
    seeds = {fields_of(told(running, PLAIN))["sampling_seed"] for _ in range(3)}

    assert len(seeds) == 3
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"logprobs": 51}, "logprobs is 51; TensorRT Edge-LLM tells at most 50"),
        ({"logit_bias": {1: 101.0}}, "logit_bias is for at most 1024 tokens, between -100 and 100 each"),
        ({"logit_bias": dict.fromkeys(range(1025), 1.0)}, "logit_bias is for at most 1024 tokens"),
        ({"guide": Guide(kind="regex", text="refused")}, "refuses the regex: it uses refused"),
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


# How it is loaded.


def test_the_engine_and_its_checkpoint_are_the_bundle_s(running: Running, thor: Bundle) -> None:
    arguments = running.native.arguments

    assert (arguments["engine_dir"], arguments["checkpoint_dir"]) == (
        str(thor.path / "engine"),
        str(thor.path / "checkpoint"),
    )
    assert (arguments["max_batch_size"], running.engine.max_batch_size, running.engine.max_seq_len) == (1, 1, 2048)


def test_a_bundle_without_its_checkpoint_is_refused(thor: Bundle) -> None:
    shutil.rmtree(thor.path / "checkpoint")

    with pytest.raises(BundleError, match=r"lacks checkpoint .*; build or copy it again"):
        start_engine(thor, TokenCodec(thor.tokenizer_path))


def test_an_engine_that_cannot_be_loaded_is_one_clear_line(thor: Bundle) -> None:
    (thor.path / "engine" / "llm.engine").unlink()

    with pytest.raises(EngineError) as caught:
        start_engine(thor, TokenCodec(thor.tokenizer_path))

    engine = thor.path / "engine"
    assert str(caught.value) == f"TensorRT Edge-LLM cannot load {engine}: no llm.engine in {engine}"


def test_an_edge_llm_that_cannot_be_imported_is_one_clear_line(thor: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_edgellm.runtime", None)

    with pytest.raises(
        EngineError, match=r"^the edge engine needs .*; pip install --no-deps tensorrt-edgellm==0.11.0$"
    ):
        start_engine(thor, TokenCodec(thor.tokenizer_path))


def test_a_machine_that_edge_llm_has_nothing_for_is_one_clear_line(
    thor: Bundle, native: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load() -> ModuleType:
        raise RuntimeError("no payload for this platform\nand all payloads")

    monkeypatch.setattr(importlib.import_module("tensorrt_edgellm.runtime"), "load", load)

    with pytest.raises(EngineError, match=r"^TensorRT Edge-LLM cannot be loaded: no payload for this platform$"):
        start_engine(thor, TokenCodec(thor.tokenizer_path))


# The stand-in itself.


def test_the_stand_in_takes_no_other_field_and_no_other_type(native: ModuleType) -> None:
    request = native.LLMGenerationRequest()

    with pytest.raises(AttributeError, match="has no min_p"):
        request.min_p = 0.1
    with pytest.raises(TypeError, match=r"top_k is 1.5, not int"):
        request.top_k = 1.5
    with pytest.raises(BreachError, match="RequestEngine has no engine"):
        native.RequestEngine(engine="somewhere")

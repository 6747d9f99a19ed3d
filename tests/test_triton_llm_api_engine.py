"""The `tensorrt` and `pytorch` engines on a stand-in for TensorRT-LLM 1.2.1 that takes what its contract says."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import os
import shutil
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from contract import BreachError, llm_arguments
from machines import H100, FakeNvml, install
from nemotron_triton.bundle import Bundle
from nemotron_triton.chat.tokens import Detokenizer, TokenCodec
from nemotron_triton.engine.factory import start_engine
from nemotron_triton.engine.interface import Engine, Guide, Sampling
from nemotron_triton.engine.llm_api import leave_mpi_job
from nemotron_triton.engine.stream import TokenChunk, TokenLogprob, TokenStream
from nemotron_triton.errors import BundleError, EngineError, RequestError

STAND_IN = Path(__file__).parent / "tensorrt_llm_stand_in"
KINDS = ("tensorrt", "pytorch")
PLAIN = Sampling(max_tokens=20, temperature=0.5, top_p=0.9)
PROMPT = [1, 2, 3]
END, *OTHER_ENDS = ENDS = [1533, 1529, 1532]


SINGLE_PROCESS = "TLLM_WORKER_USE_SINGLE_PROCESS"


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    """`tensorrt_llm.llmapi` on a machine with an H100; whatever was imported of it goes again."""
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(H100))
    install(tmp_path / "site", "tensorrt_llm", "1.2.1")
    # Set first, so that what an engine sets goes again.
    monkeypatch.setenv(SINGLE_PROCESS, "")
    monkeypatch.delenv(SINGLE_PROCESS)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.syspath_prepend(STAND_IN)
    torch = ModuleType("torch")
    torch.__dict__.update(float32="float32", tensor=lambda values, dtype: (dtype, values))
    monkeypatch.setitem(sys.modules, "torch", torch)
    yield importlib.import_module("tensorrt_llm.llmapi")
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorrt_llm"]:
        del sys.modules[name]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def gpu_bundle(bundle: Bundle, folder: Path, kind: Any, **changes: Any) -> Bundle:
    """The demo's bundle as if it had been built for an H100."""
    shutil.copytree(bundle.path / "tokenizer", folder / "tokenizer")
    (folder / "engine").mkdir()
    (folder / "engine" / "config.json").write_text('{"version": "1.2.1"}')
    arguments = llm_arguments(kind, model="engine", tokenizer="tokenizer") | changes
    manifest = replace(
        bundle.manifest,
        kind=kind,
        gpu="h100",
        sm=90,
        precision="fp8",
        engine_file="engine",
        llm_args=arguments,
        tool_versions={"tensorrt_llm": "1.2.1"},
        plan={"architecture": {"vocab_size": 1536}},
    )
    return Bundle(folder, manifest)


@pytest.fixture
def loadable(bundle: Bundle, tmp_path: Path, kind: str, stand_in: ModuleType) -> Bundle:
    return gpu_bundle(bundle, tmp_path / "bundle", kind)


def start(bundle: Bundle) -> tuple[Engine, Any]:
    """An engine, and the LLM of the stand-in behind it."""
    engine = start_engine(bundle, TokenCodec(bundle.tokenizer_path))
    return engine, sys.modules["tensorrt_llm.llmapi"].BaseLLM.started[-1]


def ask(engine: Engine, sampling: Sampling = PLAIN) -> TokenStream:
    stream = TokenStream(pace=lambda: 0.0)
    engine.generate(PROMPT, sampling, stream)
    return stream


async def read(stream: TokenStream) -> tuple[list[int], str | None, list[TokenLogprob]]:
    """All of an answer."""
    chunks = [chunk async for chunk in stream]
    ids = [token_id for chunk in chunks for token_id in chunk.ids]
    return ids, chunks[-1].finish_reason, [logprob for chunk in chunks for logprob in chunk.logprobs]


async def settled(condition: Callable[[], bool]) -> None:
    """Let the engine's task run until *condition* holds."""
    while not condition():
        await asyncio.sleep(0)


def on_loop(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(test(), timeout=60)

    asyncio.run(bounded())


def test_an_answer_arrives_token_by_token_and_in_order(loadable: Bundle) -> None:
    engine, llm = start(loadable)
    codec = TokenCodec(loadable.tokenizer_path)

    async def test() -> None:
        stream = ask(engine)
        (request,) = llm.requests
        detokenizer, texts = Detokenizer(codec), []
        for character in "streams":
            request.respond(codec.id_of(character.encode()))
            chunk: TokenChunk = await stream.__anext__()
            texts.append(detokenizer.feed(chunk.ids))
        request.respond(finish="length")

        assert texts == list("streams")
        assert await read(stream) == ([], "length", [])
        assert request.prompt_token_ids == PROMPT

    on_loop(test)


@pytest.mark.parametrize("end", [*ENDS, 77])
def test_an_end_token_is_not_among_the_tokens(loadable: Bundle, end: int) -> None:
    engine, llm = start(loadable)

    async def test() -> None:
        stream = ask(engine, replace(PLAIN, stop_ids=(77,)))
        llm.requests[0].respond(5, 6)
        llm.requests[0].respond(7, end, finish="stop")

        assert await read(stream) == ([5, 6, 7], "stop", [])

    on_loop(test)


def test_a_request_that_is_cancelled_is_aborted_at_once(loadable: Bundle) -> None:
    engine, llm = start(loadable)

    async def test() -> None:
        stream = ask(engine)
        (request,) = llm.requests
        request.respond(5)
        await stream.__anext__()
        assert not request.aborted

        stream.cancel()

        assert request.aborted
        await settled(lambda: engine.statistics().active_requests == 0)
        statistics = engine.statistics()
        assert (statistics.waiting_requests, statistics.generated_tokens, statistics.problem) == (0, 1, None)

    on_loop(test)


def test_what_waits_and_what_runs_is_counted(loadable: Bundle) -> None:
    engine, llm = start(loadable)

    async def test() -> None:
        streams = [ask(engine), ask(engine), ask(engine)]
        llm.requests[0].respond(5, 6)
        await streams[0].__anext__()
        statistics = engine.statistics()

        assert (statistics.active_requests, statistics.waiting_requests, statistics.generated_tokens) == (1, 2, 2)
        assert (engine.max_seq_len, engine.max_batch_size) == (2048, 8)
        engine.close()

    on_loop(test)


def test_an_error_in_mid_stream_ends_that_answer_only(loadable: Bundle, stand_in: ModuleType) -> None:
    engine, llm = start(loadable)

    async def test() -> None:
        broken, whole = ask(engine), ask(engine)
        llm.requests[0].respond(5)
        llm.requests[0].break_off(stand_in.RequestError("no blocks left\nat somewhere.cpp:12"))
        llm.requests[1].respond(6, finish="length")

        assert (await broken.__anext__()).ids == (5,)
        with pytest.raises(EngineError, match=r"^TensorRT-LLM failed: no blocks left$"):
            await broken.__anext__()
        assert await read(whole) == ([6], "length", [])
        assert engine.statistics().problem is None

    on_loop(test)


def test_a_request_that_is_refused_fails_in_its_stream(loadable: Bundle) -> None:
    engine, _ = start(loadable)

    async def test() -> None:
        stream = TokenStream()
        engine.generate([1] * 2000, PLAIN, stream)

        with pytest.raises(
            RequestError, match=r"TensorRT-LLM refuses the request: The sum of prompt .* max_num_tokens$"
        ):
            await stream.__anext__()

    on_loop(test)


@pytest.mark.parametrize("reason", ["timeout", "cancelled"])
def test_an_end_that_nobody_asked_for_is_an_error(loadable: Bundle, reason: str) -> None:
    engine, llm = start(loadable)

    async def test() -> None:
        stream = ask(engine)
        llm.requests[0].respond(finish=reason)

        with pytest.raises(EngineError, match=f"^TensorRT-LLM ended an answer with '{reason}'$"):
            await stream.__anext__()

    on_loop(test)


def test_a_dead_worker_is_a_problem_and_nobody_waits_for_it(loadable: Bundle) -> None:
    engine, llm = start(loadable)

    async def test() -> None:
        waiting = ask(engine)
        assert engine.statistics().problem is None

        llm.die()

        assert engine.statistics().problem == "TensorRT-LLM's executor has stopped"
        for stream in (waiting, ask(engine)):
            with pytest.raises(EngineError, match=r"^TensorRT-LLM's executor has stopped$"):
                await stream.__anext__()
        engine.close()

    on_loop(test)


def test_an_engine_that_is_closed_lets_go_of_everybody(loadable: Bundle) -> None:
    engine, llm = start(loadable)

    async def test() -> None:
        stream = ask(engine)

        await asyncio.to_thread(engine.close)

        for each in (stream, ask(engine)):
            with pytest.raises(EngineError, match=r"^the engine is closed$"):
                await each.__anext__()
        assert llm._executor is None
        await settled(lambda: engine.statistics().waiting_requests == 0)

    on_loop(test)


# How tokens are picked.

GUIDED = {
    "grammar": {"grammar": 'root ::= "a"'},
    "json_schema": {"json": '{"type": "object"}'},
    "regex": {"regex": "[a-z]+"},
}
# Each field of `Sampling`: a value, and what the LLM API is told.
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
# What is told without any of these, greedy aside.
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


def told(bundle: Bundle, sampling: Sampling) -> Any:
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

    assert set(MAPPED) == {each.name for each in dataclasses.fields(Sampling)}
    assert set(start(full)[0].cannot) == cannot
    assert set(start(several)[0].cannot) == cannot | {"min_tokens"} | ({"logprobs"} if kind == "tensorrt" else set())
    assert all(reason and "\n" not in reason for reason in start(several)[0].cannot.values())
    for name, (value, expected) in MAPPED.items():
        if name not in cannot:
            several_ends = name in ("ignore_end", "stop_ids")
            params = told(several if several_ends else full, replace(PLAIN, **{name: value}))
            assert holds(params, expected), (name, expected)


def test_nothing_is_told_that_was_not_asked_for(loadable: Bundle) -> None:
    params = told(loadable, PLAIN)

    assert holds(params, UNASKED | {"max_tokens": 20, "temperature": 0.5, "top_p": 0.9, "top_k": 0})
    assert not params.greedy


@pytest.mark.parametrize(("temperature", "greedy"), [(0.0, True), (1.0, False)])
def test_only_temperature_0_is_greedy(loadable: Bundle, temperature: float, greedy: bool) -> None:
    params = told(loadable, Sampling(max_tokens=1, temperature=temperature, top_p=1.0))

    assert params.greedy is greedy
    assert holds(params, {"temperature": None if greedy else temperature})


@pytest.mark.parametrize("guide", ["grammar", "json_schema", "regex"])
def test_a_guide_goes_into_the_one_field_for_it(loadable: Bundle, guide: Any) -> None:
    ((field, text),) = GUIDED[guide].items()

    params = told(loadable, replace(PLAIN, guide=Guide(kind=guide, text=text)))

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

    seeds = {told(compiled, PLAIN).seed for _ in range(3)}

    assert len(seeds) == 3
    assert told(compiled, replace(PLAIN, seed=-1)).seed == 2**64 - 1


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


# How it is loaded.


def test_paths_are_the_bundle_s_wherever_it_lies_and_foreign_code_never_runs(
    bundle: Bundle, tmp_path: Path, stand_in: ModuleType, kind: str
) -> None:
    built = gpu_bundle(bundle, tmp_path / "built", kind, trust_remote_code=True)
    moved = Bundle(built.path.rename(tmp_path / "moved"), built.manifest)

    _, llm = start(moved)

    assert llm.kind == kind
    assert llm.arguments == llm_arguments(kind) | {  # type: ignore[arg-type]
        "model": str(tmp_path / "moved" / "engine"),
        "tokenizer": str(tmp_path / "moved" / "tokenizer"),
        "trust_remote_code": False,
    }


@pytest.mark.parametrize("name", ["model", "tokenizer"])
@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("../elsewhere", "is a link to what lies outside of the bundle; do not serve it"),
        ("/", "is a link to what lies outside of the bundle; do not serve it"),
        ("nothing", "lacks nothing"),
        ("engine/config.json", "is not a folder"),
        (None, "does not say where its"),
    ],
)
def test_a_path_that_leads_elsewhere_is_refused(
    bundle: Bundle, tmp_path: Path, stand_in: ModuleType, name: str, path: str | None, complaint: str
) -> None:
    (tmp_path / "elsewhere").mkdir()
    odd = gpu_bundle(bundle, tmp_path / "bundle", "pytorch", **{name: path})

    with pytest.raises(BundleError, match=complaint):
        start_engine(odd, TokenCodec(odd.tokenizer_path))


def test_a_bundle_without_arguments_is_refused(loadable: Bundle) -> None:
    bare = Bundle(loadable.path, replace(loadable.manifest, llm_args=None))

    with pytest.raises(BundleError, match="has no arguments for the LLM API; build it again"):
        start_engine(bare, TokenCodec(bare.tokenizer_path))


def test_a_model_that_cannot_be_loaded_is_one_clear_line(bundle: Bundle, tmp_path: Path, stand_in: ModuleType) -> None:
    broken = gpu_bundle(bundle, tmp_path / "bundle", "pytorch")
    (broken.path / "engine" / "config.json").unlink()

    with pytest.raises(EngineError) as caught:
        start_engine(broken, TokenCodec(broken.tokenizer_path))

    engine = tmp_path / "bundle" / "engine"
    assert str(caught.value) == f"TensorRT-LLM cannot load {engine}: no config.json in {engine}"


def test_a_tensorrt_llm_that_cannot_be_imported_is_one_clear_line(
    loadable: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_llm.llmapi", None)
    contained = Bundle(loadable.path, replace(loadable.manifest, container="the/image:1"))

    with pytest.raises(EngineError, match=r"^TensorRT-LLM cannot be imported: .*; serve it in the/image:1$"):
        start_engine(contained, TokenCodec(contained.tokenizer_path))


def test_the_mpi_job_of_the_server_is_left_and_mpi_s_settings_are_kept() -> None:
    job = {"OMPI_COMM_WORLD_RANK", "OMPI_MCA_orte_launch", "ORTE_SCHIZO", "PMIX_RANK", "PMIX_SERVER_URI3", "PMI_FD"}
    kept = {"OMPI_MCA_btl", "PMIX_MCA_gds", "OMPI_HOME", "PATH", "SLURM_JOB_ID"}
    environment = dict.fromkeys(job | kept, "x")

    leave_mpi_job(environment)

    assert set(environment) == kept


@pytest.mark.parametrize("asked", [None, "0", "1"])
def test_only_the_engine_in_c_runs_in_this_process_unless_told_otherwise(
    loadable: Bundle, kind: str, asked: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if asked:
        monkeypatch.setenv(SINGLE_PROCESS, asked)

    engine, _ = start(loadable)
    engine.close()

    assert os.environ.get(SINGLE_PROCESS) == (asked or {"tensorrt": "1", "pytorch": None}[kind])


# The stand-in itself.


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"thinking_token_budget": 5}, "not verified for 1.2.1"),
        ({"max_new_tokens": 5}, "SamplingParams has no max_new_tokens"),
        ({"top_k": 1.5}, "not int"),
        ({"ignore_eos": 1}, "not bool"),
        ({"max_tokens": True}, "not int"),
    ],
)
def test_the_stand_in_takes_no_other_field_and_no_other_type(
    stand_in: ModuleType, values: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(BreachError, match=complaint):
        stand_in.SamplingParams(**values)


def test_the_stand_in_takes_one_guide(stand_in: ModuleType) -> None:
    with pytest.raises(ValueError, match="Only one guide"):
        stand_in.GuidedDecodingParams(regex="a", json="{}")


def test_the_stand_in_takes_no_other_argument(bundle: Bundle, tmp_path: Path, stand_in: ModuleType) -> None:
    odd = gpu_bundle(bundle, tmp_path / "bundle", "tensorrt", cuda_graph_config={})

    with pytest.raises(EngineError, match="tensorrt has no cuda_graph_config"):
        start_engine(odd, TokenCodec(odd.tokenizer_path))

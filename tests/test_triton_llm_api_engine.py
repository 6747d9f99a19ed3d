"""The `tensorrt` and `pytorch` engines on a stand-in for TensorRT-LLM 1.2.1 that follows its contract."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from chat_requests import read as read_request
from contract import llm_arguments
from engine_answers import on_loop, read, settled
from nemotron_client.events import ContentDelta
from nemotron_triton.bundle import Bundle
from nemotron_triton.chat.tokens import Detokenizer, TokenCodec
from nemotron_triton.engine.llm_api import leave_mpi_job
from nemotron_triton.engine.start import start_engine
from nemotron_triton.engine.stream import TokenChunk, TokenStream
from nemotron_triton.errors import BundleError, EngineError, RequestError
from nemotron_triton.serving.answering import Answering, Step
from tensorrt_llm_engine import (
    ENDS,
    KINDS,
    PLAIN,
    PROMPT,
    SINGLE_PROCESS,
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


def test_the_part_of_a_prompt_that_was_cached_is_told_as_each_kind_can(loadable: Bundle, kind: str) -> None:
    """The C++ executor reports blocks with the last response, the other tokens with each."""
    config = {"version": "1.2.1", "build_config": {"plugin_config": {"tokens_per_block": 2}}}
    (loadable.path / "engine" / "config.json").write_text(json.dumps(config))
    engine, llm = start(loadable)

    async def test() -> None:
        stream = ask(engine)
        (request,) = llm.requests
        request.cached_tokens, request.reused_blocks = (2, 0) if kind == "pytorch" else (0, 1)
        request.respond(5, finish="length")

        assert await read(stream) == ([5], "length", [])
        assert stream.cached_tokens == 2

    on_loop(test)
    assert engine.kv_tokens_per_block == {"pytorch": 32, "tensorrt": 2}[kind]


def test_a_tensorrt_engine_that_does_not_say_its_block_size_tells_no_cached_tokens(
    bundle: Bundle, tmp_path: Path, stand_in: ModuleType
) -> None:
    engine, llm = start(gpu_bundle(bundle, tmp_path / "bundle", "tensorrt"))

    async def test() -> None:
        stream = ask(engine)
        llm.requests[0].respond(5, finish="length")

        assert await read(stream) == ([5], "length", [])
        assert (stream.cached_tokens, engine.kv_tokens_per_block) == (None, None)

    on_loop(test)


def test_a_release_that_tells_no_cached_tokens_answers_all_the_same(loadable: Bundle) -> None:
    engine, llm = start(loadable)

    async def test() -> None:
        stream = ask(engine)
        del llm.requests[0].cached_tokens
        llm.requests[0].respond(5, finish="length")

        assert await read(stream) == ([5], "length", [])
        assert stream.cached_tokens is None

    on_loop(test)


@pytest.mark.parametrize("end", [*ENDS, 77])
def test_an_end_token_is_not_among_the_tokens(loadable: Bundle, end: int) -> None:
    engine, llm = start(loadable)

    async def test() -> None:
        stream = ask(engine, replace(PLAIN, stop_ids=(77,)))
        llm.requests[0].respond(5, 6)
        llm.requests[0].respond(7, end, finish="stop")

        assert await read(stream) == ([5, 6, 7], "stop", [])
        assert stream.stop_token_id == end

    on_loop(test)


def test_thinking_is_ended_by_a_second_request_behind_the_first(loadable: Bundle) -> None:
    engine, llm = start(loadable)
    codec = TokenCodec(loadable.tokenizer_path)

    async def test() -> None:
        answering = Answering(loadable, codec, engine)
        prepared = answering.prepare(read_request(text_input="Yes or no?<think>\n", max_thinking_tokens=2))
        stream = TokenStream()
        answer = asyncio.create_task(collected(answering.answer(prepared, prepared.sampling, stream)))
        await settled(lambda: len(llm.requests) == 1)
        thought = codec.encode_text("Hm. Yes\n")
        llm.requests[0].respond(*thought, *codec.encode_text("no"))
        await settled(lambda: len(llm.requests) == 2)
        first, second = llm.requests
        second.respond(*codec.encode_text("Yes."), finish="stop")

        events = [event for step in await answer for event in step.events]
        assert "".join(event.text for event in events if isinstance(event, ContentDelta)) == "Yes."
        assert first.aborted
        assert first.prompt_token_ids == prepared.ids
        assert second.prompt_token_ids == [*prepared.ids, *thought, *codec.encode_text("</think>\n\n")]

    on_loop(test)
    assert not engine.statistics().active_requests


async def collected(steps: AsyncIterable[Step]) -> list[Step]:
    return [step async for step in steps]


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


def test_a_stream_of_the_cpp_executor_with_log_probabilities_is_never_aborted(loadable: Bundle, kind: str) -> None:
    """TensorRT-LLM's C++ executor would crash, and the server with it (its issue 10810)."""
    engine, llm = start(loadable)

    async def test() -> None:
        stream = ask(engine, replace(PLAIN, logprobs=0))
        (request,) = llm.requests
        request.respond(5)
        await stream.__anext__()

        stream.cancel()

        assert request.aborted is (kind == "pytorch")
        request.respond(6, finish="length")
        await settled(lambda: engine.statistics().active_requests == 0)
        assert engine.statistics().problem is None

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
def test_an_end_without_a_cancel_is_an_error(loadable: Bundle, reason: str) -> None:
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


def test_closing_an_engine_ends_every_request(loadable: Bundle) -> None:
    engine, llm = start(loadable)

    async def test() -> None:
        stream = ask(engine)

        await asyncio.to_thread(engine.close)

        for answer in (stream, ask(engine)):
            with pytest.raises(EngineError, match=r"^the engine is closed$"):
                await answer.__anext__()
        assert llm._executor is None
        await settled(lambda: engine.statistics().waiting_requests == 0)

    on_loop(test)


def test_paths_are_the_bundle_s_wherever_it_lies_and_foreign_code_never_runs(
    bundle: Bundle, tmp_path: Path, stand_in: ModuleType, kind: str
) -> None:
    built = gpu_bundle(bundle, tmp_path / "built", kind, trust_remote_code=True)
    moved = Bundle(built.path.rename(tmp_path / "moved"), built.manifest)

    _, llm = start(moved)

    assert llm.kind == kind
    assert llm.arguments == llm_arguments(kind) | {
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
def test_only_the_engine_in_c_runs_in_this_process_by_default(
    loadable: Bundle, kind: str, asked: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if asked:
        monkeypatch.setenv(SINGLE_PROCESS, asked)

    engine, _ = start(loadable)
    engine.close()

    assert os.environ.get(SINGLE_PROCESS) == (asked or {"tensorrt": "1", "pytorch": None}[kind])

"""The `edge` engine on a stand-in for the binding of TensorRT Edge-LLM 0.11.0."""

from __future__ import annotations

import asyncio
import importlib
import shutil
import sys
import threading
from collections.abc import AsyncIterable, Awaitable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from chat_requests import read as read_request
from edge_llm_engine import PLAIN, Running, edge_llm, running_engine, thor_bundle
from engine_answers import on_loop, read
from nemotron_client.events import ContentDelta
from nemotron_triton.bundle import Bundle
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.engine.start import start_engine
from nemotron_triton.engine.stream import TokenStream
from nemotron_triton.errors import BundleError, EngineError, RequestError
from nemotron_triton.serving.answering import Answering, Step
from patience import PATIENCE_S

END = 1533
CONTROL = "<|eot_id|>"


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
        # Where the runtime keeps it to itself, it is not told.
        assert stream.stop_token_id == (END if END in last else None)
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
    """Edge-LLM would read it as the token, so that the message could pose as a system message."""

    async def test() -> None:
        spelt = running.ids(f"Häuser? {CONTROL}\n")
        assert running.codec.control_id(CONTROL) not in spelt

        with pytest.raises(
            RequestError, match=r"reads this prompt of \d+ tokens as \d+: it takes the spelling of a co"
        ):
            await running.ask(prompt=spelt).__anext__()
        assert running.native.handles.empty()

    on_loop(test)


def test_thinking_is_ended_by_a_second_request_behind_the_first(running: Running, thor: Bundle) -> None:
    """Though the runtime has one place, and reads in fewer tokens what the model wrote in many."""

    async def test() -> None:
        answering = Answering(thor, running.codec, running.engine)
        prepared = answering.prepare(read_request(text_input="Yes or no?<think>\n", max_thinking_tokens=2))
        answer = asyncio.create_task(collected(answering.answer(prepared, prepared.sampling, TokenStream())))
        first = await running.handle()
        first.respond(*(running.ids(letter)[0] for letter in "Sweden\nno"))
        second = await running.handle()
        second.respond(*running.ids("Yes."), finish="END_ID")

        events = [event for step in await answer for event in step.events]
        assert "".join(event.text for event in events if isinstance(event, ContentDelta)) == "Yes."
        assert first.cancelled.is_set()
        assert second.prompt == "Yes or no?<think>\nSweden\n</think>\n\n"

    on_loop(test)


async def collected(steps: AsyncIterable[Step]) -> list[Step]:
    return [step async for step in steps]


def test_what_a_model_wrote_may_be_spelled_in_other_tokens_than_the_tokenizers(running: Running) -> None:
    """A prompt that goes on behind an answer, whose tokens the model chose."""

    async def test() -> None:
        written = [running.ids(CONTROL, CONTROL)[0], *(running.ids(letter)[0] for letter in "Sweden</think>")]
        assert len(running.codec.respelled(written)) < len(written)
        stream = running.ask(prompt=written)
        (await running.handle()).respond(5, finish="LENGTH")

        assert await read(stream) == ([5], "length", [])

    on_loop(test)


def test_a_stop_token_of_the_request_ends_it(running: Running) -> None:
    async def test() -> None:
        stream = running.ask(replace(PLAIN, stop_ids=(77,)))
        handle = await running.handle()
        handle.respond(5, 77, 6)

        assert await read(stream) == ([5], "stop", [])
        assert stream.stop_token_id == 77
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
        # It has freed its thread, and counts until the runtime has ended it.
        neighbour = running.ask()
        later = await running.handle()
        assert running.engine.statistics().active_requests == 2
        handle.break_off("it was cancelled")
        assert running.engine.statistics().active_requests == 1
        later.respond(finish="LENGTH")
        await read(neighbour)

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


def test_closing_an_engine_ends_every_request(running: Running) -> None:
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

"""The service without Triton: every request ends once, however loop, queue and senders behave."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from nemotron_triton.bundle import Bundle
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.engine.interface import Sampling
from nemotron_triton.engine.stream import TokenStream
from nemotron_triton.errors import ClientGoneError, EngineError
from nemotron_triton.serving.call import Call, triton_error
from nemotron_triton.serving.service import Service
from patience import wait_until
from pb_utils import PB_UTILS, Sender, request
from started_service import Engine, Watch, engine_of, start


class Silent(Engine):
    """An engine that generates nothing."""

    def generate(self, _ids: Sequence[int], _sampling: Sampling, _stream: TokenStream) -> None:
        pass


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def service(bundle: Bundle, watch: Watch) -> Iterator[Service]:
    service = start(bundle, watch)
    yield service
    service.close()


def test_a_request_that_is_stopped_before_its_first_step_is_ended(service: Service) -> None:
    """Submit and stop meet in one turn of a loop that was busy."""
    sender, busy = Sender(), threading.Event()
    service._loop.call_soon_threadsafe(busy.wait, 10)

    service.submit(request(sender))
    (call,) = service.requests.calls()
    service.stop(call, ClientGoneError("cancelled: the client went away"))
    busy.set()

    assert sender.ended.wait(10)
    wait_until(lambda: not service.requests.calls())
    (record,) = service.requests.ended()
    assert (sender.finals, record.outcome) == (1, "cancelled")


def test_a_last_response_that_cannot_be_sent_is_a_problem_of_the_server(service: Service, watch: Watch) -> None:
    service.submit(request(Sender(fails=True)))

    wait_until(lambda: bool(watch.reported))
    assert "a last response could not be sent: no space left in /dev/shm" in watch.reported[0]
    assert not service.requests.calls()


def test_a_request_that_cannot_even_be_named_is_ended(service: Service) -> None:
    sender = Sender()
    odd = request(sender)

    def request_id() -> str:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    odd.request_id = request_id
    service.submit(odd)

    assert sender.ended.wait(10)
    assert sender.responses[-1].error.message == "INVALID_ARGUMENT: the request's id is not UTF-8"


def test_answers_on_their_way_outlive_the_wait_of_the_others(bundle: Bundle, watch: Watch) -> None:
    """Four sequences of one request in two slots: two of them wait longer than a request may that has not begun."""
    service, sender = start(bundle, watch, max_queue_ms=50), Sender()
    engine_of(service).go.clear()

    service.submit(request(sender, num_return_sequences=np.int32(4)))
    wait_until(lambda: service.requests.generating == 2)
    time.sleep(0.2)
    engine_of(service).go.set()

    assert sender.ended.wait(10)
    assert [response.error for response in sender.responses] == [None] * 4
    service.close()


def test_the_time_to_wait_begins_before_the_prompt_is_made(bundle: Bundle, watch: Watch) -> None:
    service, sender, busy = start(bundle, watch, max_queue_ms=50), Sender(), threading.Event()
    with ThreadPoolExecutor(1) as threads:
        service._loop.set_default_executor(threads)
        threads.submit(busy.wait, 30)

        service.submit(request(sender, text_input="Hello " * 1000))
        waiting = service.requests.load.waiting

        assert sender.ended.wait(10)
        busy.set()
    assert waiting == 1
    assert "waited 50 ms and its turn has not come" in sender.responses[-1].error.message
    wait_until(lambda: not service.requests.calls())
    (record,) = service.requests.ended()
    assert record.queue_s
    assert record.queue_s >= 0.05
    service.close()


def test_a_request_that_cannot_be_asked_about_is_not_taken_for_abandoned() -> None:
    sender = Sender()

    def is_cancelled() -> bool:
        raise RuntimeError("the response factory is gone")

    sender.is_cancelled = is_cancelled  # type: ignore[method-assign]

    assert not Call(sender, PB_UTILS).is_abandoned()


def test_the_text_of_a_request_is_measured_in_bytes() -> None:
    sender, text = Sender(), "日本語"
    call = Call(sender, PB_UTILS)

    call.read(request(sender, text_input=text, messages="abc"))

    assert call.size_bytes == len(text.encode()) + 3


@pytest.mark.parametrize("text", ["日" * 5000, "\ud800" * 5000, "x" * 5000, "🙂" * 5000])
def test_an_error_fits_into_a_status_however_it_is_written(text: str) -> None:
    message = triton_error(PB_UTILS, text, 0).message

    assert 1990 <= len(message.encode()) <= 2000


def test_the_kv_cache_holds_the_prompts_and_answers_in_progress(service: Service, bundle: Bundle) -> None:
    senders = [Sender(), Sender()]
    engine_of(service).go.clear()
    memory = bundle.manifest.memory

    for sender in senders:
        service.submit(request(sender, text_input="Hello " * 50))
    wait_until(lambda: service.requests.generating == 2)
    used = service.requests.load.kv_cache_used_ratio
    engine_of(service).go.set()

    assert all(sender.ended.wait(10) for sender in senders)
    prompt_tokens = senders[0].responses[-1].tensors["num_input_tokens"].item()
    assert used == pytest.approx(2 * prompt_tokens * memory.kv_bytes_per_token / memory.kv_cache_bytes)
    wait_until(lambda: service.requests.load.kv_cache_used_ratio == 0)


def test_what_waits_may_hold_so_much_text_and_no_more(service: Service) -> None:
    senders, busy = [Sender() for _ in range(6)], threading.Event()
    service._loop.call_soon_threadsafe(busy.wait, 30)

    for sender in senders:
        service.submit(request(sender, text_input="x" * (60 << 20)))
    refused = [sender.responses[-1].error.message for sender in senders if sender.finals]
    busy.set()

    assert len(refused) == 2
    assert all("the requests here hold" in message and "retry later" in message for message in refused)
    for sender in senders:
        assert sender.ended.wait(60)


def test_an_engine_that_does_not_wake_up_is_closed_again(bundle: Bundle, watch: Watch) -> None:
    engines: list[Engine] = []

    class Kept(Silent):
        def __init__(self, bundle: Bundle, codec: TokenCodec) -> None:
            super().__init__(bundle, codec)
            engines.append(self)

    with pytest.raises(EngineError, match=r"the engine generated nothing within 0.2 s of its start"):
        start(bundle, watch, Kept, max_engine_silence_ms=200)

    assert engines[0].closed

"""The service without Triton: every request ends once, however loop, queue and senders behave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nemotron_triton.bundle import Bundle
from nemotron_triton.chat.render import Prompt
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.engine import interface
from nemotron_triton.engine.interface import EngineStatistics, Sampling
from nemotron_triton.engine.start import start_engine
from nemotron_triton.engine.stream import TokenStream
from nemotron_triton.errors import ClientGoneError, EngineError
from nemotron_triton.serving.call import Call, triton_error
from nemotron_triton.serving.service import Service, StartEngine
from nemotron_triton.serving.settings import Settings
from patience import wait_until

FINAL = 1


class Engine(interface.Engine):
    """Generates one word for each request, once the test lets it; the warm-up passes."""

    max_seq_len = 2048
    max_batch_size = 2
    cannot: Mapping[str, str] = {}

    def __init__(self, _bundle: Bundle, codec: TokenCodec) -> None:
        self.ids = codec.encode(Prompt("word", "\ufdd0", ()))
        self.go = threading.Event()
        self.go.set()
        self.closed = False

    def generate(self, _ids: Sequence[int], _sampling: Sampling, stream: TokenStream) -> None:
        async def say() -> None:
            while not self.go.is_set() and not stream.cancelled:
                await asyncio.sleep(0.002)
            stream.put(self.ids)
            stream.put((), "stop")

        self._task = asyncio.get_running_loop().create_task(say())

    def statistics(self) -> EngineStatistics:
        return EngineStatistics(active_requests=0, waiting_requests=0, generated_tokens=0)

    def close(self) -> None:
        self.closed = True


class Thinking(Engine):
    """One token at each turn of the loop: a think block, and text behind it."""

    def __init__(self, bundle: Bundle, codec: TokenCodec) -> None:
        super().__init__(bundle, codec)
        self.ids = codec.encode(Prompt(f"<think>\nYes.\n</think>\n\n{'A word and another one. ' * 10}", "\ufdd0", ()))

    def generate(self, _ids: Sequence[int], sampling: Sampling, stream: TokenStream) -> None:
        async def say() -> None:
            for token_id in self.ids[: sampling.max_tokens]:
                stream.put((token_id,))
                await asyncio.sleep(0)
            await asyncio.to_thread(self.go.wait, 30)
            stream.put((), "stop")

        self._task = asyncio.get_running_loop().create_task(say())


class Calling(Thinking):
    """One token at each turn of the loop: a call with a long argument."""

    def __init__(self, bundle: Bundle, codec: TokenCodec) -> None:
        super().__init__(bundle, codec)
        call = json.dumps([{"name": "note", "arguments": {"text": "A word and another one. " * 10}}])
        self.ids = codec.encode(Prompt(f"Yes.\n<TOOLCALL>{call}</TOOLCALL>", "\ufdd0", ()))


class Silent(Engine):
    """An engine that generates nothing."""

    def generate(self, _ids: Sequence[int], _sampling: Sampling, _stream: TokenStream) -> None:
        pass


@dataclass
class Sender:
    """A response sender that keeps the responses, or fails."""

    responses: list[Any] = field(default_factory=list)
    finals: int = 0
    fails: bool = False
    ended: threading.Event = field(default_factory=threading.Event)

    def send(self, response: Any, flags: int = 0) -> None:
        if self.fails:
            raise MemoryError("no space left in /dev/shm")
        self.responses.append(response)
        if flags == FINAL:
            self.finals += 1
            self.ended.set()

    def is_cancelled(self) -> bool:
        return False


class Anything:
    """A metric, or a family of them, whose values no test reads."""

    COUNTER, GAUGE, HISTOGRAM = range(3)

    def __init__(self, **_: Any) -> None:
        pass

    def __getattr__(self, _: str) -> Callable[..., Anything]:
        return lambda *_, **__: Anything()


def error(message: str, code: int) -> SimpleNamespace:
    """A `TritonError`, with its codes as attributes."""
    return SimpleNamespace(message=message, code=code)


for number, code_name in enumerate(("INVALID_ARG", "UNAVAILABLE", "CANCELLED", "INTERNAL")):
    setattr(error, code_name, number)
# The part of `triton_python_backend_utils` that is used.
PB_UTILS = SimpleNamespace(
    TRITONSERVER_RESPONSE_COMPLETE_FINAL=FINAL,
    TritonError=error,
    MetricFamily=Anything,
    InferenceResponse=lambda output_tensors, error=None: SimpleNamespace(tensors=dict(output_tensors), error=error),
    Tensor=lambda name, array: (name, array),
)


def request(sender: Sender, *, request_id: str = "a", **tensors: Any) -> Any:
    values = tensors if "messages" in tensors else {"text_input": "Hello", **tensors}
    inputs = []
    for name, value in values.items():
        if value is None:
            continue
        array = np.array([[value.encode() if isinstance(value, str) else value]])
        inputs.append(SimpleNamespace(name=lambda name=name: name, as_numpy=lambda array=array: array))
    return SimpleNamespace(
        get_response_sender=lambda: sender,
        request_id=lambda: request_id,
        timeout=lambda: 0,
        parameters=lambda: json.dumps({}),
        inputs=lambda: inputs,
    )


@dataclass
class Watch:
    """An observer that keeps the records that it gets."""

    reported: list[str] = field(default_factory=list)

    def report(self, problem: str) -> None:
        self.reported.append(problem)

    def close(self) -> None:
        pass

    def leave(self) -> None:
        pass


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def service(bundle: Bundle, watch: Watch) -> Iterator[Service]:
    service = start(bundle, watch)
    yield service
    service.close()


def start(bundle: Bundle, watch: Any, engine: StartEngine = Engine, **settings: int) -> Service:
    return Service(bundle, Settings(**settings), PB_UTILS, start_engine=engine, watch=lambda *_: watch)


def _engine(service: Service) -> Engine:
    engine = service._engine
    assert isinstance(engine, Engine)
    return engine


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
    _engine(service).go.clear()

    service.submit(request(sender, num_return_sequences=np.int32(4)))
    wait_until(lambda: service.requests.generating == 2)
    time.sleep(0.2)
    _engine(service).go.set()

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


@pytest.mark.parametrize(("options", "streams"), [({}, False), ({"stream_tool_calls": np.bool_(True)}, True)])
def test_the_arguments_of_a_call_come_in_pieces_if_asked_for_and_once(
    bundle: Bundle, watch: Watch, options: dict[str, Any], streams: bool
) -> None:
    sender = Sender()
    calling = start(bundle, watch, Calling, stream_interval_ms=0)
    messages = json.dumps([{"role": "user", "content": "Hi"}])
    tools = json.dumps([{"type": "function", "function": {"name": "note"}}])

    try:
        calling.submit(
            request(sender, text_input=None, messages=messages, tools=tools, stream=np.bool_(True), **options)
        )

        assert sender.ended.wait(10)
    finally:
        calling.close()
    sent = [response.tensors["tool_calls"].item() for response in sender.responses if "tool_calls" in response.tensors]
    first, *others = [delta for deltas in sent for delta in json.loads(deltas)]
    assert (first["index"], first["type"], first["function"]["name"]) == (0, "function", "note")
    assert bool(others) is streams
    assert all(delta.keys() == {"index", "function"} for delta in others)
    arguments = "".join(delta["function"]["arguments"] for delta in [first, *others])
    assert json.loads(arguments) == {"text": "A word and another one. " * 10}
    assert sender.responses[-1].tensors["finish_reason"].item() == b"tool_calls"


def test_an_echo_stands_before_the_answer_and_is_no_part_of_it(service: Service) -> None:
    sender = Sender()
    service._settings = replace(service._settings, log_text=1)

    service.submit(request(sender, exclude_input_in_output=np.bool_(False)))

    assert sender.ended.wait(10)
    assert sender.responses[-1].tensors["text_output"].item() == b"Helloword"
    wait_until(lambda: not service.requests.calls())
    (record,) = service.requests.ended()
    assert (record.prompt_text, record.answer_text) == ("Hello", "word")


def test_an_answer_in_thought_alone_has_no_token_after_it(service: Service) -> None:
    """Not even where the prompt is echoed."""
    sender = Sender()

    service.submit(request(sender, text_input="Hello<think>", exclude_input_in_output=np.bool_(False)))

    assert sender.ended.wait(10)
    wait_until(lambda: not service.requests.calls())
    (record,) = service.requests.ended()
    assert record.first_token_s
    assert record.first_answer_token_s is None


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
    _engine(service).go.clear()
    memory = bundle.manifest.memory

    for sender in senders:
        service.submit(request(sender, text_input="Hello " * 50))
    wait_until(lambda: service.requests.generating == 2)
    used = service.requests.load.kv_cache_used_ratio
    _engine(service).go.set()

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


def test_the_first_text_does_not_wait_for_a_pause_behind_tokens_that_show_nothing(bundle: Bundle, watch: Watch) -> None:
    """Among 30,000 streams a pause is 10 s."""
    service, sender = start(bundle, watch, Thinking, stream_interval_ms=10_000), Sender()
    _engine(service).go.clear()

    with contextlib.ExitStack() as others:
        for _ in range(30_000):
            others.enter_context(service.requests.answering(object(), 1))  # type: ignore[arg-type]
        begin = time.monotonic()
        service.submit(request(sender, stream=np.bool_(True), thinking=np.bool_(True)))
        wait_until(lambda: bool(sender.responses))
        took_s = time.monotonic() - begin
        first = list(sender.responses)
        _engine(service).go.set()

        assert sender.ended.wait(10)
    assert took_s < 5
    assert first[0].tensors["reasoning_output"].item().startswith(b"Y")
    # All that was ready is in one response, with the end of the answer.
    assert len(sender.responses) == 2
    assert sender.responses[1].tensors["text_output"].item().rstrip().endswith(b"another one.")
    assert sender.responses[1].tensors["finish_reason"].item() == b"stop"
    service.close()


def test_a_stream_that_is_alone_gathers_tokens_too_unless_none_may_wait(bundle: Bundle, watch: Watch) -> None:
    responses: dict[int, int] = {}
    for interval_ms in (100, 0):
        service, sender = start(bundle, watch, Thinking, stream_interval_ms=interval_ms), Sender()
        service.submit(request(sender, stream=np.bool_(True), thinking=np.bool_(True)))
        assert sender.ended.wait(10)
        responses[interval_ms] = len(sender.responses)
        service.close()

    assert responses[100] < responses[0] / 2


CAPITAL = json.dumps([{"role": "user", "content": "What is the capital of France?"}])


@pytest.mark.parametrize("stream", [False, True])
def test_each_answer_to_a_request_has_a_thinking_budget_of_its_own(bundle: Bundle, watch: Watch, stream: bool) -> None:
    """On the real engine, which has one place for each."""
    service, sender = start(bundle, watch, start_engine), Sender()
    values: Any = {"thinking": np.bool_(True), "max_thinking_tokens": np.int32(1), "num_return_sequences": np.int32(2)}

    service.submit(request(sender, messages=CAPITAL, stream=np.bool_(stream), **values))

    assert sender.ended.wait(30)
    for index in range(2):
        of_answer = [answer.tensors for answer in sender.responses if answer.tensors["sequence_index"].item() == index]
        thoughts, text = (
            b"".join(tensors[name].item() for tensors in of_answer if name in tensors)
            for name in ("reasoning_output", "text_output")
        )
        assert thoughts.startswith(b"The question is about a capital.")
        assert text.endswith(b".")
        assert 0 < of_answer[-1]["num_reasoning_tokens"].item() <= 18
        assert of_answer[-1]["thinking_cut"].item() is True
    assert sender.finals == 1
    service.close()


@pytest.mark.parametrize("stream", [False, True])
def test_thinking_that_is_not_to_be_read_is_counted(bundle: Bundle, watch: Watch, stream: bool) -> None:
    service, shown, hidden = start(bundle, watch, Thinking), Sender(), Sender()
    values: Any = {"stream": np.bool_(stream), "thinking": np.bool_(True)}

    service.submit(request(shown, **values))
    service.submit(request(hidden, **values, include_reasoning=np.bool_(False)))

    assert shown.ended.wait(10)
    assert hidden.ended.wait(10)
    assert any("reasoning_output" in answer.tensors for answer in shown.responses)
    assert not any("reasoning_output" in answer.tensors for answer in hidden.responses)
    texts = [
        b"".join(answer.tensors["text_output"].item() for answer in sender.responses) for sender in (shown, hidden)
    ]
    assert texts[0] == texts[1] != b""
    for name in ("num_reasoning_tokens", "num_output_tokens"):
        assert hidden.responses[-1].tensors[name].item() == shown.responses[-1].tensors[name].item() > 0
    service.close()

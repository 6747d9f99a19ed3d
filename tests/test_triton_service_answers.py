"""The service without Triton: what its responses hold, and when they are sent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nemotron_triton.bundle import Bundle
from nemotron_triton.chat.render import Prompt
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.engine.interface import Sampling
from nemotron_triton.engine.stream import TokenStream
from nemotron_triton.serving.service import Service
from patience import wait_until
from pb_utils import Sender, request
from started_service import Engine, Watch, engine_of, start


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


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def service(bundle: Bundle, watch: Watch) -> Iterator[Service]:
    service = start(bundle, watch)
    yield service
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


def test_the_first_text_does_not_wait_for_a_pause_behind_tokens_that_show_nothing(bundle: Bundle, watch: Watch) -> None:
    """Among 30,000 streams a pause is 10 s."""
    service, sender = start(bundle, watch, Thinking, stream_interval_ms=10_000), Sender()
    engine_of(service).go.clear()

    with contextlib.ExitStack() as others:
        for _ in range(30_000):
            others.enter_context(service.requests.answering(object(), 1))  # type: ignore[arg-type]
        begin = time.monotonic()
        service.submit(request(sender, stream=np.bool_(True), thinking=np.bool_(True)))
        wait_until(lambda: bool(sender.responses))
        took_s = time.monotonic() - begin
        first = list(sender.responses)
        engine_of(service).go.set()

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

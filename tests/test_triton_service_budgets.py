"""Thinking budgets in the service without Triton: of several answers, hidden thinking, and late ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from nemotron_triton.bundle import Bundle
from nemotron_triton.chat.render import Prompt
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.engine.interface import Sampling
from nemotron_triton.engine.start import start_engine
from nemotron_triton.engine.stream import TokenStream
from patience import wait_until
from pb_utils import Sender, request
from started_service import Engine, Watch, engine_of, start


class Endless(Engine):
    """Thinks as long as it may, and says a word behind a closer that is not its own, once the test lets it."""

    def __init__(self, bundle: Bundle, codec: TokenCodec) -> None:
        super().__init__(bundle, codec)
        self.codec = codec
        self.thought = codec.encode(Prompt(f"<think>\n{'I count them again. ' * 40}", "\ufdd0", ()))
        self.streams: list[TokenStream] = []

    def generate(self, ids: Sequence[int], sampling: Sampling, stream: TokenStream) -> None:
        self.streams.append(stream)
        if b"".join(map(self.codec.bytes_of, ids)).endswith(b"</think>\n\n"):
            super().generate(ids, sampling, stream)
        else:
            stream.put(self.thought[: sampling.max_tokens], "length")


@pytest.fixture
def watch() -> Watch:
    return Watch()


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


TIP = json.dumps([{"role": "user", "content": "My bill is $100. What will be the amount for 18% tip?"}])
PROPERTIES = {"bill_total": {"type": "integer"}, "tip_percentage": {"type": "integer"}}
TOOLS = json.dumps(
    [
        {
            "type": "function",
            "function": {
                "name": "calculate_tip",
                "parameters": {"type": "object", "properties": PROPERTIES, "required": list(PROPERTIES)},
            },
        }
    ]
)


@pytest.mark.parametrize("choice", ["auto", "required"])
def test_each_answer_calls_behind_its_own_budget(bundle: Bundle, watch: Watch, choice: str) -> None:
    service, sender = start(bundle, watch, start_engine), Sender()
    values: Any = {"thinking": np.bool_(True), "max_thinking_tokens": np.int32(2), "num_return_sequences": np.int32(2)}

    service.submit(request(sender, messages=TIP, tools=TOOLS, tool_choice=choice, max_tokens=np.int32(300), **values))

    assert sender.ended.wait(60)
    by_answer = {answer.tensors["sequence_index"].item(): answer.tensors for answer in sender.responses}
    assert by_answer.keys() == {0, 1}
    for tensors in by_answer.values():
        (call,) = json.loads(tensors["tool_calls"].item())
        assert call["function"]["name"] == "calculate_tip"
        assert json.loads(call["function"]["arguments"]).keys() == PROPERTIES.keys()
        assert tensors["finish_reason"].item() == b"tool_calls"
        assert tensors["thinking_cut"].item() is True
        assert 0 < tensors["num_reasoning_tokens"].item() <= 20
    service.close()


@pytest.mark.parametrize("stream", [False, True])
def test_thinking_that_is_cut_and_not_to_be_read_is_counted_and_told(
    bundle: Bundle, watch: Watch, stream: bool
) -> None:
    service, shown, hidden = start(bundle, watch, Endless), Sender(), Sender()
    values: Any = {"stream": np.bool_(stream), "thinking": np.bool_(True), "max_thinking_tokens": np.int32(5)}

    service.submit(request(shown, **values))
    assert shown.ended.wait(10)
    service.submit(request(hidden, **values, include_reasoning=np.bool_(False)))

    assert hidden.ended.wait(10)
    assert any("reasoning_output" in answer.tensors for answer in shown.responses)
    assert not any("reasoning_output" in answer.tensors for answer in hidden.responses)
    for sender in (shown, hidden):
        assert b"".join(answer.tensors["text_output"].item() for answer in sender.responses) == b"word"
        assert sender.responses[-1].tensors["thinking_cut"].item() is True
        assert sender.responses[-1].tensors["num_reasoning_tokens"].item() >= 5
    for name in ("num_reasoning_tokens", "num_output_tokens"):
        assert hidden.responses[-1].tensors[name].item() == shown.responses[-1].tensors[name].item()
    service.close()


def test_a_time_limit_holds_between_the_two_generations(bundle: Bundle, watch: Watch) -> None:
    service, sender = start(bundle, watch, Endless, max_request_ms=500), Sender()
    engine = engine_of(service)
    assert isinstance(engine, Endless)
    engine.go.clear()

    service.submit(request(sender, thinking=np.bool_(True), max_thinking_tokens=np.int32(5)))

    assert sender.ended.wait(10)
    assert "DEADLINE_EXCEEDED" in sender.responses[-1].error.message
    assert [stream.cancelled for stream in engine.streams[-2:]] == [True, True]
    wait_until(lambda: not service.requests.calls())
    (record,) = service.requests.ended()
    assert record.outcome == "deadline"
    service.close()

"""From tokens to events: the same answer and the same counts however the tokens were gathered into chunks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_requests import TOOLS, read
from nemotron_client.events import ContentDelta, Event, Finish, ReasoningDelta, ToolCall
from nemotron_triton.bundle import Bundle
from nemotron_triton.chat.conversation import ToolChoice
from nemotron_triton.chat.reasoning import Thinking
from nemotron_triton.chat.render import Prompt, RenderOptions
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.engine.interface import Engine, EngineStatistics, Guide, Sampling
from nemotron_triton.engine.stream import TokenChunk, TokenLogprob, TokenStream
from nemotron_triton.serving.answering import Answering, Step
from nemotron_triton.serving.request import ChatRequest

ANSWER = "<think>\nI think: </thi, no.\n</think>\n\nThe tip is 18 %, é, 🙂.\n\nThat is all."


class Scripted(Engine):
    """An engine that puts *chunks*, at once, and no others."""

    max_seq_len = 2048
    max_batch_size = 1
    cannot: Mapping[str, str] = {}

    def __init__(self, chunks: Sequence[TokenChunk]) -> None:
        self.chunks = chunks
        self.stream: TokenStream | None = None

    def generate(self, _ids: Sequence[int], _sampling: Sampling, stream: TokenStream) -> None:
        self.stream = stream
        for chunk in self.chunks:
            stream.put(chunk.ids, chunk.finish_reason, chunk.logprobs)

    def statistics(self) -> EngineStatistics:
        return EngineStatistics(active_requests=0, waiting_requests=0, generated_tokens=0)

    def close(self) -> None:
        pass


class Paced(Scripted):
    """One that puts each chunk when the one before it was read."""

    def generate(self, _ids: Sequence[int], _sampling: Sampling, stream: TokenStream) -> None:
        async def put() -> None:
            count = 0
            for chunk in self.chunks:
                stream.put(chunk.ids, chunk.finish_reason)
                count += len(chunk.ids)
                while stream.tokens < count:
                    await asyncio.sleep(0)

        self._task = asyncio.get_running_loop().create_task(put())


REQUEST = ChatRequest(
    conversation=None,
    text="Hello",
    render=RenderOptions(),
    thinking=False,
    choice=ToolChoice("none"),
    parallel=True,
    stream=True,
    max_tokens=None,
    sampling=Sampling(max_tokens=100, temperature=0.0, top_p=1.0),
)


def steps(bundle: Bundle, engine: Scripted, request: ChatRequest = REQUEST, *, gather: bool = True) -> list[Step]:
    async def run() -> list[Step]:
        answering = Answering(bundle, TokenCodec(bundle.tokenizer_path), engine)
        prepared = answering.prepare(request)
        stream = TokenStream((lambda: 0.0) if gather else None)
        async with contextlib.aclosing(answering.answer(prepared, prepared.sampling, stream)) as answer:
            return [step async for step in answer]

    return asyncio.run(run())


def merged(answer: list[Step]) -> list[Any]:
    """The events with adjacent text joined, because its cut into deltas may differ."""
    events: list[Event] = []
    for event in (event for step in answer for event in step.events):
        last = events[-1] if events else None
        if isinstance(event, ContentDelta | ReasoningDelta) and type(last) is type(event):
            events[-1] = replace(event, text=last.text + event.text)
        elif isinstance(event, ToolCall):
            events.append(replace(event, id=""))
        else:
            events.append(event)
    return events


@pytest.fixture(scope="module")
def ids(bundle: Bundle) -> list[int]:
    return TokenCodec(bundle.tokenizer_path).encode(Prompt(ANSWER, "\ufdd0", ()))


@given(data=st.data(), stop_words=st.sampled_from([(), ("18",), ("zzz", "\n\n"), ("is all.", "é")]))
def test_the_answer_does_not_depend_on_how_tokens_were_gathered(
    bundle: Bundle, ids: list[int], data: st.DataObject, stop_words: tuple[str, ...]
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(ids)), max_size=12)))
    chunks = [TokenChunk(tuple(ids[a:b])) for a, b in zip([0, *cuts], [*cuts, len(ids)], strict=True)]
    one_by_one = [TokenChunk((token_id,)) for token_id in ids]
    end = TokenChunk((), "stop")
    request = replace(REQUEST, stop_words=stop_words)

    gathered = steps(bundle, Scripted([*chunks, end]), request)
    single = steps(bundle, Scripted([*one_by_one, end]), request, gather=False)

    assert merged(gathered) == merged(single)
    assert isinstance(gathered[-1].events[-1], Finish)


def test_a_stop_word_ends_the_answer_and_the_engine(bundle: Bundle, ids: list[int]) -> None:
    engine = Scripted([TokenChunk((token_id,)) for token_id in ids])

    events = merged(steps(bundle, engine, replace(REQUEST, stop_words=("18 %",))))

    assert events[:2] == [ReasoningDelta("I think: </thi, no."), ContentDelta("The tip is ")]
    assert events[2].reason == "stop"
    assert events[2].usage.output_tokens < len(ids)
    assert engine.stream is not None
    assert engine.stream.cancelled


def test_the_count_of_thinking_does_not_depend_on_the_first_chunks(bundle: Bundle) -> None:
    codec = TokenCodec(bundle.tokenizer_path)
    ids = [
        token_id for char in "<think>\n ok \n</think>\n\nHi" for token_id in codec.encode(Prompt(char, "\ufdd0", ()))
    ]
    end = TokenChunk((), "stop")

    def counted(*sizes: int) -> int:
        cuts = [sum(sizes[:count]) for count in range(len(sizes) + 1)]
        chunks = [TokenChunk(tuple(ids[a:b])) for a, b in zip(cuts, [*cuts[1:], len(ids)], strict=True)]
        usage = steps(bundle, Paced([*chunks, end]))[-1].events[-1]
        assert isinstance(usage, Finish)
        return usage.usage.reasoning_tokens

    assert {counted(first) for first in range(len(ids))} == {counted()}
    assert {counted(6, second) for second in range(len(ids) - 6)} == {counted()}


def test_a_stop_word_behind_a_call_does_not_take_the_call_back(bundle: Bundle) -> None:
    codec = TokenCodec(bundle.tokenizer_path)
    call = '<TOOLCALL>[{"name": "f", "arguments": {}}]</TOOLCALL>'
    request = read(tools=TOOLS, stop_words=("stop",))

    def reason(text: str) -> str:
        ids = codec.encode(Prompt(text, "\ufdd0", ()))
        finish = steps(bundle, Scripted([TokenChunk(tuple(ids)), TokenChunk((), "stop")]), request)[-1].events[-1]
        assert isinstance(finish, Finish)
        return finish.reason

    assert reason(f"{call}\nDo not stop here.") == "tool_calls"
    assert reason(f"I stop here. {call}") == "stop"


@pytest.mark.parametrize(
    ("model", "values", "thinking"),
    [
        ("llama-nemotron-nano-4b-v1.1", {}, "none"),
        ("llama-nemotron-nano-4b-v1.1", {"thinking": True}, "model opens"),
        ("nemotron-3-nano-4b", {"thinking": True}, "opened"),
        ("nemotron-3-nano-4b", {"thinking": False}, "none"),
        ("llama-nemotron-nano-4b-v1.1", {"text_input": "Hm. <think>\n"}, "opened"),
    ],
)
def test_a_guide_is_for_the_text_behind_the_thinking(
    bundle: Bundle, model: str, values: dict[str, Any], thinking: Thinking
) -> None:
    speaking = replace(bundle, manifest=replace(bundle.manifest, profile=model))
    answering = Answering(speaking, TokenCodec(bundle.tokenizer_path), Scripted([]))

    prepared = answering.prepare(read(guided_decoding_guide_type="regex", guided_decoding_guide="[a-z]+", **values))

    assert prepared.sampling.guide == Guide(kind="regex", text="[a-z]+", thinking=thinking)


def test_log_probabilities_come_once_for_each_token_in_order(bundle: Bundle, ids: list[int]) -> None:
    logprobs = [TokenLogprob(-float(number)) for number in range(len(ids))]
    chunks = [TokenChunk((token_id,), None, (logprob,)) for token_id, logprob in zip(ids, logprobs, strict=True)]

    answer = steps(bundle, Scripted([*chunks, TokenChunk((), "stop")]))

    assert [logprob for step in answer for logprob in step.logprobs] == logprobs
    assert [token_id for step in answer for token_id in step.ids] == ids

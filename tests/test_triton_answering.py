"""From tokens to events: the same answer and the same counts however the tokens were gathered into chunks."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_requests import TOOLS, read
from nemotron_client.events import ContentDelta, Event, Finish, Problem, ReasoningDelta, ToolCall, Usage
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
    """An engine that puts *chunks*, and no others: the first at once, and one more with each `put_next`."""

    max_seq_len = 2048
    max_batch_size = 1
    cannot: Mapping[str, str] = {}

    def __init__(self, chunks: Sequence[TokenChunk]) -> None:
        self._left = iter(chunks)
        self.stream: TokenStream | None = None

    def generate(self, _ids: Sequence[int], _sampling: Sampling, stream: TokenStream) -> None:
        self.stream = stream
        self.put_next()

    def put_next(self) -> float:
        """Put a chunk that wakes its reader, which then does not pause."""
        assert self.stream
        for chunk in self._left:
            self.stream.put(chunk.ids, chunk.finish_reason, chunk.logprobs)
            if chunk.ids or chunk.finish_reason:
                break
        return 0.0

    def statistics(self) -> EngineStatistics:
        return EngineStatistics(active_requests=0, waiting_requests=0, generated_tokens=0)

    def close(self) -> None:
        pass


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


def steps(bundle: Bundle, engine: Scripted, request: ChatRequest = REQUEST) -> list[Step]:
    async def run() -> list[Step]:
        answering = Answering(bundle, TokenCodec(bundle.tokenizer_path), engine)
        prepared = answering.prepare(request)
        stream = TokenStream(engine.put_next)
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
    single = steps(bundle, Scripted([*one_by_one, end]), request)

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


def continuing(text: str) -> dict[str, Any]:
    """The values of a request whose last message, *text*, is to be continued."""
    messages = [{"role": "user", "content": "u"}, {"role": "assistant", "content": text}]
    return {"messages": json.dumps(messages), "continue_final_message": True}


def test_an_answer_that_goes_on_holds_what_is_new(bundle: Bundle, ids: list[int]) -> None:
    chunks = [TokenChunk(tuple(ids)), TokenChunk((), "stop")]

    events = merged(steps(bundle, Scripted(chunks), read(max_tokens=500, **continuing("<think>\nI see. "))))

    assert events[0] == ReasoningDelta(ANSWER.partition("<think>\n")[2].partition("\n</think>")[0])


@pytest.mark.parametrize("arguments", ['["ls"]', '{"a": ', '"x"'])
def test_past_arguments_that_are_no_object_are_a_problem_of_the_answer(
    bundle: Bundle, ids: list[int], arguments: str
) -> None:
    calls = [{"function": {"name": name, "arguments": text}} for name, text in (("f", "{}"), ("g", arguments))]
    messages = [{"role": "user", "content": "u"}, {"role": "assistant", "tool_calls": calls}]
    chunks = [TokenChunk(tuple(ids)), TokenChunk((), "stop")]

    events = merged(steps(bundle, Scripted(chunks), read(messages=json.dumps(messages))))

    assert events[-1].problems == (Problem(code="invalid_past_arguments", function="g"),)


def test_the_count_of_thinking_does_not_depend_on_the_first_chunks(bundle: Bundle) -> None:
    codec = TokenCodec(bundle.tokenizer_path)
    ids = [
        token_id for char in "<think>\n ok \n</think>\n\nHi" for token_id in codec.encode(Prompt(char, "\ufdd0", ()))
    ]
    end = TokenChunk((), "stop")

    def counted(*sizes: int) -> int:
        cuts = [sum(sizes[:count]) for count in range(len(sizes) + 1)]
        chunks = [TokenChunk(tuple(ids[a:b])) for a, b in zip(cuts, [*cuts[1:], len(ids)], strict=True)]
        usage = steps(bundle, Scripted([*chunks, end]))[-1].events[-1]
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
        ("llama-nemotron-nano-4b-v1.1", {"thinking": True, **continuing("It is")}, "none"),
        ("nemotron-3-nano-4b", {"thinking": True, **continuing("<think>\nLet")}, "opened"),
    ],
)
def test_a_guide_is_for_the_text_behind_the_thinking(
    bundle: Bundle, model: str, values: dict[str, Any], thinking: Thinking
) -> None:
    speaking = replace(bundle, manifest=replace(bundle.manifest, profile=model))
    answering = Answering(speaking, TokenCodec(bundle.tokenizer_path), Scripted([]))

    prepared = answering.prepare(read(guided_decoding_guide_type="regex", guided_decoding_guide="[a-z]+", **values))

    assert prepared.sampling.guide == Guide(kind="regex", text="[a-z]+", thinking=thinking)


def scored(ids: Sequence[int]) -> list[TokenChunk]:
    """A chunk for each token, whose log probability is its place."""
    chunks = [TokenChunk((token_id,), None, (TokenLogprob(-float(place)),)) for place, token_id in enumerate(ids)]
    return [*chunks, TokenChunk((), "stop")]


WITH_LOGPROBS = replace(REQUEST, sampling=replace(REQUEST.sampling, logprobs=0))


@given(data=st.data(), stop_words=st.sampled_from([(), ("18",), ("zzz", "\n\n"), ("is all.", "é")]))
def test_log_probabilities_come_once_for_each_token_in_order(
    bundle: Bundle, ids: list[int], data: st.DataObject, stop_words: tuple[str, ...]
) -> None:
    together = data.draw(st.integers(1, len(ids)))
    chunks = [
        TokenChunk(
            tuple(ids[at : at + together]),
            None,
            tuple([TokenLogprob(-float(place)) for place in range(at, min(at + together, len(ids)))]),
        )
        for at in range(0, len(ids), together)
    ]

    answer = steps(bundle, Scripted([*chunks, TokenChunk((), "stop")]), replace(WITH_LOGPROBS, stop_words=stop_words))

    tokens = [token for step in answer for token in step.tokens]
    usage = merged(answer)[-1].usage
    assert [token.id for token in tokens] == ids[: usage.output_tokens]
    assert [token.logprob.logprob for token in tokens] == [-float(place) for place in range(usage.output_tokens)]


def parts_of(bundle: Bundle, text: str, request: ChatRequest = WITH_LOGPROBS) -> tuple[list[tuple[str, bytes]], Usage]:
    """The bytes of adjacent tokens that belong to one part, and the usage, of an answer that is *text*."""
    codec = TokenCodec(bundle.tokenizer_path)
    answer = steps(bundle, Scripted(scored(codec.encode(Prompt(text, "\ufdd0", ())))), request)
    parts: list[tuple[str, bytes]] = []
    for token in (token for step in answer for token in step.tokens):
        if parts and parts[-1][0] == token.part:
            parts[-1] = (token.part, parts[-1][1] + codec.bytes_of(token.id))
        else:
            parts.append((token.part, codec.bytes_of(token.id)))
    return parts, merged(answer)[-1].usage


def test_each_token_belongs_to_the_thinking_the_text_or_a_call(bundle: Bundle) -> None:
    call = b'<TOOLCALL>[{"name": "f", "arguments": {"a": 1}}]</TOOLCALL>'
    chat = read(tools=TOOLS, thinking=True)
    request = replace(chat, stream=True, sampling=replace(WITH_LOGPROBS.sampling, max_tokens=500))

    parts, usage = parts_of(bundle, f"<think>\nhm\n</think>\n\nWell.\n\n{call.decode()}", request)

    assert [part for part, _ in parts] == ["reasoning", "content", "tool_call"]
    assert parts[0][1] == b"<think>\nhm\n</think>"
    assert parts[1][1].strip() == b"Well."
    assert parts[2][1].strip() == call
    assert 0 < usage.reasoning_tokens < usage.output_tokens


def test_what_was_no_call_is_text_to_its_tokens_too(bundle: Bundle) -> None:
    chat = read(tools=TOOLS)
    request = replace(chat, stream=True, sampling=replace(WITH_LOGPROBS.sampling, max_tokens=500))

    parts, _ = parts_of(bundle, "See <TOOLCALL>[nothing]</TOOLCALL> there", request)

    assert parts == [("content", b"See <TOOLCALL>[nothing]</TOOLCALL> there")]


@pytest.mark.parametrize(
    ("stop_words", "end", "stop_reason"),
    [
        (("zzz", "18 %"), TokenChunk((), "stop"), "18 %"),
        (("zzz",), TokenChunk((), "stop"), None),
        # It becomes whole with the end.
        (("all.",), TokenChunk((), "stop"), "all."),
        ((), TokenChunk((), "length"), None),
    ],
)
def test_what_ended_an_answer_is_told(
    bundle: Bundle, ids: list[int], stop_words: tuple[str, ...], end: TokenChunk, stop_reason: str | None
) -> None:
    answer = steps(bundle, Scripted([TokenChunk(tuple(ids)), end]), replace(REQUEST, stop_words=stop_words))

    assert merged(answer)[-1].stop_reason == stop_reason


def test_reasoning_tokens_do_not_depend_on_where_the_first_chunk_ends(bundle: Bundle) -> None:
    # As the tokenizers of Llama cut it: the closer is several tokens.
    codec = TokenCodec(bundle.tokenizer_path)
    text = "<think>\nok\n</think>\n\nHi"
    bytewise = [token_id for byte in text.encode() if (token_id := codec.id_of(bytes([byte]))) is not None]
    assert len(bytewise) == len(text)

    counts = {
        merged(steps(bundle, Scripted([TokenChunk(tuple(bytewise[:cut])), TokenChunk(tuple(bytewise[cut:]), "stop")])))[
            -1
        ].usage.reasoning_tokens
        for cut in range(len(bytewise))
    }

    # All but the opening tag, which is thinking with its last byte, and the last byte of the closing one.
    assert counts == {len("\nok\n</think>")}

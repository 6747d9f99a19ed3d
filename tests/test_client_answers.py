"""Several answers to one request, log probabilities, calls in pieces, and events together as they came."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_twins import Ask, both_clients
from nemotron_client import (
    AsyncClient,
    Client,
    ContentDelta,
    Event,
    Finish,
    InvalidRequest,
    Logprobs,
    ReasoningDelta,
    Reply,
    StreamBroken,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    TopLogprob,
    Usage,
    wire,
)
from nemotron_client.answer_reader import AnswerReader
from nemotron_client.choice_reader import ChoiceReader
from scripted_server import HI, LAST, USAGE, answer, response, scripted_server

TWO = [
    {wire.TEXT_OUTPUT: "", wire.REASONING_OUTPUT: "hm", wire.SEQUENCE_INDEX: 1},
    {wire.TEXT_OUTPUT: "ja", wire.SEQUENCE_INDEX: 0},
    {wire.TEXT_OUTPUT: "nein", wire.SEQUENCE_INDEX: 1, wire.NUM_CACHED_TOKENS: 2, **LAST},
    {wire.TEXT_OUTPUT: "!", wire.SEQUENCE_INDEX: 0, wire.NUM_CACHED_TOKENS: 0, **LAST},
]


def replies(messages: Sequence[dict[wire.Tensor, Any]]) -> Any:
    return lambda request, context: iter([response(message) for message in messages])


def sent(request: Any) -> dict[str, bytes]:
    return dict(zip([tensor.name for tensor in request.inputs], request.raw_input_contents, strict=True))


@both_clients
def test_every_event_says_of_which_answer_it_is(ask: Ask) -> None:
    with scripted_server(replies(TWO)) as server:
        events = ask(server.url, HI, n=2)

    finish = Finish(reason="stop", usage=USAGE)
    assert events == [
        ReasoningDelta("hm", choice=1),
        ContentDelta("ja"),
        ContentDelta("nein", choice=1),
        Finish(reason="stop", usage=USAGE, choice=1),
        ContentDelta("!"),
        finish,
    ]
    assert sent(server.requests[0])["num_return_sequences"] == b"\2\0\0\0"


def test_a_reply_has_each_answer_among_its_choices() -> None:
    with scripted_server(replies(TWO)) as server, Client(server.url) as client:
        reply = client.chat(HI, n=2)

    assert [(choice.content, choice.reasoning) for choice in reply.choices] == [("ja!", None), ("nein", "hm")]
    assert (reply.content, reply.finish_reason) == ("ja!", "stop")
    assert [choice.usage for choice in reply.choices] == [USAGE, USAGE]
    # The prompt was read once.
    assert reply.usage == Usage(input_tokens=3, output_tokens=4, reasoning_tokens=2)
    assert reply.usage.cached_tokens == 0


def test_the_one_answer_is_the_only_choice() -> None:
    with scripted_server(lambda request, context: answer("ja")) as server, Client(server.url) as client:
        reply = client.chat(HI)

    assert reply.choices == (reply,)
    assert "choices" not in repr(reply)


@both_clients
@pytest.mark.parametrize("number", [2, -1])
def test_an_answer_that_was_not_asked_for_breaks_the_stream(ask: Ask, number: int) -> None:
    stray = {wire.TEXT_OUTPUT: "x", wire.SEQUENCE_INDEX: number}

    with scripted_server(replies([stray])) as server, pytest.raises(StreamBroken, match="cannot read"):
        ask(server.url, HI, n=2)


@both_clients
def test_all_answers_must_end(ask: Ask) -> None:
    with scripted_server(replies(TWO[:3])) as server, pytest.raises(StreamBroken, match="without a finish reason"):
        ask(server.url, HI, n=2)


def test_a_run_is_of_one_answer() -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(InvalidRequest, match="n is 3; a run goes on with one answer"):
        client.run(HI, tools=[], n=3)


TOKEN = {
    "token": "ja",
    "logprob": -0.5,
    "bytes": [106, 97],
    "top_logprobs": [
        {"token": "ja", "logprob": -0.5, "bytes": [106, 97]},
        {"token": "?", "logprob": None, "bytes": []},
    ],
    "part": "content",
}


@both_clients
def test_log_probabilities_come_before_what_their_tokens_say(ask: Ask) -> None:
    thinking = {**TOKEN, "part": "reasoning", "top_logprobs": []}
    rows = json.dumps([thinking, TOKEN])

    with scripted_server(replies([{wire.TEXT_OUTPUT: "ja", wire.LOGPROBS: rows, **LAST}])) as server:
        events = ask(server.url, HI, logprobs=True, top_logprobs=2)

    top = (TopLogprob("ja", -0.5, b"ja"), TopLogprob("?", None, b""))
    tokens = (
        TokenLogprob("ja", -0.5, b"ja", part="reasoning"),
        TokenLogprob("ja", -0.5, b"ja", top, part="content"),
    )
    assert events[:2] == [Logprobs(tokens), ContentDelta("ja")]
    assert Reply.of(events).logprobs == tokens
    assert (sent(server.requests[0])["return_log_probs"], sent(server.requests[0])["top_logprobs"][:1]) == (
        b"\1",
        b"\2",
    )


def test_a_server_that_does_not_say_the_part_is_understood() -> None:
    old = {key: value for key, value in TOKEN.items() if key != "part"}

    with (
        scripted_server(replies([{wire.LOGPROBS: json.dumps([old]), **LAST}])) as server,
        Client(server.url) as client,
    ):
        reply = client.chat(HI, top_logprobs=2)

    assert [token.part for token in reply.logprobs] == [""]


@both_clients
@pytest.mark.parametrize("stop_reason", [None, "END", "7", 128009])
def test_what_ended_the_answer_is_in_its_finish(ask: Ask, stop_reason: str | int | None) -> None:
    told = {} if stop_reason is None else {wire.STOP_REASON: json.dumps(stop_reason)}

    with scripted_server(replies([{wire.TEXT_OUTPUT: "ja", **LAST, **told}])) as server:
        events = ask(server.url, HI, stop="END")

    assert Reply.of(events).stop_reason == stop_reason
    assert sent(server.requests[0])["stop_words"] == b"\3\0\0\0END"


@both_clients
@pytest.mark.parametrize("told", [{}, {wire.THINKING_CUT: False}, {wire.THINKING_CUT: True}])
def test_thinking_that_its_budget_has_ended_is_marked(ask: Ask, told: dict[wire.Tensor, bool]) -> None:
    with scripted_server(replies([{wire.TEXT_OUTPUT: "ja", **LAST, **told}])) as server:
        events = ask(server.url, HI, max_thinking_tokens=5)

    assert Reply.of(events).thinking_cut is (True in told.values())


def test_biases_go_by_token_and_by_text() -> None:
    with scripted_server(lambda request, context: answer("ja")) as server, Client(server.url) as client:
        client.chat(HI, logit_bias={7: -100, 8: 1.5}, word_bias={"a": 2, "é": -1})
        client.chat(HI, logit_bias={"7": -100})

    values = sent(server.requests[0])
    assert json.loads(values["logit_bias"][4:]) == {"7": -100, "8": 1.5}
    assert values["embedding_bias_words"] == b"\1\0\0\0a\2\0\0\0\xc3\xa9"
    assert values["embedding_bias_weights"] == b"\0\0\0\x40\0\0\x80\xbf"
    assert json.loads(sent(server.requests[1])["logit_bias"][4:]) == {"7": -100}


def test_a_schema_may_be_wrapped_as_openai_does_it() -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    wrapped = {"name": "person", "strict": True, "schema": schema}
    guides: list[dict[str, Any]] = [schema, wrapped, {"type": "json_schema", "json_schema": wrapped}]

    with scripted_server(lambda request, context: answer("{}")) as server, Client(server.url) as client:
        for guide in guides:
            client.chat(HI, guide_type="json_schema", guide=guide)

    assert [json.loads(sent(request)["guided_decoding_guide"][4:]) for request in server.requests] == [schema] * 3


def pieces(index: int, texts: Sequence[str]) -> list[Any]:
    """The responses with a call's arguments in these pieces."""
    return [
        response(
            {
                wire.TOOL_CALLS: json.dumps(
                    [
                        {"index": index, "function": {"arguments": text}}
                        if place
                        else {"index": index, "id": f"call_{index}", "function": {"name": "f", "arguments": text}}
                    ]
                )
            }
        )
        for place, text in enumerate(texts)
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='a"\\{}[]é\n', max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='a"\\{}', max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.lists(JSON, min_size=1, max_size=3), st.data())
def test_calls_in_pieces_are_put_together_whatever_their_arguments(values: list[Any], data: st.DataObject) -> None:
    reader = AnswerReader("there", "1", begin_s=0.0, retries=0)
    events: list[Event] = []
    wholes = [json.dumps(value, ensure_ascii=data.draw(st.booleans())) for value in values]

    for index, whole in enumerate(wholes):
        cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
        for message in pieces(index, [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]):
            events += reader.read(message)
    events += reader.read(response({wire.TEXT_OUTPUT: "", **LAST}))

    assert [event.arguments_json for event in events if isinstance(event, ToolCall)] == wholes
    assert [event.index for event in events if isinstance(event, ToolCall)] == list(range(len(wholes)))
    assert isinstance(events[-1], Finish)


def test_a_call_is_whole_with_its_last_piece() -> None:
    reader = AnswerReader("there", "1", begin_s=0.0, retries=0)

    events = [reader.read(message) for message in pieces(0, ['{"a": "}', '"', ', "b": {}', "}"])]

    whole = ToolCall(index=0, id="call_0", name="f", arguments_json='{"a": "}", "b": {}}')
    assert [len(read) for read in events] == [1, 1, 1, 2]
    assert events[-1][-1] == whole


def test_a_call_that_broke_is_none_where_a_problem_says_so() -> None:
    problem = '[{"code": "truncated_tool_call", "function": "f", "text": ""}]'

    def read(last: dict[wire.Tensor, Any]) -> list[Event]:
        reader = AnswerReader("there", "1", begin_s=0.0, retries=0)
        messages = [*pieces(0, ['{"a": "b']), response(last)]
        return [event for message in messages for event in reader.read(message)]

    events = read({**LAST, wire.PROBLEMS: problem})

    assert [type(event) for event in events] == [ToolCallDelta, Finish]
    with pytest.raises(StreamBroken, match="no JSON"):
        read(LAST)


def test_many_pieces_cost_what_they_are_long() -> None:
    def cost_s(count: int) -> float:
        reader = ChoiceReader(0, "1", begin_s=0.0, retries=0)
        # Code, in which every line could end the object.
        texts = ['{"code": "', *["if (a) { b(); }"] * count, '"}']
        deltas = [
            json.dumps([{"index": 0, "id": "call_0", "function": {"name": "f", "arguments": text}}]).encode()
            for text in texts
        ]
        begin = time.process_time()
        for delta in deltas:
            reader.read(b"\0\0\0\0", b"\0\0\0\0", {"tool_calls": len(delta).to_bytes(4, "little") + delta})
        return time.process_time() - begin

    few, many = min(cost_s(1000) for _ in range(3)), min(cost_s(8000) for _ in range(3))

    assert many < 8 * few * 4


@pytest.mark.parametrize("asynchronous", [False, True])
def test_responses_bring_their_events_together(asynchronous: bool) -> None:
    call = '[{"index": 0, "id": "call_1", "function": {"name": "f", "arguments": "{}"}}]'
    messages: list[dict[wire.Tensor, Any]] = [
        {wire.TEXT_OUTPUT: "", wire.REASONING_OUTPUT: "hm"},
        {wire.TEXT_OUTPUT: ""},
        {wire.TEXT_OUTPUT: "ja", wire.TOOL_CALLS: call, **LAST},
    ]

    async def read(url: str) -> list[Sequence[Event]]:
        async with AsyncClient(url) as client:
            return [events async for events in client.stream(HI).responses()]

    with scripted_server(replies(messages)) as server:
        if asynchronous:
            together = asyncio.run(read(server.url))
        else:
            with Client(server.url) as client:
                together = list(client.stream(HI).responses())

    assert [[type(event) for event in events] for events in together] == [
        [ReasoningDelta],
        [ContentDelta, ToolCallDelta, ToolCall, Finish],
    ]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_was_read_by_itself_does_not_come_again_with_its_response(asynchronous: bool) -> None:
    messages = [{wire.TEXT_OUTPUT: "ja", wire.REASONING_OUTPUT: "hm"}, {wire.TEXT_OUTPUT: "!", **LAST}]

    async def read(url: str) -> tuple[Event, list[Sequence[Event]]]:
        async with AsyncClient(url) as client:
            stream = client.stream(HI)
            return await anext(stream), [events async for events in stream.responses()]

    with scripted_server(replies(messages)) as server:
        if asynchronous:
            first, together = asyncio.run(read(server.url))
        else:
            with Client(server.url) as client:
                stream = client.stream(HI)
                first, together = next(stream), list(stream.responses())

    assert first == ReasoningDelta("hm")
    assert together == [[ContentDelta("ja")], [ContentDelta("!"), Finish(reason="stop", usage=USAGE)]]


def test_leaving_the_responses_cancels_as_leaving_the_events_does() -> None:
    cancelled = threading.Event()

    def script(_request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        context.add_callback(cancelled.set)
        while context.is_active():
            yield response({wire.TEXT_OUTPUT: "word "})
            cancelled.wait(0.002)

    with scripted_server(script) as server, Client(server.url) as client:
        for events in client.stream(HI).responses():
            assert events == [ContentDelta("word ")]
            break

        assert cancelled.wait(5)

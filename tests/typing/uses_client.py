"""A program that uses all of the client, for type checkers: they must find nothing in it. It is never run."""

# pyright: strict

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import assert_never, assert_type

from nemotron_client import (
    AccessDenied,
    AssistantMessage,
    AsyncClient,
    AsyncStream,
    ChatOptions,
    Client,
    ClientError,
    ContentDelta,
    DeadlineExceeded,
    Description,
    EndpointHealth,
    Event,
    Finish,
    GenerateOptions,
    Health,
    InvalidArguments,
    InvalidRequest,
    Json,
    Logprobs,
    Message,
    MessageLike,
    Model,
    Problem,
    Prompt,
    ReasoningDelta,
    Refusal,
    RenderOptions,
    Reply,
    RequestRejected,
    Run,
    RunEvent,
    ServerUnavailable,
    Stream,
    StreamBroken,
    SystemMessage,
    Timings,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolError,
    ToolFailed,
    ToolLike,
    ToolMessage,
    ToolResult,
    TooManyTurns,
    TopLogprob,
    UnknownTool,
    Usage,
    UserMessage,
)

HI = [UserMessage("hi")]
SAMPLING: GenerateOptions = {
    "timeout_s": 5.0,
    "max_retries": 0,
    "max_tokens": 64,
    "temperature": 0.0,
    "top_p": 1.0,
    "top_k": 1,
    "seed": 7,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "min_p": 0.0,
    "no_repeat_ngram_size": 4,
    "min_tokens": 1,
    "end_id": 2,
    "stop": ["."],
    "stop_token_ids": [3],
    "bad_words": ("oh",),
    "logit_bias": {7: -100},
    "word_bias": {"oh": -1.5},
    "n": 2,
    "logprobs": True,
    "top_logprobs": 3,
    "guide_type": "json_schema",
    "priority": 1,
    "max_thinking_tokens": 100,
    "include_reasoning": False,
    "guide": {"type": "object"},
    "clamp_max_tokens": True,
    "request_id": "chat-17",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "caller": "carol",
}
RAW: ChatOptions = {
    "guide": Json("{}"),
    "logit_bias": Json(b"{}"),
    "tool_choice": Json('"auto"'),
    "chat_template_kwargs": Json("{}"),
}
FORCED: ChatOptions = {
    "tool_choice": "weather",
    "parallel_tool_calls": False,
    "chat_template_kwargs": {"force_nonempty_content": True},
    "stream_tool_calls": True,
    "reasoning_effort": "low",
    "continue_final_message": True,
}
RENDERED: RenderOptions = {
    "timeout_s": 5.0,
    "tool_choice": "weather",
    "chat_template_kwargs": {"force_nonempty_content": True},
    "max_thinking_tokens": 0,
    "reasoning_effort": "none",
    "continue_final_message": True,
}


@dataclass
class Place:
    """What a tool takes."""

    city: str
    country: str | None = None


def weather(place: Place, unit: str = "celsius") -> dict[str, float]:
    return {place.city: 20.0 if unit == "celsius" else 68.0}


async def mail(address: str, text: str) -> None:
    return None


WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
TOOLS: list[ToolLike] = [weather, mail, Tool.of(weather), Tool("rain", "Will it?"), Tool.from_openai(WEATHER), WEATHER]


# Clients.


def settings() -> None:
    Client()
    Client(["a:8001", "b:8001"], balance="round_robin", timeout_s=60, max_retries=0)
    Client("dns:///a:8001", secret="s", root_ca=Path("ca.pem"), client_cert="cert.pem", client_key="key.pem")  # noqa: S106
    AsyncClient(("a:8001", "b:8001"), balance="least_loaded", timeout_s=60.0, max_retries=2)
    AsyncClient("a:8001", secret="s", root_ca="ca.pem", client_cert=Path("cert.pem"), client_key=None)  # noqa: S106


def threads() -> None:
    with Client() as client:
        assert_type(client.chat(HI), Reply)
        assert_type(client.chat(HI, tools=TOOLS, thinking=True, temperature=0, stop=("a", "b")), Reply)
        assert_type(client.chat([{"role": "user", "content": "hi"}], tools=[WEATHER], **FORCED), Reply)
        assert_type(client.chat(HI, stop="a", logit_bias={"7": 1.5}), Reply)
        assert_type(client.stream(HI, tools=[weather], **SAMPLING), Stream[Event])
        assert_type(client.generate("Once", thinking=False, **SAMPLING), Reply)
        assert_type(client.generate_stream("Once", max_tokens=5), Stream[Event])
        assert_type(client.run(HI, tools=[weather, mail], thinking=None, max_turns=3, on_tool_error="tell"), Run)
        assert_type(client.run_stream(HI, tools=TOOLS, **SAMPLING), Stream[RunEvent])
        assert_type(client.render(HI, tools=[weather], thinking=True, **RENDERED), Prompt)
        assert_type(client.render(prompt="Once"), Prompt)
        assert_type(client.count_tokens(HI, tools=[WEATHER], timeout_s=1), int)
        assert_type(client.health(), Health)
        assert_type(client.is_ready(timeout_s=1), bool)
        assert_type(client.models(), tuple[Model, ...])
        assert_type(client.describe(timeout_s=1), Description)
        assert_type(client.chat(Json("[]"), tools=Json(b"[]"), **RAW), Reply)
        assert_type(client.count_tokens(Json("[]"), tools=Json("[]"), chat_template_kwargs=Json("{}")), int)
        assert_type(client.render(Json("[]"), tools=Json("[]"), chat_template_kwargs=Json("{}")), Prompt)
        assert_type(client.with_options(timeout_s=1, max_retries=5), Client)
        assert_type(client.has_several_servers, bool)
    client.close()


async def event_loop() -> None:
    async with AsyncClient() as client:
        assert_type(await client.chat(HI), Reply)
        assert_type(await client.chat(HI, tools=TOOLS, thinking=True, temperature=0, stop=["a"]), Reply)
        assert_type(await client.chat([{"role": "user", "content": "hi"}], tools=[WEATHER], **FORCED), Reply)
        assert_type(client.stream(HI, tools=[weather], **SAMPLING), AsyncStream[Event])
        assert_type(await client.generate("Once", thinking=False, **SAMPLING), Reply)
        assert_type(client.generate_stream("Once", max_tokens=5), AsyncStream[Event])
        assert_type(await client.run(HI, tools=[weather, mail], max_turns=3, on_tool_error="raise"), Run)
        assert_type(client.run_stream(HI, tools=TOOLS, **SAMPLING), AsyncStream[RunEvent])
        assert_type(await client.render(HI, tools=[weather], thinking=True, **RENDERED), Prompt)
        assert_type(await client.count_tokens(prompt="Once", timeout_s=1), int)
        assert_type(await client.health(), Health)
        assert_type(await client.is_ready(timeout_s=1), bool)
        assert_type(await client.models(), tuple[Model, ...])
        assert_type(await client.describe(timeout_s=1), Description)
        assert_type(await client.chat(Json("[]"), tools=Json(b"[]"), **RAW), Reply)
        assert_type(await client.count_tokens(Json("[]"), tools=Json("[]"), chat_template_kwargs=Json("{}")), int)
        assert_type(await client.render(Json("[]"), tools=Json("[]"), chat_template_kwargs=Json("{}")), Prompt)
        assert_type(client.with_options(timeout_s=1, max_retries=5), AsyncClient)
        assert_type(client.has_several_servers, bool)
    await client.close()


# Streams.


def read(client: Client) -> None:
    stream = client.stream(HI)
    assert_type(stream.request_id, str)
    assert_type(next(stream), Event)
    for event in stream:
        assert_type(event, Event)
    with client.run_stream(HI, tools=[weather]) as running:
        assert_type([text_of(event) for event in running], list[str])
    assert_type(Reply.of(client.stream(HI)), Reply)
    assert_type([event.choice for events in client.stream(HI).responses() for event in events], list[int])
    stream.close()


async def read_async(client: AsyncClient) -> None:
    stream = client.stream(HI)
    assert_type(stream.request_id, str)
    assert_type(await stream.__anext__(), Event)
    async for event in stream:
        assert_type(event, Event)
    async with client.run_stream(HI, tools=[weather]) as running:
        assert_type([text_of(event) async for event in running], list[str])
    async for events in client.stream(HI).responses():
        assert_type([event.choice for event in events], list[int])
    await stream.close()


def text(event: Event) -> str:
    if isinstance(event, (ReasoningDelta, ContentDelta)):
        return event.text
    if isinstance(event, ToolCallDelta):
        return f"{event.index} {event.id} {event.name} {event.arguments_json}"
    if isinstance(event, ToolCall):
        return f"{event.name}({event.arguments_json})"
    if isinstance(event, Logprobs):
        return "".join(token.token for token in event.tokens)
    return f"{event.reason} {event.stop_reason}"


def text_of(event: RunEvent) -> str:
    match event:
        case ReasoningDelta(words) | ContentDelta(words):
            return words
        case ToolCallDelta():
            return event.arguments_json
        case ToolCall(name=name, index=index):
            return f"{index} {name}"
        case Logprobs(tokens):
            return str([(token.part, token.bytes, token.top) for token in tokens])
        case ToolResult(call=call, content=content):
            return f"{call.name}: {content}"
        case Finish(usage=usage):
            return str(usage.output_tokens)
        case _:
            assert_never(event)


# What comes back.


def whole(reply: Reply, run: Run) -> None:
    assert_type(reply.reasoning, str | None)
    assert_type(reply.content, str | None)
    assert_type(reply.tool_calls, tuple[ToolCall, ...])
    assert_type(reply.finish_reason, str)
    assert_type(reply.usage, Usage)
    assert_type(reply.usage.input_tokens + reply.usage.reasoning_tokens, int)
    assert_type(reply.problems, tuple[Problem, ...])
    assert_type([problem.code + problem.function + problem.text for problem in reply.problems], list[str])
    assert_type(reply.choices, tuple[Reply, ...])
    assert_type(reply.stop_reason, str | int | None)
    assert_type(reply.logprobs, tuple[TokenLogprob, ...])
    assert_type(reply.logprobs[0].top, tuple[TopLogprob, ...])
    assert_type(reply.logprobs[0].top[0].logprob, float | None)
    assert_type(reply.timings, Timings)
    assert_type(reply.timings.first_event_s, float | None)
    assert_type(reply.timings.total_s, float)
    assert_type((reply.retries, reply.request_id), tuple[int, str])
    assert_type(run.reply, Reply)
    assert_type(run.content, str | None)
    assert_type(run.replies, tuple[Reply, ...])
    assert_type(run.results, tuple[ToolResult, ...])
    assert_type(run.results[0].error, ToolError | None)
    assert_type(run.messages, tuple[MessageLike, ...])


def status(health: Health, models: tuple[Model, ...], served: Description, prompt: Prompt) -> None:
    assert_type(health.ready, bool)
    assert_type(health.endpoints, tuple[EndpointHealth, ...])
    assert_type(
        [server.url + server.problem for server in health.endpoints if server.live and not server.ready],
        list[str],
    )
    assert_type([model.versions + model.inputs + model.outputs for model in models], list[tuple[str, ...]])
    assert_type((served.name, served.names, served.context_tokens), tuple[str, tuple[str, ...], int])
    assert_type([served.kind, served.precision, served.gpu, served.built_at], list[str])
    assert_type((prompt.text, prompt.token_ids, prompt.num_tokens), tuple[str, tuple[int, ...], int])


def conversation(client: Client, result: ToolResult) -> Message:
    messages: list[MessageLike] = [SystemMessage("Be brief."), *HI, {"role": "assistant", "content": "Hello."}]
    reply = client.chat(messages)
    messages += [reply.message, result.as_message(), ToolMessage("20", "call_1"), UserMessage("And now?")]
    client.chat([AssistantMessage(tool_calls=reply.tool_calls), *messages], **FORCED)
    return AssistantMessage("Hello.", reasoning=reply.reasoning)


def tools(tool: Tool, call: ToolCall) -> dict[str, Any]:
    assert_type((tool.name, tool.description), tuple[str, str])
    assert_type(call.as_openai(), dict[str, Any])
    return {**tool.as_openai(), **tool.parameters, **call.arguments}


def failures(client: Client) -> str:
    try:
        client.run(HI, tools=[weather])
    except (UnknownTool, InvalidArguments, ToolFailed, TooManyTurns) as error:
        return error.tool
    except (ServerUnavailable, DeadlineExceeded, StreamBroken) as error:
        return f"{error.request_id} after {error.retries}"
    except (InvalidRequest, AccessDenied, RequestRejected) as error:
        return str(error)
    except Refusal as error:
        return f"{error.field} {error.code} {error.value or 0 - (error.limit or 0)}"
    except ClientError as error:
        error.retries += 1
        raise
    return ""

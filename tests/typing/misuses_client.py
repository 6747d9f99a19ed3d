"""A program with a mistake on every line that says so, for type checkers: they must find each of them, and no more."""

from __future__ import annotations

from typing_extensions import assert_never

from nemotron_client import (
    AssistantMessage,
    AsyncClient,
    ChatOptions,
    Client,
    ClientError,
    ContentDelta,
    Event,
    Finish,
    GenerateOptions,
    Logprobs,
    ReasoningDelta,
    Reply,
    Run,
    RunEvent,
    SystemMessage,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolError,
    ToolMessage,
    ToolResult,
    UserMessage,
)

HI = [UserMessage("hi")]
MISSPELT: ChatOptions = {"temprature": 0.5}  # wrong
MISTYPED: GenerateOptions = {"seed": "7"}  # wrong
NOT_OF_GENERATE: GenerateOptions = {"tool_choice": "auto"}  # wrong


def weather(city: str) -> str:
    return city


def settings() -> None:
    Client(8001)  # wrong
    Client("a:8001", 5)  # wrong
    Client(timeout=5)  # wrong
    Client(timeout_s="5")  # wrong
    Client(balance="random")  # wrong
    Client(root_ca=b"PEM")  # wrong
    AsyncClient(max_retries=0.5)  # wrong
    Client().with_options(secret="s")  # wrong  # noqa: S106


def requests(client: Client) -> None:
    client.chat()  # wrong
    client.chat("hi")  # wrong
    client.chat(UserMessage("hi"))  # wrong
    client.chat(["hi"])  # wrong
    client.chat(HI, [weather])  # wrong
    client.chat(HI, tools=weather)  # wrong
    client.chat(HI, tools=["weather"])  # wrong
    client.chat(HI, thinking="on")  # wrong
    client.chat(HI, max_token=5)  # wrong
    client.chat(HI, max_tokens="5")  # wrong
    client.chat(HI, temperature=[0.5])  # wrong
    client.chat(HI, stop=5)  # wrong
    client.chat(HI, guide_type="yaml")  # wrong
    client.chat(HI, logit_bias=[7])  # wrong
    client.chat(HI, word_bias={7: 1})  # wrong
    client.chat(HI, n="2")  # wrong
    client.generate("Once", stream_tool_calls=True)  # wrong
    client.chat(HI, tool_choice=weather)  # wrong
    client.generate(HI)  # wrong
    client.generate("Once", tools=[weather])  # wrong
    client.generate("Once", parallel_tool_calls=False)  # wrong
    client.run(HI)  # wrong
    client.run(HI, tools=[weather], max_turns=None)  # wrong
    client.run_stream(HI, tools=[weather], on_tool_error="ignore")  # wrong
    client.render(HI, temperature=0)  # wrong
    client.count_tokens("hi")  # wrong
    client.count_tokens(prompt=HI)  # wrong
    client.complete(HI)  # wrong


async def awaits(client: Client, waiting: AsyncClient) -> None:
    await client.chat(HI)  # wrong
    waiting.chat(HI)  # wrong
    len((waiting.generate("Once")).content or "")  # wrong
    await waiting.stream(HI)  # wrong
    waiting.close()  # wrong
    await client.health()  # wrong
    for event in waiting.stream(HI):  # wrong
        del event
    async for event in client.stream(HI):  # wrong
        del event
    next(waiting.stream(HI))  # wrong
    with waiting:  # wrong
        pass
    async with client:  # wrong
        pass


def answers(client: Client, reply: Reply, run: Run, call: ToolCall) -> None:
    reply.content.strip()  # wrong
    reply.text.strip()  # wrong
    reply.content = "no"  # wrong
    reply.usage.output_tokens += 1  # wrong
    reply.tool_calls.append(call)  # wrong
    run.messages.append(UserMessage("And now?"))  # wrong
    run.replies[0].usage["output_tokens"].bit_length()  # wrong
    client.health().ready()  # wrong
    client.models()["nemotron"]  # wrong
    client.count_tokens(HI).num_tokens.bit_length()  # wrong


def messages(reply: Reply) -> None:
    SystemMessage()  # wrong
    UserMessage(5)  # wrong
    UserMessage(content="hi", role="user")  # wrong
    AssistantMessage(tool_calls=[{"name": "weather"}])  # wrong
    ToolMessage("20")  # wrong
    UserMessage("hi").content = "no"  # wrong
    Tool(weather)  # wrong
    Tool.of("weather")  # wrong
    reply.message.content += "!"  # wrong


def words(event: Event) -> str:
    if isinstance(event, ContentDelta):
        event.text = "no"  # wrong
        event.index.bit_length()  # wrong
    return event.text  # wrong


def forgets_the_calls(event: Event) -> str:
    if isinstance(event, (ReasoningDelta, ContentDelta)):
        return event.text
    if isinstance(event, Finish):
        return event.reason
    assert_never(event)  # wrong


def forgets_the_results(event: RunEvent) -> str:
    match event:
        case ReasoningDelta(text) | ContentDelta(text):
            return text
        case ToolCallDelta() | ToolCall():
            return event.arguments_json
        case Finish():
            return event.reason
        case Logprobs():
            return ""
        case _:
            assert_never(event)  # wrong


def failures(error: ClientError, failed: ToolError, result: ToolResult) -> None:
    error.code.bit_length()  # wrong
    error.tool.strip()  # wrong
    failed.tool.bit_length()  # wrong
    result.error.tool.strip()  # wrong

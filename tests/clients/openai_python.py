"""What `openai` for Python gets from the gateway at its argument; the task is JSON on stdin, so is what it prints."""

from __future__ import annotations

import json
import sys
from typing import Any, Literal

import openai
from pydantic import BaseModel, Field

TASK = json.load(sys.stdin)
CLIENT = openai.OpenAI(base_url=sys.argv[1], api_key=TASK["key"])
COMMON: dict[str, Any] = {"model": TASK["model"], "temperature": 0}
THINK = {"role": "system", "content": "detailed thinking on"}


class Country(BaseModel):
    """Where a city is."""

    name: Literal["France", "Italy"]


class City(BaseModel):
    """What an answer must be; nothing in it can go on without an end."""

    name: Literal["Paris", "Rome"]
    country: Country
    letters: int = Field(ge=0, le=9)
    note: str = Field(max_length=5)


def user(text: str) -> dict[str, str]:
    """A turn of the user."""
    return {"role": "user", "content": text}


def calls_of(message: Any) -> list[list[Any]]:
    """The names and arguments of the calls in *message*."""
    return [[call.function.name, json.loads(call.function.arguments)] for call in message.tool_calls or []]


def thought_of(message: Any) -> dict[str, Any]:
    """The thinking in *message* by both of its names, and the text."""
    return {name: getattr(message, name, None) for name in ("reasoning", "reasoning_content", "content")}


def ask(*messages: Any, **options: Any) -> Any:
    """The message of a whole answer."""
    return CLIENT.chat.completions.create(messages=messages, **COMMON, **options).choices[0].message


def joined(*messages: Any, **options: Any) -> dict[str, Any]:
    """The texts of a streamed answer, put together; chunks by hand, as most programs read them."""
    texts = {"reasoning": "", "reasoning_content": "", "content": ""}
    for chunk in CLIENT.chat.completions.create(messages=messages, stream=True, **COMMON, **options):
        for name in texts:
            texts[name] += getattr(chunk.choices[0].delta, name, None) or ""
    return texts


def with_helper(*messages: Any, **options: Any) -> tuple[Any, list[str]]:
    """The completion that the `.stream()` helper puts together, and the types of the events before it."""
    with CLIENT.chat.completions.stream(messages=messages, **COMMON, **options) as stream:
        kinds = [event.type for event in stream]
        return stream.get_final_completion(), kinds


def plain() -> Any:
    return ask(user(TASK["capital"])).content


def streamed() -> Any:
    return joined(user(TASK["capital"]))["content"]


def helper() -> Any:
    completion, kinds = with_helper(user(TASK["capital"]), stream_options={"include_usage": True})
    return {"content": completion.choices[0].message.content, "kinds": kinds, "usage": completion.usage.to_dict()}


def thinking() -> Any:
    return thought_of(ask(THINK, user(TASK["capital"])))


def thinking_streamed() -> Any:
    return joined(THINK, user(TASK["capital"]))


def calls() -> Any:
    return calls_of(ask(user(TASK["two"]), tools=TASK["tools"]))


def calls_streamed() -> Any:
    completion, _ = with_helper(THINK, user(TASK["two"]), tools=TASK["tools"])
    choice = completion.choices[0]
    return {**thought_of(choice.message), "calls": calls_of(choice.message), "finish": choice.finish_reason}


def makers() -> Any:
    """What the makers' page shows, and prints."""
    message = ask(THINK, user(TASK["tip"]), tools=TASK["tools"])
    return [message.reasoning_content, calls_of(message)]


def loop() -> Any:
    """The message with the call goes back as the object that came."""
    asked = user(TASK["tip"])
    message = ask(asked, tools=TASK["tools"])
    (call,) = message.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": '{"tip": 18}'}
    return {"calls": calls_of(message), "content": ask(asked, message, result, tools=TASK["tools"]).content}


def echoed() -> Any:
    """Messages of all kinds go back unchanged, with their thinking, their calls, their nulls."""
    first = ask(THINK, user(TASK["two"]), tools=TASK["tools"])
    helped, _ = with_helper(THINK, user(TASK["capital"]))
    results = [{"role": "tool", "tool_call_id": call.id, "content": '{"tip": 12}'} for call in first.tool_calls]
    third = ask(user(TASK["two"]), first, *results)
    parsed = CLIENT.chat.completions.parse(messages=[user(TASK["capital"])], response_format=City, **COMMON)
    said = [message for answer in (helped, parsed) for message in (user(TASK["capital"]), answer.choices[0].message)]
    history = [user(TASK["two"]), first, *results, third, *said]
    dumped = [getattr(message, "model_dump", lambda message=message: message)() for message in history]
    return [ask(*messages, user(TASK["capital"])).content for messages in (history, dumped)]


def structured() -> Any:
    answers = []
    for think in ([], [THINK]):
        messages = [*think, user(TASK["capital"])]
        parsed = CLIENT.chat.completions.parse(messages=messages, response_format=City, **COMMON)
        helped, _ = with_helper(*messages, response_format=City)
        for message in (parsed.choices[0].message, helped.choices[0].message):
            assert message.parsed
            answers.append(
                {**message.parsed.model_dump(mode="json"), "thought": bool(thought_of(message)["reasoning"])}
            )
    return answers


def choices() -> Any:
    """Every way to choose tools, whole and in a stream."""
    named = {"type": "function", "function": {"name": "calculate_tip"}}
    found = {}
    for name, choice in {"auto": "auto", "none": "none", "required": "required", "named": named}.items():
        options = {"tools": TASK["tools"], "tool_choice": choice}
        whole = ask(user(TASK["tip"]), **options)
        completion, _ = with_helper(user(TASK["tip"]), **options)
        found[name] = [calls_of(message) for message in (whole, completion.choices[0].message)]
    return found


def errors() -> Any:
    """The class of the error of each kind of mistake, and what it says of it."""
    mistakes = {
        "key": lambda: CLIENT.with_options(api_key="of-nobody-in-particular").models.list(),
        "model": lambda: CLIENT.chat.completions.create(messages=[user("?")], model="gpt-4o"),
        "path": lambda: CLIENT.embeddings.create(input="?", model=TASK["model"]),
        "field": lambda: ask(user("?"), top_p=7),
        "long": lambda: ask(user("word " * 5000)),
        "stream": lambda: joined(user("word " * 5000)),
    }
    found = {}
    for name, mistake in mistakes.items():
        try:
            mistake()
        except openai.APIStatusError as error:
            known = [type(error).__name__, error.status_code, error.code, error.param]
            found[name] = known if error.request_id else "no id to look for in logs"
    return found


def models() -> Any:
    names = [model.id for model in CLIENT.models.list()]
    return [names, CLIENT.models.retrieve(names[0]).id]


PARTS = [plain, streamed, helper, thinking, thinking_streamed, calls, calls_streamed, makers, loop, echoed, structured]
print(json.dumps({part.__name__: part() for part in [*PARTS, choices, errors, models]}))

"""Whether what is on the wire is what the `openai` package's types say: every body and every chunk, each as it came.

The gateway's address is its one argument; the task is JSON on stdin. It prints, for each request, how many documents
were right, and the names of the fields that the types do not know. What is wrong is pydantic's own error.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any, Literal

from openai.types import Completion, CompletionChoice, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.shared import ErrorObject
from pydantic import BaseModel

TASK = json.load(sys.stdin)
THINK = {"role": "system", "content": "detailed thinking on"}


def user(text: str) -> dict[str, str]:
    """A turn of the user."""
    return {"role": "user", "content": text}


SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["Paris", "Rome"]}, "letters": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["name", "letters"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "city", "strict": True, "schema": SCHEMA}}
CAPITAL, TWO = [user(TASK["capital"])], [user(TASK["two"])]
TOOLS = {"tools": TASK["tools"]}
LOGPROBS = {"logprobs": True, "top_logprobs": 2}
CHATS: dict[str, dict[str, Any]] = {
    "plain": {"messages": CAPITAL},
    "thinking": {"messages": [THINK, *CAPITAL]},
    "calls": {"messages": TWO, **TOOLS},
    "thinking and calls": {"messages": [THINK, *TWO], **TOOLS},
    "whole calls": {"messages": TWO, **TOOLS, "stream_tool_calls": False},
    "required": {"messages": CAPITAL, **TOOLS, "tool_choice": "required"},
    "one call": {"messages": TWO, **TOOLS, "parallel_tool_calls": False},
    "schema": {"messages": CAPITAL, "response_format": FORMAT},
    "thinking and schema": {"messages": [THINK, *CAPITAL], "response_format": FORMAT},
    "cut": {"messages": CAPITAL, "max_completion_tokens": 3},
    "stop": {"messages": CAPITAL, "stop": "France"},
    "two answers": {"messages": [THINK, *CAPITAL], "n": 2, "seed": 1, "temperature": 1},
    "log probabilities": {"messages": CAPITAL, **LOGPROBS},
    "log probabilities of two": {"messages": [THINK, *CAPITAL], **LOGPROBS, "n": 2, "seed": 1, "temperature": 1},
    "log probabilities of calls": {"messages": TWO, **TOOLS, **LOGPROBS},
    "ignored": {"messages": CAPITAL, "user": "me", "store": True, "metadata": {"a": "b"}, "service_tier": "auto"},
}
TEXTS: dict[str, dict[str, Any]] = {
    "text": {"prompt": "The capital of France", "max_tokens": 8},
    "texts": {"prompt": ["The capital of France", "The capital of Italy"], "max_tokens": 8, "n": 2, "seed": 1},
    "log probabilities of a text": {"prompt": "The capital of France", "max_tokens": 8, "logprobs": 2},
}
ERRORS: dict[str, dict[str, Any]] = {
    "model": {"messages": CAPITAL, "model": "gpt-4o"},
    "field": {"messages": CAPITAL, "top_p": 7},
    "type": {"messages": CAPITAL, "top_p": "much"},
    "messages": {"messages": [{"role": "nobody", "content": "?"}]},
    "long": {"messages": [user("word " * 5000)]},
}


class ChoiceOfChunk(CompletionChoice):
    """The package has no type of its own for it, though a stream says why it ended at its end only."""

    finish_reason: Literal["stop", "length"] | None  # type: ignore[assignment]


class CompletionChunk(Completion):
    """A chunk of a streamed completion."""

    choices: list[ChoiceOfChunk]  # type: ignore[assignment]


def post(path: str, body: dict[str, Any]) -> bytes:
    """The body of the response."""
    headers = {"content-type": "application/json", "authorization": f"Bearer {TASK['key']}"}
    data = json.dumps({"model": TASK["model"], "temperature": 0, **body}).encode()
    with urllib.request.urlopen(urllib.request.Request(sys.argv[1] + path, data, headers)) as response:
        return bytes(response.read())


def events(body: bytes) -> list[bytes]:
    """The data of the events in *body*, which must end as streams do."""
    *data, done = [event.removeprefix(b"data: ") for event in body.split(b"\n\n") if event]
    assert done == b"[DONE]"
    return data


def unknown(value: Any, path: str = "") -> Iterator[str]:
    """The names of the fields in *value* that its types do not know."""
    if isinstance(value, list):
        for item in value:
            yield from unknown(item, path)
    elif isinstance(value, BaseModel):
        for name, field in value:
            where = f"{path}.{name}" if path else name
            if name in (value.model_extra or {}):
                yield where
            else:
                yield from unknown(field, where)


def looked_at(kind: type[BaseModel], documents: list[bytes]) -> list[Any]:
    """How many there are, and what *kind* does not know of them."""
    values = [kind.model_validate(json.loads(document)) for document in documents]
    return [len(values), sorted({name for value in values for name in unknown(value)})]


def refused(body: dict[str, Any]) -> list[Any]:
    """What is in the error, which must be one."""
    try:
        post("/chat/completions", body)
    except urllib.error.HTTPError as error:
        return [error.code, *looked_at(ErrorObject, [json.dumps(json.loads(error.read())["error"]).encode()])]
    raise AssertionError(body)


def main() -> dict[str, Any]:
    """What was found of each request."""
    found: dict[str, Any] = {}
    kinds = (
        ("/chat/completions", ChatCompletion, ChatCompletionChunk, CHATS),
        ("/completions", Completion, CompletionChunk, TEXTS),
    )
    for path, whole, chunk, requests in kinds:
        for name, request in requests.items():
            found[name] = looked_at(whole, [post(path, request)])
            for usage in (False, True):
                options = {"stream": True, "stream_options": {"include_usage": usage}}
                found[f"{name}, streamed{' with usage' * usage}"] = looked_at(
                    chunk, events(post(path, request | options))
                )
    models = urllib.request.Request(f"{sys.argv[1]}/models", headers={"authorization": f"Bearer {TASK['key']}"})
    with urllib.request.urlopen(models) as response:
        found["models"] = looked_at(Model, [json.dumps(model).encode() for model in json.load(response)["data"]])
    return {"found": found, "errors": {name: refused(body) for name, body in ERRORS.items()}}


print(json.dumps(main()))

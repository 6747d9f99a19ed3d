"""What `litellm` gets from the gateway at its one argument; the task is JSON on stdin, so is what it prints."""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Literal

from pydantic import BaseModel, Field

# Else it tries for ten seconds to fetch a list of prices.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm

TASK = json.load(sys.stdin)
THINK = {"role": "system", "content": "detailed thinking on"}
# How it is told what kind of server there is.
PROVIDERS = ("openai", "hosted_vllm", "nvidia_nim")


class City(BaseModel):
    """The city that is asked for."""

    name: Literal["Paris", "Rome"]
    letters: int = Field(ge=0, le=9)


def user(text: str) -> dict[str, str]:
    """A turn of the user."""
    return {"role": "user", "content": text}


def ask(*messages: Any, provider: str = "openai", stream: bool = False, **options: Any) -> Any:
    """The message of an answer; a streamed one is put together as the package does it."""
    answer = litellm.completion(
        model=f"{provider}/{TASK['model']}",
        api_base=sys.argv[1],
        api_key=TASK["key"],
        messages=list(messages),
        temperature=0,
        stream=stream,
        max_retries=0,
        **options,
    )
    return (litellm.stream_chunk_builder(list(answer)) if stream else answer).choices[0].message


def calls_of(message: Any) -> list[list[Any]]:
    """The names and arguments of the calls in *message*."""
    return [[call.function.name, json.loads(call.function.arguments)] for call in message.tool_calls or []]


def thought_of(message: Any) -> dict[str, Any]:
    """The thinking in *message* and its text."""
    return {"reasoning": message.reasoning_content, "content": message.content}


def answered(message: Any, result: str) -> list[dict[str, str]]:
    """*result* for each call in *message*."""
    return [{"role": "tool", "tool_call_id": call.id, "content": result} for call in message.tool_calls]


def main() -> dict[str, Any]:
    """Every part of the task."""
    capital, two, tip = (user(TASK[name]) for name in ("capital", "two", "tip"))
    tools = {"tools": TASK["tools"]}
    called = [ask(THINK, two, stream=stream, **tools) for stream in (False, True)]
    once = ask(tip, **tools)
    schema_answers = [ask(*think, capital, response_format=City).content for think in ([], [THINK])]
    return {
        "plain": ask(capital).content,
        "streamed": ask(capital, stream=True).content,
        "thinking": thought_of(ask(THINK, capital)),
        "thinking_streamed": thought_of(ask(THINK, capital, stream=True)),
        "providers": [
            thought_of(ask(THINK, capital, provider=provider, stream=stream))
            for provider in PROVIDERS
            for stream in (False, True)
        ],
        "calls": calls_of(called[0]),
        "calls_streamed": {"calls": calls_of(called[1]), **thought_of(called[1])},
        "loop": {
            "calls": calls_of(once),
            "content": ask(tip, once, *answered(once, '{"tip": 18}'), **tools).content,
        },
        "echoed": [
            ask(two, first, *answered(first, '{"tip": 12}'), capital, provider=provider).content
            for first in called
            for provider in PROVIDERS
        ],
        "structured": [json.loads(answer) for answer in schema_answers],
    }


print(json.dumps(main()))

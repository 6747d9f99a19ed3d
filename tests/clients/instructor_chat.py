"""What `instructor` gets from the gateway at its one argument; the task is JSON on stdin, so is what it prints."""

from __future__ import annotations

import json
import sys
from typing import Any, Literal

import instructor
import openai
from pydantic import BaseModel, ConfigDict, Field

TASK = json.load(sys.stdin)
CLIENT = openai.OpenAI(base_url=sys.argv[1], api_key=TASK["key"])
THINK = {"role": "system", "content": "detailed thinking on"}
MODES = ("TOOLS", "TOOLS_STRICT", "JSON_SCHEMA")


class City(BaseModel):
    """The city that is asked for, and nothing more."""

    model_config = ConfigDict(extra="forbid")
    name: Literal["Paris", "Rome"]
    letters: int = Field(ge=0, le=9)


def ask(mode: str, *, stream: bool = False, think: bool = False) -> Any:
    """The city, by one of the package's ways to get it."""
    client = instructor.from_openai(CLIENT, mode=instructor.Mode[mode])
    create = client.chat.completions.create_partial if stream else client.chat.completions.create
    city = create(
        model=TASK["model"],
        messages=[*([THINK] if think else []), {"role": "user", "content": TASK["capital"]}],
        response_model=City,
        temperature=0,
        max_retries=0,
    )
    return (list(city)[-1] if stream else city).model_dump()


print(json.dumps({"structured": [ask(mode, think=think) for mode in MODES for think in (False, True)],
                  "structured_streamed": [ask(mode, stream=True) for mode in MODES]}))  # fmt: skip

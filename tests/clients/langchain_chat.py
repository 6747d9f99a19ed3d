"""What `langchain-openai` gets from the gateway at its one argument; the task is JSON on stdin, so is what it prints.

It leaves thinking out on purpose.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Literal

from langchain_core.messages import AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field

TASK = json.load(sys.stdin)
MODEL = ChatOpenAI(base_url=sys.argv[1], api_key=TASK["key"], model=TASK["model"], temperature=0)
THINK = SystemMessage("detailed thinking on")


class City(BaseModel):
    """The city that is asked for."""

    name: Literal["Paris", "Rome"]
    letters: int = Field(ge=0, le=9)


@tool
def calculate_tip(bill_total: int, tip_percentage: int) -> str:
    """Calculate the tip for a bill."""
    return json.dumps({"tip": bill_total * tip_percentage // 100})


WITH_TOOLS = MODEL.bind_tools([calculate_tip])


def calls_of(message: Any) -> list[list[Any]]:
    """The names and arguments of the calls in *message*."""
    return [[call["name"], call["args"]] for call in message.tool_calls]


def joined(model: Any, *messages: Any) -> AIMessageChunk:
    """The chunks of a streamed answer, added as the package adds them."""
    first, *others = model.stream(list(messages))
    return sum(others, first)  # type: ignore[no-any-return]


def loop() -> Any:
    asked = HumanMessage(TASK["tip"])
    message = WITH_TOOLS.invoke([asked])
    results: list[ToolMessage] = [calculate_tip.invoke(call) for call in message.tool_calls]
    return {"calls": calls_of(message), "content": WITH_TOOLS.invoke([asked, message, *results]).content}


def echoed() -> Any:
    """Messages of whole and of streamed answers go back as the objects that came."""
    two, capital = HumanMessage(TASK["two"]), HumanMessage(TASK["capital"])
    answers = []
    for first in (WITH_TOOLS.invoke([THINK, two]), joined(WITH_TOOLS, THINK, two)):
        results = [calculate_tip.invoke(call) for call in first.tool_calls]
        second = MODEL.invoke([two, first, *results])
        answers.append(MODEL.invoke([two, first, *results, second, capital]).content)
    return answers


def structured() -> Any:
    return [
        MODEL.with_structured_output(City, method=method).invoke([*think, HumanMessage(TASK["capital"])]).model_dump()
        for think in ([], [THINK])
        for method in ("json_schema", "function_calling")
    ]


def main() -> dict[str, Any]:
    """Every part of the task."""
    capital, two = HumanMessage(TASK["capital"]), HumanMessage(TASK["two"])
    streamed = joined(WITH_TOOLS, THINK, two)
    return {
        "plain": MODEL.invoke([capital]).content,
        "streamed": joined(MODEL, capital).content,
        "thinking": {"content": MODEL.invoke([THINK, capital]).content},
        "thinking_streamed": {"content": joined(MODEL, THINK, capital).content},
        "calls": calls_of(WITH_TOOLS.invoke([two])),
        "calls_streamed": {"calls": calls_of(streamed), "finish": streamed.response_metadata["finish_reason"]},
        "loop": loop(),
        "echoed": echoed(),
        "structured": structured(),
    }


print(json.dumps(main()))

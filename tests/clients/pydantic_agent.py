"""What `pydantic-ai` gets from the gateway at its one argument; the task is JSON on stdin, so is what it prints."""

from __future__ import annotations

import json
import sys
from typing import Any, Literal

from pydantic import BaseModel, Field
from pydantic_ai import Agent, NativeOutput, ToolOutput
from pydantic_ai.messages import ModelResponse, ThinkingPart, ToolCallPart
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

TASK = json.load(sys.stdin)
MODEL = OpenAIChatModel(TASK["model"], provider=OpenAIProvider(base_url=sys.argv[1], api_key=TASK["key"]))


class City(BaseModel):
    """The city that is asked for."""

    name: Literal["Paris", "Rome"]
    letters: int = Field(ge=0, le=9)


def calculate_tip(bill_total: int, tip_percentage: int) -> dict[str, int]:
    """Calculate the tip for a bill."""
    return {"tip": bill_total * tip_percentage // 100}


def agent(*, think: bool = False, **options: Any) -> Agent:
    """One that thinks or does not."""
    instructions = "detailed thinking on" if think else None
    return Agent(MODEL, instructions=instructions, model_settings={"temperature": 0}, **options)


def parts_of(result: Any, kind: type) -> list[Any]:
    """The parts of a *kind* in what the model said in *result*."""
    responses = [message for message in result.all_messages() if isinstance(message, ModelResponse)]
    return [part for response in responses for part in response.parts if isinstance(part, kind)]


def thought_of(result: Any) -> dict[str, str]:
    """The thinking in *result* and its text."""
    return {"reasoning": "".join(part.content for part in parts_of(result, ThinkingPart)), "content": result.output}


def calls_of(result: Any) -> list[list[Any]]:
    """The names and arguments of the calls in *result*."""
    return [[call.tool_name, call.args_as_dict()] for call in parts_of(result, ToolCallPart)]


def stream(agent: Agent, asked: str) -> Any:
    """The result of a streamed run, with the text in its pieces as `output`."""
    result = agent.run_stream_sync(asked)
    result.output = "".join(result.stream_text(delta=True))
    return result


def main() -> dict[str, Any]:
    """Every part of the task."""
    capital = TASK["capital"]
    two = agent(tools=[calculate_tip]).run_sync(TASK["two"])
    tip = agent(tools=[calculate_tip]).run_sync(TASK["tip"])
    two_streamed = stream(agent(think=True, tools=[calculate_tip]), TASK["two"])
    return {
        "plain": agent().run_sync(capital).output,
        "streamed": stream(agent(), capital).output,
        "thinking": thought_of(agent(think=True).run_sync(capital)),
        "thinking_streamed": thought_of(stream(agent(think=True), capital)),
        "calls": calls_of(two),
        "calls_streamed": {"calls": calls_of(two_streamed)},
        "loop": {"calls": calls_of(tip), "content": tip.output},
        "echoed": [
            agent().run_sync(capital, message_history=result.all_messages()).output for result in (two, two_streamed)
        ],
        "structured": [
            agent(think=think, output_type=kind(City)).run_sync(capital).output.model_dump()
            for think in (False, True)
            for kind in (NativeOutput, ToolOutput)
        ],
    }


print(json.dumps(main()))

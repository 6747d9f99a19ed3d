"""What the Agents SDK gets from the gateway at its one argument; the task is JSON on stdin, so is what it prints."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, Literal

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from agents.agent import StopAtTools
from openai import AsyncOpenAI
from pydantic import BaseModel, Field

TASK = json.load(sys.stdin)
MODEL = OpenAIChatCompletionsModel(
    model=TASK["model"], openai_client=AsyncOpenAI(base_url=sys.argv[1], api_key=TASK["key"])
)
CALLS: list[list[Any]] = []


class City(BaseModel):
    """The city that is asked for."""

    name: Literal["Paris", "Rome"]
    letters: int = Field(ge=0, le=9)


@function_tool
def calculate_tip(bill_total: int, tip_percentage: int) -> str:
    """Calculate the tip for a bill."""
    CALLS.append(["calculate_tip", {"bill_total": bill_total, "tip_percentage": tip_percentage}])
    return json.dumps({"tip": bill_total * tip_percentage // 100})


def agent(*, think: bool = False, **options: Any) -> Agent:
    """One that thinks or does not."""
    instructions = "detailed thinking on" if think else None
    return Agent("demo", instructions=instructions, model=MODEL, model_settings=ModelSettings(temperature=0), **options)


async def run(agent: Agent, asked: Any) -> Any:
    """The result of a run, without a stream."""
    CALLS.clear()
    return await Runner.run(agent, asked)


async def stream(agent: Agent, asked: Any) -> tuple[Any, str]:
    """The result of a streamed run, and the text in its pieces."""
    CALLS.clear()
    result = Runner.run_streamed(agent, asked)
    text = ""
    async for event in result.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            text += event.data.delta
    return result, text


def thought_of(result: Any) -> str:
    """The thinking in *result*."""
    items = [item.raw_item for item in result.new_items if item.type == "reasoning_item"]
    return "".join(part.text for item in items for part in item.summary)


async def main() -> dict[str, Any]:
    """Every part of the task."""
    set_tracing_disabled(True)
    thinker, tipper = agent(think=True), agent(tools=[calculate_tip])
    # It would else ask the model what it makes of its two results.
    caller = agent(
        think=True, tools=[calculate_tip], tool_use_behavior=StopAtTools(stop_at_tool_names=["calculate_tip"])
    )
    found: dict[str, Any] = {"plain": (await run(agent(), TASK["capital"])).final_output}
    result, found["streamed"] = await stream(agent(), TASK["capital"])
    assert result.final_output == found["streamed"]
    result = await run(thinker, TASK["capital"])
    found["thinking"] = {"reasoning": thought_of(result), "content": result.final_output}
    result, text = await stream(thinker, TASK["capital"])
    found["thinking_streamed"] = {"reasoning": thought_of(result), "content": text}
    result = await run(caller, TASK["two"])
    found["calls"] = list(CALLS)
    # What was said goes back, with its calls, results and thinking, and something else is asked.
    history = [*result.to_input_list(), {"role": "user", "content": TASK["capital"]}]
    found["echoed"] = [(await run(agent(), history)).final_output]
    result, _ = await stream(caller, TASK["two"])
    found["calls_streamed"] = {"calls": list(CALLS), "reasoning": thought_of(result)}
    history = [*result.to_input_list(), {"role": "user", "content": TASK["capital"]}]
    found["echoed"].append((await run(agent(), history)).final_output)
    result = await run(tipper, TASK["tip"])
    found["loop"] = {"calls": list(CALLS), "content": result.final_output}
    result, _ = await stream(tipper, TASK["tip"])
    found["loop_streamed"] = {"calls": list(CALLS), "content": result.final_output}
    found["structured"] = [
        (await run(agent(think=think, output_type=City), TASK["capital"])).final_output.model_dump()
        for think in (False, True)
    ]
    return found


print(json.dumps(asyncio.run(main())))

"""A program of a service: makes every kind of call to a server at a given address, and prints the results as JSON.

It runs with the client of this commit and with that of an older one, so it uses what both have.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from collections.abc import Callable
from typing import Any

from nemotron_client import (
    AsyncClient,
    Client,
    ClientError,
    Reply,
    SystemMessage,
    ToolResult,
    UserMessage,
)

CAPITAL = [UserMessage("What is the capital of France?")]
TIP = [UserMessage("My bill is $100. What will be the amount for 18% tip?")]
GREEDY: dict[str, Any] = {"temperature": 0.0, "timeout_s": 60}


def calculate_tip(bill_total: int, tip_percentage: int) -> float:
    """Calculate the tip amount for a bill."""
    return bill_total * tip_percentage / 100


def parts(reply: Reply) -> dict[str, Any]:
    """The parts of a reply that repeat: all but its times and ids."""
    calls = [[call.name, call.arguments] for call in reply.tool_calls]
    return {
        "reasoning": reply.reasoning,
        "content": reply.content,
        "calls": calls,
        "finish": reply.finish_reason,
        "usage": dataclasses.asdict(reply.usage),
        "problems": [problem.code for problem in reply.problems],
    }


def error(call: Callable[[], object]) -> list[str]:
    """The class and the status of the error that a call raises."""
    try:
        call()
    except ClientError as raised:
        return [type(raised).__name__, raised.status]
    return []


async def awaited(url: str) -> dict[str, Any]:
    """What `AsyncClient` gets."""
    async with AsyncClient(url) as client:
        async with client.stream(CAPITAL, thinking=True, **GREEDY) as stream:
            events = [event async for event in stream]
        run = await client.run(TIP, tools=[calculate_tip], thinking=False, **GREEDY)
        return {
            "chat": parts(await client.chat(CAPITAL, thinking=False, **GREEDY)),
            "stream": parts(Reply.of(events)),
            "run": [result.content for result in run.results],
            "tokens": await client.count_tokens(CAPITAL, thinking=False),
        }


def main(url: str) -> dict[str, Any]:
    """One call of each kind."""
    with Client(url) as client:
        events = list(client.stream(CAPITAL, thinking=True, **GREEDY))
        with client.stream(CAPITAL, thinking=True, **GREEDY) as left:
            next(left)
        run = list(client.run_stream(TIP, tools=[calculate_tip], thinking=False, **GREEDY))
        prompt = client.render([SystemMessage("Be brief."), *CAPITAL], thinking=True)
        return {
            "ready": client.is_ready(),
            "models": [model.name for model in client.models()],
            "thinking": parts(client.chat(CAPITAL, thinking=True, **GREEDY)),
            "plain": parts(client.chat(CAPITAL, thinking=False, **GREEDY)),
            "stream": parts(Reply.of(events)),
            "kinds": sorted({type(event).__name__ for event in events}),
            "short": parts(client.chat(CAPITAL, thinking=False, max_tokens=1, **GREEDY)),
            "forced": parts(
                client.chat(TIP, tools=[calculate_tip], tool_choice="calculate_tip", thinking=False, **GREEDY)
            ),
            "run": [event.content for event in run if isinstance(event, ToolResult)],
            "prompt": prompt.text,
            "tokens": client.count_tokens(CAPITAL, thinking=False),
            "generated": parts(client.generate(prompt.text, thinking=True, **GREEDY)),
            "rejected": error(lambda: client.chat(CAPITAL, temperature=-1.0)),
            "denied": error(lambda: Client(url, secret="not-the-secret-of-the-server").chat(CAPITAL)),  # noqa: S106
            "late": error(lambda: client.chat(CAPITAL, timeout_s=0.001)),
            "no server": error(lambda: Client("127.0.0.1:9", max_retries=0).chat(CAPITAL)),
            "async": asyncio.run(awaited(url)),
        }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1])))

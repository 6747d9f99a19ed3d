"""The program of a service: calls the model at a given address with both clients, and prints their results as JSON."""

from __future__ import annotations

import asyncio
import json
import sys

from nemotron_client import AsyncClient, Client, ContentDelta, ToolResult, UserMessage

HI = [UserMessage("hi")]


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def awaited(url: str) -> str | None:
    """The answer that `AsyncClient` gets."""
    async with AsyncClient(url) as client:
        return (await client.chat(HI)).content


def main(url: str) -> None:
    """One call of each kind."""
    with Client(url) as client:
        with client.stream(HI) as stream:
            streamed = "".join(event.text for event in stream if isinstance(event, ContentDelta))
        results = [event for event in client.run_stream(HI, tools=[add]) if isinstance(event, ToolResult)]
        seen = {
            "ready": client.is_ready(),
            "chat": client.chat(HI).content,
            "stream": streamed,
            "run": [result.content for result in results],
            "async": asyncio.run(awaited(url)),
        }
    sys.stdout.write(json.dumps(seen))


if __name__ == "__main__":
    main(sys.argv[1])

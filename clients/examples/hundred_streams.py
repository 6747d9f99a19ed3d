"""A hundred answers at once, from one process with an event loop.

    python clients/examples/hundred_streams.py

The server is `NEMOTRON_URL`, by default 127.0.0.1:8001.
"""

from __future__ import annotations

import asyncio
import sys
import time

from nemotron_client import AsyncClient, ClientError, Reply, UserMessage


async def main(streams: int) -> None:
    """Ask them all, and say how long it took."""
    async with AsyncClient(timeout_s=120) as client:

        async def ask(bill: int) -> Reply:
            question = f"My bill is ${bill}. What will be the amount for 18% tip?"
            return await client.chat([UserMessage(question)], thinking=False, temperature=0.0)

        begin = time.monotonic()
        replies = await asyncio.gather(*(ask(100 + number) for number in range(streams)))
        took_s = time.monotonic() - begin
    for reply in replies[:3]:
        sys.stdout.write(f"{reply.content}\n")
    tokens = sum(reply.usage.output_tokens for reply in replies)
    retries = sum(reply.retries for reply in replies)
    sys.stdout.write(f"{len(replies)} answers, {tokens} tokens in {took_s:.1f} s, {retries} retries\n")


if __name__ == "__main__":
    try:
        asyncio.run(main(100))
    except ClientError as error:
        sys.exit(f"error: {error}")

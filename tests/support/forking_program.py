"""A program that uses a client, forks, and uses it in the child: waits for a line before each thing that it does.

    python forking_program.py KIND URL

Prints a JSON list for each line: of a request the text and the retries, and `forked`. KIND is Client or AsyncClient.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from nemotron_client import AsyncClient, Client, Reply

HI = [{"role": "user", "content": "hi"}]


def say(*values: Any) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def told(reply: Reply) -> None:
    say(os.getpid(), reply.content, reply.retries)


def with_threads(url: str) -> None:
    client = Client(url, timeout_s=20, balance="round_robin")
    told(client.chat(HI))
    if pid := os.fork():
        os.waitpid(pid, 0)
        told(client.chat(HI))
        return
    for _ in sys.stdin:
        told(client.chat(HI))
    os._exit(0)


def with_a_loop(url: str) -> None:
    client = AsyncClient(url, timeout_s=20, balance="round_robin")

    async def main() -> None:
        while await asyncio.to_thread(sys.stdin.readline):
            told(await client.chat(HI))

    if pid := os.fork():
        os.waitpid(pid, 0)
        return
    asyncio.run(main())
    os._exit(0)


if __name__ == "__main__":
    {"Client": with_threads, "AsyncClient": with_a_loop}[sys.argv[1]](sys.argv[2])

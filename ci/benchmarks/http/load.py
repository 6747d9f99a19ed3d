"""Callers of a streamed chat completion: `load.py PORT STREAMS REQUESTS SLOW SPREAD_S` asks, and prints what it saw.

It counts events and looks for the end of each stream only, so that it costs as little as it can. The callers begin one
after the other within SPREAD_S, so that their streams do not begin together. So many SLOW ones more ask once, and read
nothing before all others are done.
"""

from __future__ import annotations

import asyncio
import json
import socket
import statistics
import sys
import time

import uvloop

BODY = json.dumps(
    {"model": "replay", "stream": True, "messages": [{"role": "user", "content": "What is an 18% tip on $100? " * 8}]}
).encode()
REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n" % len(BODY)
) + BODY


# What a caller's machine takes in for one that does not read: as little as it can, so that the gateway has the rest.
_LIMIT = 4096


async def _ask(
    port: int, requests: int, first_s: list[float], after_s: float = 0.0, wait: asyncio.Event | None = None
) -> int:
    """How many events came."""
    events = 0
    await asyncio.sleep(after_s)
    connection = socket.socket()
    if wait:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _LIMIT)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=connection, limit=_LIMIT if wait else 1 << 16)
    for _ in range(requests):
        begin_s = time.perf_counter()
        writer.write(REQUEST)
        seen = False
        tail = b""
        if wait:
            await wait.wait()
        while not tail.endswith(b"0\r\n\r\n"):
            data = await reader.read(1 << 16)
            if not data:
                raise ConnectionError(f"the stream ended: {tail!r}")
            if not seen and b'"content"' in data:
                seen = True
                first_s.append(time.perf_counter() - begin_s)
            events += data.count(b"data: {")
            tail = (tail + data)[-64:]
        if b"[DONE]" not in tail:
            raise ConnectionError(f"the stream did not end as it should: {tail!r}")
    writer.close()
    return events


async def _load(port: int, streams: int, requests: int, slow: int, spread_s: float) -> None:
    first_s: list[float] = []
    go = asyncio.Event()
    waiting = [asyncio.ensure_future(_ask(port, 1, [], wait=go)) for _ in range(slow)]
    begin_s = time.perf_counter()
    asking = (_ask(port, requests, first_s, spread_s * place / streams) for place in range(streams))
    events = sum(await asyncio.gather(*asking))
    took_s = time.perf_counter() - begin_s
    go.set()
    await asyncio.gather(*waiting)
    sys.stdout.write(json.dumps({"took_s": took_s, "first_ms": statistics.median(first_s) * 1e3, "events": events}))


if __name__ == "__main__":
    uvloop.run(_load(*map(int, sys.argv[1:5]), float(sys.argv[5])))

"""A gRPC server that answers every stream with recorded bytes, as fast as it is read, in a process of its own.

    python responder.py PORT RECORDING

RECORDING is a JSON list of responses in hexadecimal. Prints a line when it listens.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio


class Replay(grpc.GenericRpcHandler):  # type: ignore[misc] # grpc has no types
    """Every method streams the recording; nothing is parsed."""

    def __init__(self, responses: list[bytes]) -> None:
        self._responses = responses

    def service(self, _details: Any) -> Any:
        """The handler of any method."""
        return grpc.stream_stream_rpc_method_handler(self._answer)

    async def _answer(self, requests: Any, _context: Any) -> AsyncIterator[bytes]:
        async for _ in requests:
            for response in self._responses:
                yield response


async def main(port: int, recording: Path) -> None:
    """Serve until killed."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        [Replay([bytes.fromhex(response) for response in json.loads(recording.read_text())])]
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2])))

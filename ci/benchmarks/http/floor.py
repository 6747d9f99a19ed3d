"""The least that a gateway can be: raw ASGI in front of a raw gRPC stub, which answers every request alike.

Run as a program: `floor.py GRPC_PORT PORT`, under the same HTTP server as the gateway. It reads no request, checks
nothing, keeps nothing alive and watches no caller; each response becomes one event with its text.
"""

from __future__ import annotations

import sys
from typing import Any

import grpc.aio
import msgspec
import uvicorn
from tritonclient.grpc import service_pb2

from nemotron_client.protocol import Methods, infer_request

_encode = msgspec.json.Encoder().encode
_PREFIX = (
    b'data: {"id":"chatcmpl-0","object":"chat.completion.chunk","created":0,"model":"floor","choices":[{"index":0,'
    b'"delta":{"content":'
)
_SUFFIX = b'},"logprobs":null,"finish_reason":null}]}\n\n'
_START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
_END = {"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False}


class Floor:
    """The application."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._methods: Methods | None = None
        self._request = infer_request("nemotron", {"messages": [{"role": "user", "content": "x"}]}, request_id="0")

    async def __call__(self, _scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if self._methods is None:
            self._methods = Methods(grpc.aio.insecure_channel(self._url))
        await receive()
        await send(_START)
        call = self._methods.stream_infer(self._request)
        while (response := await call.read()) is not grpc.aio.EOF:
            text = response.infer_response.raw_output_contents[0][4:].decode()
            await send({"type": "http.response.body", "body": _PREFIX + _encode(text) + _SUFFIX, "more_body": True})
        await send(_END)


if __name__ == "__main__":
    assert service_pb2
    uvicorn.run(
        Floor(f"127.0.0.1:{sys.argv[1]}"),
        port=int(sys.argv[2]),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
    )

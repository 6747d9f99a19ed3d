"""Gateways that this process runs, and a caller of HTTP that sees what is on the wire."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import uvicorn

from nemotron_client import AsyncClient, wire
from nemotron_gateway.app import application
from nemotron_gateway.connection import limited
from nemotron_gateway.door import Door
from nemotron_gateway.keys import Keys
from nemotron_gateway.settings import Settings
from ports import free_ports
from scripted_server import Script, response

CHAT = "/v1/chat/completions"
DESCRIPTION = {
    "name": "scripted",
    "names": ["makers/scripted"],
    "context_tokens": 4096,
    "kind": "cpu",
    "precision": "bf16",
    "gpu": "cpu",
    "built_at": "2026-12-01T00:00:00+00:00",
}
HI = [{"role": "user", "content": "What is the capital of France?"}]


def described(script: Script) -> Script:
    """*script*, for requests that are not for what the server serves, which gateways ask first."""

    def answers(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        if any(tensor.name == wire.DESCRIBE.name for tensor in request.inputs):
            return iter([response({wire.DESCRIPTION: json.dumps(DESCRIPTION)})])
        return script(request, context)

    return answers


def sent(request: Any, tensor: wire.Tensor) -> str:
    """The text of *tensor* in a request."""
    place = [sent.name for sent in request.inputs].index(tensor.name)
    return str(request.raw_input_contents[place][4:], "utf-8")


@dataclass(frozen=True)
class Answer:
    """A whole response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body's JSON."""
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error in it."""
        error: dict[str, Any] = self.json["error"]
        return error

    @property
    def events(self) -> list[str]:
        """The data of the server-sent events in it; comments are left out."""
        lines = self.body.decode().split("\n\n")
        return [line.removeprefix("data: ") for line in lines if line and not line.startswith(":")]

    @property
    def chunks(self) -> list[dict[str, Any]]:
        """The JSON of its events, which must end as streams do."""
        *chunks, last = self.events
        assert last == "[DONE]"
        return [json.loads(chunk) for chunk in chunks]


@dataclass(frozen=True)
class Gateway:
    """A gateway that runs; `door` is what it runs, where it is in this process."""

    port: int
    door: Door | None = None

    def connect(self, timeout_s: float = 30) -> http.client.HTTPConnection:
        """A connection of its own."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """The response to one request; *body* is bytes, or becomes JSON."""
        with contextlib.closing(self.connect()) as connection:
            data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            kind = {"content-type": "application/json"} if data is not None else {}
            connection.request(method, path, data, {**kind, **(headers or {})})
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, names, response.read())

    def chat(self, messages: object = HI, headers: Mapping[str, str] | None = None, **fields: Any) -> Answer:
        """The response to a chat completion."""
        return self.ask("POST", CHAT, {"messages": messages} | fields, headers)


@contextlib.contextmanager
def gateway(url: str, *, keys: Path | None = None, timeout_s: float = 60, **settings: Any) -> Iterator[Gateway]:
    """A gateway in front of the server at *url*, in a thread."""
    (port,) = free_ports(1)
    known = Settings(**{"port": port, "has_keys": keys is not None, "any_model": True} | settings)
    client = AsyncClient(url, timeout_s=timeout_s, max_retries=0)
    door = application(client, known, Keys(keys))
    config = uvicorn.Config(
        door,
        host="127.0.0.1",
        port=port,
        http=limited(known.header_timeout_s),
        lifespan="off",
        log_config=None,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    started = threading.Event()

    async def serve() -> None:
        serving = asyncio.ensure_future(server.serve())
        while not (server.started or serving.done()):
            await asyncio.sleep(0.01)
        started.set()
        await serving
        await client.close()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert started.wait(30)
        yield Gateway(port, door)
    finally:
        server.should_exit = True
        thread.join()

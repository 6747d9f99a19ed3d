"""Runs a gateway until it is told to stop, and lets running answers end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn
import uvloop

from nemotron_client import AsyncClient
from nemotron_gateway.app import application
from nemotron_gateway.connection import limited
from nemotron_gateway.door import Door
from nemotron_gateway.errors import SettingError
from nemotron_gateway.keys import Keys
from nemotron_gateway.settings import Settings

_LOOK_S = 0.05
# For connections that are still there when all answers have ended.
_CLOSE_S = 1
# For answers, when what this gateway ends with has ended: as a rule the server is ending too.
_ORPHAN_S = 1.0


@dataclass(frozen=True)
class Certificate:
    """PEM files: the chain of a server's certificate, and its key."""

    cert: Path
    key: Path


def run(
    client: AsyncClient,
    settings: Settings,
    keys: Keys,
    sockets: list[socket.socket],
    *,
    say: Callable[[str], None],
    certificate: Certificate | None = None,
    end_with: int | None = None,
) -> None:
    """Serve on *sockets* until SIGTERM or SIGINT; the second does not let answers end. SIGHUP reads the keys again.

    *say* shows a line of what happens. The end of the file with the descriptor *end_with* counts as a signal, and as
    one that lets answers run for a second only. Raises `SettingError` for a certificate that cannot be used.
    """
    _raise_file_limit()
    door = application(client, settings, keys)
    config = uvicorn.Config(
        door,
        http=limited(settings.header_timeout_s),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_CLOSE_S,
        ssl_certfile=certificate.cert if certificate else None,
        ssl_keyfile=certificate.key if certificate else None,
    )
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        raise SettingError(f"the certificate cannot be used: {error}") from error
    uvloop.run(_serve(config, door, client, keys, sockets, settings.drain_s, say, end_with))


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are ours: the first one lets answers end."""
        yield


async def _serve(
    config: uvicorn.Config,
    door: Door,
    client: AsyncClient,
    keys: Keys,
    sockets: list[socket.socket],
    drain_s: float,
    say: Callable[[str], None],
    end_with: int | None,
) -> None:
    loop = asyncio.get_running_loop()
    stop, hurry = asyncio.Event(), asyncio.Event()

    def ask_to_stop() -> None:
        (hurry if stop.is_set() else stop).set()

    def read_end(descriptor: int) -> None:
        nonlocal drain_s
        if not os.read(descriptor, 4096):
            loop.remove_reader(descriptor)
            drain_s = min(drain_s, _ORPHAN_S)
            ask_to_stop()

    def read_keys() -> None:
        try:
            say(keys.read_again())
        except SettingError as error:
            say(f"the keys stay as they were: {error}")

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ask_to_stop)
    loop.add_signal_handler(signal.SIGHUP, read_keys)
    if end_with is not None:
        loop.add_reader(end_with, read_end, end_with)
    server = _Server(config)
    serving = loop.create_task(server.serve(sockets))
    try:
        await _first(serving, stop)
        if not serving.done():
            door.draining = True
            say(f"draining: answers get up to {drain_s:g} s; a second signal ends them")
            await _drained(door, hurry, drain_s)
    finally:
        # Streams that still run end with an event that says so.
        await client.close()
        server.should_exit = True
        await serving


async def _first(serving: asyncio.Task[None], stop: asyncio.Event) -> None:
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()


async def _drained(door: Door, hurry: asyncio.Event, drain_s: float) -> None:
    loop = asyncio.get_running_loop()
    until_s = loop.time() + drain_s
    while door.active and not hurry.is_set() and loop.time() < until_s:
        await asyncio.sleep(_LOOK_S)


def _raise_file_limit() -> None:
    """A connection is a file; many systems start with 1024, and allow more."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

"""What `nemotron serve --openai` offers: where, to whom, and as whom its gateway calls the server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from nemotron_cli.extras import check_installed
from nemotron_cli.gateway_child import GatewayChild
from nemotron_cli.serve_log import say
from nemotron_gateway.keys import Keys
from nemotron_gateway.settings import Settings
from nemotron_triton.access import new_value
from nemotron_triton.addresses import join, resolve
from nemotron_triton.callers import SECRET_VARIABLE, Callers
from nemotron_triton.serve_options import ServeOptions

PORT_OPTION = "--openai-port"
# The gateway's own name among the server's callers; those of its keys follow behind a slash.
_CALLER = "openai-gateway"


class OpenaiEndpoint:
    """OpenAI's API at *host* and *port*, for those who have a key in *key_file*, or for everybody where there is none.

    Raises `ServerError` and `SettingError` where that cannot be offered, or is not safe.
    """

    def __init__(self, host: str, port: int, key_file: Path | None) -> None:
        check_installed("openai")
        resolve(host, port, PORT_OPTION)
        self._settings = Settings(host=host, port=port, has_keys=key_file is not None)
        self._key_file = key_file
        self._keys = Keys(key_file)
        self._secret = new_value()

    @property
    def has_keys(self) -> bool:
        """Whether callers need a key."""
        return self._settings.has_keys

    def exposure(self) -> str:
        """Where it is, and who may call, in a line."""
        return f"OpenAI   http://{join(self._settings.host, self._settings.port)}/v1: plain, {self._keys}"

    def warnings(self) -> Iterator[str]:
        """A line where keys and answers can be read on the way."""
        if not self._settings.is_loopback:
            yield "warning: other machines reach OpenAI's API without TLS; put a proxy that has it in front"

    def admitted(self, options: ServeOptions) -> ServeOptions:
        """*options* of a server that lets the gateway in, and trusts it to say who asks."""
        return replace(options, callers=options.callers and self.admitted_to(options.callers))

    def admitted_to(self, callers: Callers) -> Callers:
        """*callers* and the gateway; `ServerError` where one has its name."""
        return callers.with_gateway(_CALLER, self._secret)

    def child(self, options: ServeOptions) -> GatewayChild:
        """The gateway of a server with *options*."""
        arguments = [
            f"--url={options.grpc_url}",
            f"--host={self._settings.host}",
            f"--port={self._settings.port}",
            f"--drain={options.drain_ms / 1000}",
            *([f"--api-key-file={self._key_file.absolute()}"] if self._key_file else []),
        ]
        return GatewayChild(arguments, {SECRET_VARIABLE: self._secret} if options.callers else {}, say)

    def read_keys(self, child: GatewayChild) -> str:
        """Let those in whom the file of keys names now, and say who they are; `SettingError` changes nothing."""
        self._keys.read_again()
        child.read_keys()
        return f"read: API {self._keys}"

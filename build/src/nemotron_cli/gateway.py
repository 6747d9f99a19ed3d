"""`nemotron gateway`."""

from __future__ import annotations

import functools
import logging
import sys
from pathlib import Path
from typing import Any

import click

from nemotron_cli import options
from nemotron_cli.options import PATH, SectionedCommand, SectionOption
from nemotron_cli.serve_log import say
from nemotron_client import AsyncClient
from nemotron_gateway.errors import SettingError
from nemotron_gateway.keys import Keys
from nemotron_gateway.listening import listen
from nemotron_gateway.server import Certificate, run
from nemotron_gateway.settings import Settings
from nemotron_triton.access import read_secret

_SECONDS = click.FloatRange(min=0, max=24 * 3600)
_security = functools.partial(click.option, cls=SectionOption, section="Security")
_limit = functools.partial(click.option, cls=SectionOption, section="Limits", show_default=True)


@click.command("gateway", cls=SectionedCommand)
@options.endpoint
@click.option("--host", default=Settings.host, show_default=True, help="Address to listen on.")
@click.option("--port", default=Settings.port, show_default=True, type=click.IntRange(1, 65535))
@click.option(
    "--served-model-name", "served_model_names", multiple=True, metavar="NAME", help="One more name of the model."
)
@click.option("--any-model", is_flag=True, help="Answer to every model's name.")
@click.option("--strict", is_flag=True, help="Refuse requests with fields that nobody knows; else they are ignored.")
@_security(
    "--api-key-file",
    type=PATH,
    help="File with a line `name: key` for each caller, or one key for all; SIGHUP reads it again.",
)
@_security("--no-auth", is_flag=True, help="Let everybody call who can reach an address that is not loopback.")
@_security("--tls-cert", type=PATH, help="PEM file: the certificate chain of this gateway.")
@_security("--tls-key", type=PATH, help="PEM file: its key.")
@_security(
    "--cors-origin", "cors_origins", multiple=True, metavar="ORIGIN", help="Web page that may call, https://host:port."
)
@_security(
    "--allowed-host", "allowed_hosts", multiple=True, metavar="NAME", help="Name by which callers may address it."
)
@_limit("--max-body-bytes", default=Settings.max_body_bytes, type=click.IntRange(1, 64 << 20))
@_limit("--max-requests", default=Settings.max_requests, type=click.IntRange(1, 100_000), help="At a time.")
@_limit("--timeout", "timeout_s", default=600.0, type=_SECONDS, help="Seconds an answer may take.")
@_limit("--body-timeout", "body_timeout_s", default=Settings.body_timeout_s, type=_SECONDS, help="Seconds.")
@_limit("--header-timeout", "header_timeout_s", default=Settings.header_timeout_s, type=_SECONDS, help="Seconds.")
@_limit(
    "--keep-alive",
    "keep_alive_s",
    default=Settings.keep_alive_s,
    type=_SECONDS,
    help="Seconds of silence after which a stream gets a comment.",
)
@_limit("--drain", "drain_s", default=Settings.drain_s, type=_SECONDS, help="Seconds that answers get to end.")
@click.option("--end-with-stdin", is_flag=True, hidden=True, help="End when standard input does, which is a pipe.")
def command(
    url: str | None,
    secret_file: Path | None,
    root_ca: Path | None,
    client_cert: Path | None,
    client_key: Path | None,
    timeout_s: float,
    api_key_file: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    end_with_stdin: bool,
    **values: Any,
) -> None:
    """Offer the model of one server, or of several, to clients of OpenAI's API, until Ctrl-C or SIGTERM.

    The first lets running answers end, the second does not. The address is printed on stdout once it listens.
    """
    logging.basicConfig(level=logging.WARNING, format="nemotron gateway: %(message)s")
    settings = Settings(has_keys=api_key_file is not None, **values)
    certificate = _certificate(tls_cert, tls_key)
    keys = Keys(api_key_file)
    client = AsyncClient(
        url,
        timeout_s=timeout_s,
        secret=read_secret(secret_file),
        root_ca=root_ca,
        client_cert=client_cert,
        client_key=client_key,
    )
    # Once, and elsewhere: the SDKs of OpenAI try again by themselves.
    client = client.with_options(max_retries=int(client.has_several_servers))
    sockets = listen(settings.host, settings.port)
    scheme = "https" if certificate else "http"
    click.echo(f"ready\n  OpenAI API {scheme}://{settings.host}:{settings.port}/v1 ({keys})")
    end_with = sys.stdin.fileno() if end_with_stdin else None
    run(client, settings, keys, sockets, say=_say, certificate=certificate, end_with=end_with)
    _say("stopped")


def _say(line: str) -> None:
    say(f"nemotron gateway: {line}")


def _certificate(cert: Path | None, key: Path | None) -> Certificate | None:
    if cert and key:
        return Certificate(cert, key)
    if cert or key:
        raise SettingError("TLS needs both --tls-cert and --tls-key")
    return None

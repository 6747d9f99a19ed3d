"""`nemotron serve`."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from nemotron_cli.options import PATH, SectionedCommand, SectionOption, connections, limits, text_models
from nemotron_triton.bundle import Bundle
from nemotron_triton.callers import Callers, caller_file, read_callers
from nemotron_triton.connections import Connections
from nemotron_triton.errors import ServerError, ServingError
from nemotron_triton.exposure import exposure, warnings
from nemotron_triton.server import RunningServer, ServeOptions, serve
from nemotron_triton.serving.settings import Settings
from nemotron_triton.tls import Tls

_PORT = click.IntRange(1, 65535)
_MILLISECONDS = click.IntRange(0, 24 * 3600 * 1000)
_security = functools.partial(click.option, cls=SectionOption, section="Security")


@click.command("serve", cls=SectionedCommand)
@click.argument("bundle", type=PATH)
@click.option(
    "--host", default=ServeOptions.host, show_default=True, help="Address for gRPC; loopback unless you say otherwise."
)
@click.option("--http-port", default=ServeOptions.http_port, show_default=True, type=_PORT)
@click.option("--http-host", help="Address for HTTP, which has no TLS. Default: loopback, whatever --host says.")
@click.option("--grpc-port", default=ServeOptions.grpc_port, show_default=True, type=_PORT)
@click.option("--metrics-port", default=ServeOptions.metrics_port, show_default=True, type=_PORT)
@click.option("--metrics-host", help="Address for metrics, which have no TLS. Default: loopback.")
@click.option(
    "--ready-timeout",
    "ready_timeout_s",
    default=ServeOptions.ready_timeout_s,
    show_default=True,
    type=click.FloatRange(min=0, max=24 * 3600, min_open=True),
    help="Seconds the server may take to load.",
)
@click.option(
    "--drain-delay-ms",
    default=ServeOptions.drain_delay_ms,
    show_default=True,
    type=_MILLISECONDS,
    help="Time in which a server that is stopped takes requests yet, while its health says already that it is not "
    "ready: as long as load balancers may take to notice.",
)
@click.option(
    "--drain-ms",
    default=ServeOptions.drain_ms,
    show_default=True,
    type=_MILLISECONDS,
    help="Longest time that running answers get after that.",
)
@click.option("--allow-reload", is_flag=True, help="On SIGHUP, load what then lies at BUNDLE, and drop no answer.")
@text_models
@click.option("--quiet", is_flag=True, help="Keep tritonserver's log to yourself unless it fails.")
@_security("--tls-cert", type=PATH, help="PEM file: the certificate chain of the gRPC endpoint.")
@_security("--tls-key", type=PATH, help="PEM file: its key.")
@_security("--tls-client-ca", type=PATH, help="PEM file: who must have signed the certificates of clients.")
@_security(
    "--secret-file",
    type=PATH,
    help="File with a line `name: secret` for each caller, or one secret for all; SIGHUP reads it again. "
    "Or $NEMOTRON_SECRET_FILE, or the secret in $NEMOTRON_SECRET.",
)
@connections
@limits
def command(
    bundle: Path,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    secret_file: Path | None,
    quiet: bool,
    **values: Any,
) -> None:
    """Serve BUNDLE with tritonserver until Ctrl-C or SIGTERM, which let running answers finish; the second does not.

    tritonserver is the one of NVIDIA's container, or of the nvidia-pytriton wheel. Its log goes to stderr; the
    endpoints are printed on stdout once it can answer.
    """
    options = ServeOptions(
        tls=_tls(tls_cert, tls_key, tls_client_ca),
        callers=read_callers(secret_file),
        settings=Settings(**{field.name: values.pop(field.name) for field in dataclasses.fields(Settings)}),
        connections=Connections(**{field.name: values.pop(field.name) for field in dataclasses.fields(Connections)}),
        **values,
    )
    stop, hurry = threading.Event(), threading.Event()
    serving: list[RunningServer] = []

    def ask_to_stop(*_: object) -> None:
        (hurry if stop.is_set() else stop).set()

    def ask_to_reload(*_: object) -> None:
        # On a thread: loading takes long, and meanwhile the server is watched.
        threading.Thread(target=_reload, args=(serving, secret_file or caller_file()), daemon=True).start()

    served_bundle = Bundle.open(bundle)
    for line in warnings(options):
        _say(line)
    # A signal interrupts until here, and asks for an orderly end from here on. The handlers are set before the server
    # starts: whoever reads its log may send a signal at once.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask_to_stop)
    signal.signal(signal.SIGHUP, ask_to_reload)
    with serve(served_bundle, options, log=(lambda _: None) if quiet else _say) as server:
        if server.wait_ready(stop):
            serving.append(server)
            click.echo("\n".join(["ready", *(f"  {line}" for line in exposure(options))]))
            click.echo(f'ask it: nemotron chat "What is the capital of France?" --url {options.grpc_url}')
            server.wait(stop)
            _leave(server, options, hurry)
    _say("stopped")


def _leave(server: RunningServer, options: ServeOptions, hurry: threading.Event) -> None:
    """Not ready, then no requests, then no answers; a step that fails is a line, and the next one is taken."""
    with _failure_said():
        server.withdraw()
    if options.drain_delay_ms:
        _say(f"not ready: requests are taken for {options.drain_delay_ms / 1000:g} s yet; a second signal ends answers")
        server.wait(hurry, options.drain_delay_ms / 1000)
    _say(f"draining: answers get up to {options.drain_ms / 1000:g} s; a second signal ends them")
    with _failure_said():
        server.drain(hurry)


@contextlib.contextmanager
def _failure_said() -> Iterator[None]:
    try:
        yield
    except ServerError as error:
        _say(str(error))


def _say(line: str) -> None:
    """Print a line on stderr; where that fails, as on a full disk, serving and draining go on without it."""
    with contextlib.suppress(OSError):
        click.echo(line, err=True)


def _reload(serving: list[RunningServer], secret_file: Path | None) -> None:
    """Read the secrets again, load what is at the bundle's path now, and print whether that worked."""
    if not serving:
        _say("not reloaded: nothing is served yet")
        return
    if secret_file:
        _read_secrets(serving[0], secret_file)
        if not serving[0].takes_bundles:
            return
    try:
        manifest = serving[0].reload().manifest
    except (ServingError, OSError) as error:
        _say(f"not reloaded: {error}")
    else:
        _say(f"reloaded: {manifest.profile}, {manifest.precision}, built {manifest.built_at}")


def _read_secrets(server: RunningServer, file: Path) -> None:
    """Take over the callers that *file* names now, and print who may call."""
    try:
        callers = Callers.read(file)
        server.replace_callers(callers)
    except ServerError as error:
        _say(f"the secrets stay as they were: {error}")
    else:
        _say(f"secrets read: {callers}")


def _tls(cert: Path | None, key: Path | None, client_ca: Path | None) -> Tls | None:
    if cert and key:
        return Tls(cert=cert, key=key, client_ca=client_ca)
    if cert or key or client_ca:
        raise click.UsageError("TLS needs both --tls-cert and --tls-key")
    return None

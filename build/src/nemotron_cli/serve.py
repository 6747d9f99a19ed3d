"""`nemotron serve`."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from nemotron_cli.ask_line import ask_line
from nemotron_cli.gateway_child import GatewayChild
from nemotron_cli.openai_endpoint import PORT_OPTION, OpenaiEndpoint
from nemotron_cli.options import PATH, SectionedCommand, SectionOption, connections, limits, text_models
from nemotron_cli.serve_log import ServeLog, say
from nemotron_gateway.errors import GatewayError
from nemotron_gateway.settings import Settings as GatewaySettings
from nemotron_triton.bundle import Bundle
from nemotron_triton.callers import Callers, caller_file, read_callers
from nemotron_triton.connections import Connections
from nemotron_triton.errors import ServerError, ServingError
from nemotron_triton.exposure import exposure, warnings
from nemotron_triton.pid_file import PidFile
from nemotron_triton.server import RunningServer, ServeOptions, serve
from nemotron_triton.serving.settings import Settings
from nemotron_triton.tls import Tls

_PORT = click.IntRange(1, 65535)
_MILLISECONDS = click.IntRange(0, 24 * 3600 * 1000)
_security = functools.partial(click.option, cls=SectionOption, section="Security")
_openai = functools.partial(click.option, cls=SectionOption, section="OpenAI's API")


@dataclass(frozen=True)
class _Serving:
    """What is served: a server, and a gateway where there is one."""

    server: RunningServer
    endpoint: OpenaiEndpoint | None
    gateway: GatewayChild | None


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
@click.option("--pid-file", type=PATH, help="File for the id of this process, which `nemotron reload` takes.")
@click.option("--verbose", is_flag=True, help="Show all of tritonserver's log, not only models, warnings and errors.")
@click.option("--quiet", is_flag=True, help="Show nothing of tritonserver's log.")
@_security("--tls-cert", type=PATH, help="PEM file: the certificate chain of the gRPC endpoint.")
@_security("--tls-key", type=PATH, help="PEM file: its key.")
@_security("--tls-client-ca", type=PATH, help="PEM file: who must have signed the certificates of clients.")
@_security(
    "--secret-file",
    type=PATH,
    help="File with a line `name: secret` for each caller, or one secret for all; SIGHUP reads it again. "
    "Or $NEMOTRON_SECRET_FILE, or the secret in $NEMOTRON_SECRET.",
)
@_openai("--openai", is_flag=True, help="Run `nemotron gateway` beside the server, for clients of OpenAI's API.")
@_openai("--openai-host", default=GatewaySettings.host, show_default=True, help="Address for it.")
@_openai(PORT_OPTION, default=GatewaySettings.port, show_default=True, type=_PORT)
@_openai(
    "--api-key-file",
    type=PATH,
    help="File with a line `name: key` for each caller of it, or one key for all; SIGHUP reads it again.",
)
@connections
@limits
def command(
    bundle: Path,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    secret_file: Path | None,
    pid_file: Path | None,
    verbose: bool,
    quiet: bool,
    openai: bool,
    openai_host: str,
    openai_port: int,
    api_key_file: Path | None,
    **values: Any,
) -> None:
    """Serve BUNDLE with tritonserver until Ctrl-C or SIGTERM, which let running answers finish; the second does not.

    tritonserver is the one of NVIDIA's container, or of the nvidia-pytriton wheel. Its warnings and errors,
    and a line for each request, go to stderr; the endpoints are printed on stdout once it can answer.
    """
    options = ServeOptions(
        tls=_tls(tls_cert, tls_key, tls_client_ca),
        callers=read_callers(secret_file),
        settings=Settings(**{field.name: values.pop(field.name) for field in dataclasses.fields(Settings)}),
        connections=Connections(**{field.name: values.pop(field.name) for field in dataclasses.fields(Connections)}),
        **values,
    )
    if api_key_file and not openai:
        raise click.UsageError("--api-key-file is for --openai")
    if tls_cert and openai:
        raise click.UsageError(
            "--openai does not know who signed the certificate of --tls-cert; run `nemotron gateway --root-ca FILE`"
        )
    _check_apart(options, {PORT_OPTION: (openai_host, openai_port)} if openai else {})
    endpoint = OpenaiEndpoint(openai_host, openai_port, api_key_file) if openai else None
    stop, hurry = threading.Event(), threading.Event()
    serving: list[_Serving] = []

    def ask_to_stop(*_: object) -> None:
        (hurry if stop.is_set() else stop).set()

    def ask_to_reload(*_: object) -> None:
        # On a thread: loading takes long, and meanwhile the server is watched.
        threading.Thread(target=_reload, args=(serving, secret_file or caller_file(), named), daemon=True).start()

    served_bundle = Bundle.open(bundle)
    named = PidFile(pid_file) if pid_file else None
    log = ServeLog(verbose=verbose, quiet=quiet)
    for line in [*warnings(options), *(endpoint.warnings() if endpoint else ())]:
        say(line)
    # A signal interrupts until here, and asks for an orderly end from here on. The handlers are set before the server
    # starts: whoever reads its log may send a signal at once.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask_to_stop)
    signal.signal(signal.SIGHUP, ask_to_reload)
    # Its number is for signals, so the handlers come first.
    with (
        named.held() if named else contextlib.nullcontext(),
        _failure_shown(log),
        serve(served_bundle, endpoint.admitted(options) if endpoint else options, log=log) as server,
    ):
        if server.wait_ready(stop):
            with endpoint.child(options) if endpoint else contextlib.nullcontext() as gateway:
                if not gateway or gateway.wait_listening(stop):
                    serving.append(_Serving(server, endpoint, gateway))
                    lines = exposure(options, *([endpoint.exposure()] if endpoint else []))
                    click.echo("\n".join(["ready", *(f"  {line}" for line in lines)]))
                    click.echo(ask_line(options, secret_file))
                server.wait(stop)
                _leave(server, gateway, options, hurry)
    say("stopped")


@contextlib.contextmanager
def _failure_shown(log: ServeLog) -> Iterator[None]:
    """Show what was held back of the log before the line that says why the server failed."""
    try:
        yield
    except ServerError:
        log.show_held_back()
        raise


def _leave(server: RunningServer, gateway: GatewayChild | None, options: ServeOptions, hurry: threading.Event) -> None:
    """Not ready, then no requests, then no answers; a step that fails is a line, and the next one is taken.

    The gateway goes before the server, which answers what it still has; both have the same time.
    """
    with _failure_said():
        server.withdraw()
    if options.drain_delay_ms:
        say(f"not ready: requests are taken for {options.drain_delay_ms / 1000:g} s yet; a second signal ends answers")
        server.wait(hurry, options.drain_delay_ms / 1000)
    say(f"draining: answers get up to {options.drain_ms / 1000:g} s; a second signal ends them")
    deadline = time.monotonic() + options.drain_ms / 1000
    if gateway:
        gateway.drain(hurry, deadline)
    with _failure_said():
        server.drain(hurry, deadline)


@contextlib.contextmanager
def _failure_said() -> Iterator[None]:
    try:
        yield
    except ServerError as error:
        say(str(error))


def _reload(serving: list[_Serving], secret_file: Path | None, pid_file: PidFile | None) -> None:
    """Take over what has changed, and say what came of it, also to a `nemotron reload` that waits."""
    try:
        if not serving:
            raise ServerError("nothing is served yet")
        ok, line = True, "; ".join(_renew(serving[0], secret_file))
    except (ServingError, GatewayError, OSError) as error:
        ok, line = False, f"not reloaded: {error}"
    say(line)
    if pid_file:
        try:
            pid_file.report(ok=ok, line=line)
        except OSError as error:
            say(f"the result of the reload cannot be written beside {pid_file.path}: {error.strerror}")


def _renew(serving: _Serving, secret_file: Path | None) -> Iterator[str]:
    """Read the secrets and keys again, and load what is at the bundle's path now; a sentence for each."""
    server, endpoint, gateway = serving.server, serving.endpoint, serving.gateway
    if secret_file:
        try:
            callers = Callers.read(secret_file)
            server.replace_callers(endpoint.admitted_to(callers) if endpoint else callers)
        except ServerError as error:
            raise ServerError(f"the secrets stay as they were: {error}") from error
        yield f"secrets read: {callers}"
    has_keys = endpoint is not None and endpoint.has_keys
    if endpoint and gateway and has_keys:
        try:
            yield endpoint.read_keys(gateway)
        except GatewayError as error:
            raise ServerError(f"the API keys stay as they were: {error}") from error
    if server.takes_bundles or not (secret_file or has_keys):
        manifest = server.reload().manifest
        yield f"reloaded: {manifest.profile}, {manifest.precision}, built {manifest.built_at}"


def _check_apart(options: ServeOptions, others: Mapping[str, tuple[str, int]]) -> None:
    """Refuse two endpoints on one port, *others* included, which only the later one would say."""
    places = {**{option: (options.hosts[option], port) for option, port in options.ports.items()}, **others}
    for first, second in itertools.combinations(places, 2):
        if places[first] == places[second]:
            raise click.UsageError(f"{first} and {second} are both {places[first][1]}; give each its own")


def _tls(cert: Path | None, key: Path | None, client_ca: Path | None) -> Tls | None:
    if cert and key:
        return Tls(cert=cert, key=key, client_ca=client_ca)
    if cert or key or client_ca:
        raise click.UsageError("TLS needs both --tls-cert and --tls-key")
    return None

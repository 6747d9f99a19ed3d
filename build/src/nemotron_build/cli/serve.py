"""`nemotron serve`."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import click

from nemotron_triton.bundle import Bundle
from nemotron_triton.server import ServeOptions, serve


@click.command("serve")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--host",
    default=ServeOptions.host,
    show_default=True,
    help="Address to listen on; loopback unless you say otherwise.",
)
@click.option("--http-port", default=ServeOptions.http_port, show_default=True, type=click.IntRange(1, 65535))
@click.option("--grpc-port", default=ServeOptions.grpc_port, show_default=True, type=click.IntRange(1, 65535))
@click.option("--metrics-port", default=ServeOptions.metrics_port, show_default=True, type=click.IntRange(1, 65535))
@click.option(
    "--ready-timeout",
    "ready_timeout_s",
    default=ServeOptions.ready_timeout_s,
    show_default=True,
    help="Seconds the server may take to load.",
)
@click.option("--quiet", is_flag=True, help="Keep tritonserver's log to yourself unless it fails.")
def command(
    bundle: Path, host: str, http_port: int, grpc_port: int, metrics_port: int, ready_timeout_s: float, quiet: bool
) -> None:
    """Serve BUNDLE with tritonserver until Ctrl-C or SIGTERM.

    tritonserver is the one of NVIDIA's container, or of the nvidia-pytriton wheel. Its log goes to stderr; the
    endpoints are printed on stdout once it can answer.
    """
    options = ServeOptions(
        host=host, http_port=http_port, grpc_port=grpc_port, metrics_port=metrics_port, ready_timeout_s=ready_timeout_s
    )
    stop = threading.Event()

    def log(line: str) -> None:
        if not quiet:
            click.echo(line, err=True)

    opened = Bundle.open(bundle)
    # From here on a signal asks for an orderly end; before, it interrupts. Not later: the server's log may be read, and
    # answered with a signal, as soon as it is started.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with serve(opened, options, log=log) as server:
        if server.wait_ready(stop):
            click.echo(
                f"ready: gRPC {host}:{grpc_port}, HTTP {host}:{http_port}, metrics http://{host}:{metrics_port}/metrics\n"
                f'ask it: nemotron chat "What is the capital of France?" --url {host}:{grpc_port}'
            )
            server.wait(stop)
    click.echo("stopped", err=True)

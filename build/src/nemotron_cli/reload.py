"""`nemotron reload`."""

from __future__ import annotations

from pathlib import Path

import click

from nemotron_cli.options import PATH
from nemotron_triton.pid_file import PidFile
from nemotron_triton.serve_options import ServeOptions


@click.command("reload")
@click.option("--pid-file", required=True, type=PATH, help="The one that `nemotron serve --pid-file` was given.")
@click.option(
    "--timeout",
    "timeout_s",
    default=ServeOptions.ready_timeout_s,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds the new bundle may take to load.",
)
def command(pid_file: Path, timeout_s: float) -> None:
    """Have a running server take the bundle that lies at its path now, and wait until it is served.

    The server must have been started with --allow-reload and --pid-file. Exit status: 0 the new bundle is served, 1 it
    is not, with the reason; the old one is then served on.
    """
    result = PidFile(pid_file).reload(timeout_s)
    if not result.ok:
        raise click.ClickException(result.line)
    click.echo(result.line)

"""`nemotron model-repo`."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from nemotron_cli import options
from nemotron_triton.bundle import Bundle
from nemotron_triton.compatibility import check_servable
from nemotron_triton.repository import configs, write_repository
from nemotron_triton.serving.settings import Settings


@click.command("model-repo", cls=options.SectionedCommand)
@click.argument("bundle", type=options.PATH)
@click.option("--output", required=True, type=options.PATH, help="Folder to make; it must not exist.")
@options.text_models
@options.limits
def command(bundle: Path, output: Path, text_models: bool, **settings: int) -> None:
    """Write a Triton model repository for BUNDLE, with the bundle inside.

    Any tritonserver whose Python has this package loads it: tritonserver --model-repository OUTPUT. Large files are
    shared with BUNDLE through hard links where the file system can. The limits become parameters of the model's
    config.pbtxt, where they can be changed.
    """
    opened = Bundle.open(bundle)
    check_servable(opened)
    write_repository(opened, output, Settings(**settings), text_models=text_models)
    click.echo(f"{output}: {', '.join(configs(text_models=text_models))}")
    click.echo(f"serve it with: tritonserver --model-repository {shlex.quote(str(output))}")

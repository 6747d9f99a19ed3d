"""`nemotron compare-template`."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path

import click

from nemotron_build.templates import compare
from nemotron_cli import options
from nemotron_triton.chat.profiles import profile


@click.command("compare-template")
@click.argument("checkpoint", type=options.PATH)
@options.model
def command(checkpoint: Path, model: str) -> None:
    """Compare our prompts with those of CHECKPOINT's own chat template, over a fixed set of conversations.

    Prints what differs, as unified diffs. Exit status 0 when nothing does, 1 when something does.
    """
    results = list(compare(profile(model), checkpoint))
    differing = [result for result in results if result.ours != result.theirs]
    for result in differing:
        lines = difflib.unified_diff(
            result.theirs.splitlines(), result.ours.splitlines(), "the checkpoint's", "ours", lineterm=""
        )
        click.echo(f"{result.name}:\n" + "\n".join(f"  {line}" for line in lines))
    click.echo(f"{len(results) - len(differing)} of {len(results)} conversations render alike", err=True)
    sys.exit(1 if differing else 0)

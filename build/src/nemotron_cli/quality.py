"""`nemotron quality`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

from nemotron_build.precisions import PRECISION_NAMES
from nemotron_build.quality import Measured, measure
from nemotron_build.quantization.conversations import CALIBRATION, HELD_OUT
from nemotron_cli.options import DEVICE, PATH, as_json, names
from nemotron_cli.progress import TerminalReporter
from nemotron_cli.tables import Table
from nemotron_triton.chat.profiles import DEFAULT_PROFILE, profile_names


@click.command("quality")
@click.argument("checkpoint", type=PATH)
@click.option(
    "--precision",
    "precisions",
    metavar="P,P,…",
    shell_complete=names(*PRECISION_NAMES),
    default=",".join(PRECISION_NAMES),
    help="What to measure, with commas between. Default: all.",
)
@click.option(
    "--model",
    "profile_name",
    default=DEFAULT_PROFILE,
    metavar="NAME",
    shell_complete=names(*profile_names()),
    help=", ".join(profile_names()),
)
@click.option("--calibration", type=PATH, default=CALIBRATION, help="JSON lines of conversations. Default: our 96.")
@click.option("--data", "held_out", type=PATH, default=HELD_OUT, help="JSON lines to measure on. Default: our 24.")
@click.option("--device", default="auto", show_default=True, type=DEVICE, metavar="D", help="auto, cpu, cuda.")
@click.option("--plot", type=PATH, help="PNG file to draw.")
@as_json
def command(*, checkpoint: Path, precisions: str, as_json: bool, **settings: Any) -> None:
    """Measure what each precision costs CHECKPOINT: perplexity, agreement and divergence on held-out text.

    ModelOpt quantises a copy in memory, with the weights and activations rounded as the engine would; nothing is built.
    The first use makes ModelOpt's environment (1.4 GB without CUDA).
    """
    with TerminalReporter() as reporter:
        chosen = [name.strip() for name in precisions.split(",") if name.strip()]
        measured = measure(checkpoint, precisions=chosen, reporter=reporter, **settings)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(row) for row in measured], indent=2))
        return
    numbers = ("perplexity", "source's", "same best token", "KL divergence, nats")
    rows = Table("precision", *numbers, "", right=numbers)
    for row in measured:
        rows.add_row(*_row(row))
    rows.show()


def _row(row: Measured) -> list[str]:
    if row.quality is None:
        return [row.precision, "", "", "", "", row.unavailable or ""]
    quality = row.quality
    return [
        row.precision,
        f"{quality.perplexity:.4f}",
        f"{quality.perplexity_source:.4f}",
        f"{quality.top1_agreement:.2%}",
        f"{quality.kl_divergence_nats:.5f}",
        f"blocks of {row.block}: 128 does not divide the weights" if row.block else "",
    ]

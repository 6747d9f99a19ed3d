"""`nemotron gpus`."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from nemotron_build.planning.gpus import Gpu, find_gpu, gpu_names
from nemotron_cli.tables import Table

_ARITHMETIC = ("bf16", "fp8", "int8", "int4", "fp4")


@click.command("gpus")
@click.option("--json", "as_json", is_flag=True, help="Print everything that is known of them as one JSON document.")
def command(as_json: bool) -> None:
    """List the GPUs that engines are planned for, with the numbers that plans use.

    A ~ marks numbers that were not looked up again; --json names the source of each.
    """
    gpus = [find_gpu(name) for name in gpu_names()]
    if as_json:
        click.echo(json.dumps([asdict(gpu) for gpu in gpus], indent=2))
        return
    numbers = ("SM", "GiB", "GB/s", *(f"{name} T/s" for name in _ARITHMETIC))
    rows = Table("name", "GPU", *numbers, "also called", right=numbers)
    for gpu in gpus:
        rows.add_row(gpu.name, gpu.title, *_numbers(gpu), ", ".join(gpu.aliases))
    rows.show()


def _numbers(gpu: Gpu) -> list[str]:
    def number(value: float | None, source: str, unit: float, digits: int = 0) -> str:
        mark = "~" if source in gpu.unverified else ""
        return "" if value is None else f"{mark}{value / unit:.{digits}f}"

    return [
        "" if gpu.sm is None else str(gpu.sm),
        number(gpu.memory_bytes, "memory", 2**30, 1),
        number(gpu.bandwidth, "bandwidth", 1e9),
        *(number(gpu.rates[name], "rates", 1e12) for name in _ARITHMETIC),
    ]

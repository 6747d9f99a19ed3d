"""What each precision costs a checkpoint, on held-out text and with fake quantisation, on a CPU too. Builds nothing."""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemotron_build.architecture import Dimensions
from nemotron_build.checkpoint import inspect
from nemotron_build.errors import OutputError, SettingError
from nemotron_build.precisions import PRECISION_NAMES, PRECISIONS, Precision
from nemotron_build.processes import Runner, run
from nemotron_build.quantization.conversations import CALIBRATION, HELD_OUT, read_samples, to_calibrate, to_measure
from nemotron_build.quantization.environment import MODELOPT_TRTLLM, cache_folder
from nemotron_build.quantization.jobs import quantization, run_job
from nemotron_build.reporter import Reporter
from nemotron_triton.bundle import Quality
from nemotron_triton.chat.profiles import profile

_SMALLER_BLOCKS = (64, 32, 16)
_UNAVAILABLE = {"unavailable": "the table of precisions has no word of ModelOpt for it"}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One precision: what it cost, or why that could not be had; *block* is its block size if not the usual one."""

    precision: str
    quality: Quality | None
    unavailable: str | None
    block: int | None = None


def measure(
    checkpoint: Path,
    *,
    profile_name: str,
    precisions: Sequence[str] = PRECISION_NAMES,
    calibration: Path = CALIBRATION,
    held_out: Path = HELD_OUT,
    samples: int = 512,
    device: str = "auto",
    plot: Path | None = None,
    reporter: Reporter | None = None,
    runner: Runner = run,
) -> list[Measured]:
    """Measure every one of *precisions* against *checkpoint*, and draw *plot* (a PNG) when a path is given.

    `SettingError` for an unknown precision; what ModelOpt cannot do on this machine is `unavailable`, not an error.
    """
    if unknown := [name for name in precisions if name not in PRECISION_NAMES]:
        raise SettingError(f"--precision {unknown[0]} does not exist; known: {', '.join(PRECISION_NAMES)}")
    model = profile(profile_name)
    source = inspect(checkpoint)
    reporter = reporter or Reporter()
    dtype = "fp16" if source.dtype == "float16" else "bf16"
    rows = [row for row in map(PRECISIONS.weights.__getitem__, precisions) if row.modelopt or not row.quantized]
    blocks = {row.name: _block(source.architecture, row) for row in rows}
    read = functools.partial(read_samples, profile=model, codec=source.tokenizer, max_samples=samples)
    with tempfile.TemporaryDirectory() as folder:
        drawn = Path(folder) / "plot.png"
        settings: dict[str, Any] = {
            "checkpoint": str(checkpoint.absolute()),
            "measured": [
                {
                    "quantization": quantization(row, block_size=blocks[row.name]),
                    "dtype": "fp16" if row.dtype == "fp16" else dtype,
                }
                for row in rows
            ],
            "dtype": dtype,
            "calibration": to_calibrate(read(calibration)),
            "held_out": to_measure(read(held_out)),
            "device": device,
            "scratch": folder,
            "plot": str(drawn) if plot else None,
        }
        reporter.stage("measure")
        log = cache_folder() / "logs" / f"quality-{os.getpid()}.log"
        results = run_job(MODELOPT_TRTLLM, "measure", settings, log=log, reporter=reporter, runner=runner)
        if plot:
            try:
                shutil.move(drawn, plot)
            except OSError as error:
                raise OutputError(f"cannot write {plot}: {error.strerror or error}") from error
    return [_measured(name, results.get(name, _UNAVAILABLE), blocks.get(name)) for name in precisions]


def _measured(name: str, values: dict[str, Any], block: int | None) -> Measured:
    unavailable = values.get("unavailable")
    quality = None if unavailable else Quality(**values)
    return Measured(precision=name, quality=quality, unavailable=unavailable, block=block)


def _block(architecture: Dimensions, precision: Precision) -> int | None:
    """The largest block that divides the weights where the usual one does not: small models are measured too."""
    if precision.modelopt is None or not precision.modelopt.any_block_size:
        return None
    columns = {weight.shape[-1] for weight in architecture.weights().values() if weight.role == "linear"}
    usual = precision.storage.block_size
    sizes = (usual, *_SMALLER_BLOCKS)
    block = next((size for size in sizes if all(column % size == 0 for column in columns)), 1)
    return None if block == usual else block

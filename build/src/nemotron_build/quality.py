"""What each precision costs a checkpoint, on held-out text and with fake quantisation, on a CPU too. Builds nothing."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemotron_build.architecture import Dimensions
from nemotron_build.checkpoint import inspect
from nemotron_build.errors import OutputError, UnsupportedError
from nemotron_build.planning.precisions import PRECISION_NAMES
from nemotron_build.processes import Runner, run
from nemotron_build.quantization.conversations import (
    CALIBRATION,
    HELD_OUT,
    Sample,
    read_samples,
    to_calibrate,
    to_measure,
)
from nemotron_build.quantization.environment import MODELOPT_TRTLLM, cache_folder
from nemotron_build.quantization.jobs import run_job
from nemotron_build.reporter import Reporter
from nemotron_triton.bundle import Quality
from nemotron_triton.chat.profiles import profile

_BLOCKS = (128, 64, 32, 16)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One precision: what it cost, or why that could not be had. *block* is AWQ's, where it is not 128."""

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

    `UnsupportedError` for an unknown precision; what ModelOpt cannot do on this machine is `unavailable`, not an error.
    """
    if unknown := [name for name in precisions if name not in PRECISION_NAMES]:
        raise UnsupportedError(f"--precision {unknown[0]} does not exist; known: {', '.join(PRECISION_NAMES)}")
    source = inspect(checkpoint)
    model = profile(profile_name)
    reporter = reporter or Reporter()
    block = _block(source.architecture)

    def read(path: Path) -> list[Sample]:
        return read_samples(path, model, source.tokenizer, max_samples=samples)

    with tempfile.TemporaryDirectory() as folder:
        drawn = Path(folder) / "plot.png"
        settings: dict[str, Any] = {
            "checkpoint": str(checkpoint.absolute()),
            "precisions": list(precisions),
            "dtype": "fp16" if source.dtype == "float16" else "bf16",
            "blocks": dict.fromkeys(("int4-awq", "w4a8-awq"), block),
            "calibration": to_calibrate(read(calibration)),
            "held_out": to_measure(read(held_out)),
            "device": device,
            "scratch": folder,
            "plot": str(drawn) if plot else None,
        }
        reporter.stage("measure")
        log = cache_folder() / "logs" / f"quality-{os.getpid()}.log"
        found = run_job(MODELOPT_TRTLLM, "measure", settings, log=log, reporter=reporter, runner=runner)
        if plot:
            try:
                shutil.move(drawn, plot)
            except OSError as error:
                raise OutputError(f"cannot write {plot}: {error.strerror or error}") from error
    return [_measured(name, found[name], block) for name in precisions]


def _measured(name: str, values: dict[str, Any], block: int) -> Measured:
    unavailable = values.get("unavailable")
    return Measured(
        precision=name,
        quality=None if unavailable else Quality(**values),
        unavailable=unavailable,
        block=block if name in ("int4-awq", "w4a8-awq") and block != _BLOCKS[0] else None,
    )


def _block(architecture: Dimensions) -> int:
    """AWQ's 128, or where that does not divide the weights the largest that does: small models are measured too."""
    columns = {weight.shape[-1] for weight in architecture.weights().values() if weight.role == "linear"}
    return next((size for size in _BLOCKS if all(column % size == 0 for column in columns)), 1)

"""A quantised Hugging Face checkpoint against the one it was made from.

Compares the settings, the quantisation on record, the names and shapes of the tensors, and every scale.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nemotron_build.architecture import Dimensions, read_architecture
from nemotron_build.checkpoint import Checkpoint, read_json
from nemotron_build.errors import BuildError, CheckpointError, VerificationError
from nemotron_build.planning.precisions import Precision
from nemotron_build.verification.tensors import Array, read_tensors

_SCALES = ("_scale", "_scale_2", "_scale_inv")


def check_hf_checkpoint(folder: Path, source: Checkpoint, precision: Precision, kv_precision: str) -> list[str]:
    """What was found right in *folder*, a line each; `VerificationError` lists what is wrong."""
    found = check_hf_config(folder, source.architecture)
    tensors: dict[str, Array] = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= read_tensors(file)
    problems = [f"{name} is missing" for name in source.architecture.tensors() if name not in tensors]
    for name, shape in source.architecture.tensors().items():
        # Packed 4-bit weights have half as many bytes as the source has values.
        if name in tensors and tensors[name].size not in (np.prod(shape), np.prod(shape) // 2):
            problems.append(f"{name} has shape {list(tensors[name].shape)} instead of {list(shape)}")
    scales = {name: values for name, values in tensors.items() if name.endswith(_SCALES)}
    for name, values in scales.items():
        numbers = values.astype(np.float32)
        if not np.isfinite(numbers).all() or not (numbers > 0).all():
            problems.append(f"{name} holds {numbers.flat[np.argmin(numbers)]}, and a scale is finite and positive")
    if precision.quant_algo:
        problems += _wrong_quantization(folder, source, precision, kv_precision, tensors, scales)
    if problems:
        more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise VerificationError(f"the exported checkpoint {folder} is wrong: {'; '.join(problems[:5])}{more}")
    return [*found, f"{len(tensors)} tensors are there, {len(scales)} scales are finite and positive"]


def check_hf_config(folder: Path, architecture: Dimensions) -> list[str]:
    """Whether `config.json` in *folder* still describes *architecture*; exporters have dropped and renamed settings."""
    try:
        config = read_json(folder / "config.json")
        found = read_architecture(config)
    except (CheckpointError, BuildError) as error:
        raise VerificationError(f"{folder / 'config.json'} no longer describes the source: {error}") from error
    if found != architecture:
        raise VerificationError(f"{folder / 'config.json'} describes {found} instead of {architecture}")
    return [f"config.json has the source's dimensions (head size {architecture.head_dim})"]


def _wrong_quantization(
    folder: Path,
    source: Checkpoint,
    precision: Precision,
    kv_precision: str,
    tensors: dict[str, Array],
    scales: dict[str, Array],
) -> list[str]:
    try:
        recorded: dict[str, Any] = read_json(folder / "hf_quant_config.json").get("quantization") or {}
    except CheckpointError as error:
        return [str(error)]
    problems = []
    expected = {
        "quant_algo": precision.quant_algo,
        "kv_cache_quant_algo": {"fp8": "FP8", "int8": "INT8"}.get(kv_precision),
    }
    for name, value in expected.items():
        if recorded.get(name) != value:
            problems.append(f"hf_quant_config.json has {name} {recorded.get(name)!r} instead of {value!r}")
    for name, weight in source.architecture.weights().items():
        if weight.role == "linear" and name in tensors:
            if tensors[name].dtype.itemsize > 1:
                problems.append(f"{name} is {tensors[name].dtype.name}, which is not quantised")
            elif name + "_scale" not in scales:
                problems.append(f"{name}_scale is missing")
        elif name in tensors and tensors[name].dtype.itemsize == 1:
            problems.append(f"{name} is {tensors[name].dtype.name}, and it should not be quantised")
    return problems

"""The tensors of safetensors files as arrays on the files, 8-bit floats included, and what is wrong with them.

The safetensors package has no numpy type for FP8, hence the reading here; the format is its header of JSON and then
the bytes (little-endian, row-major).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from nemotron_build.checkpoint import Checkpoint
from nemotron_build.errors import VerificationError

Array = npt.NDArray[Any]
# Type and shape.
Form = tuple[str, tuple[int, ...]]
# The type of a tensor of which nothing is known.
UNKNOWN = "unknown"
_DTYPES: Mapping[str, npt.DTypeLike] = {
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "I8": np.int8,
    "U8": np.uint8,
    "I32": np.int32,
}
_MAX_HEADER_BYTES = 64 * 1024 * 1024
_SAMPLED_ROWS = 64
_SCALE = re.compile(r"_(scale|factor)(_2)?$")


def read_tensors(path: Path) -> dict[str, Array]:
    """Name → array of every tensor in *path*, memory-mapped; `VerificationError` if the file is not whole."""
    try:
        data = np.memmap(path, np.uint8, "r")
        length = int.from_bytes(data[:8].tobytes(), "little")
        if length > min(len(data) - 8, _MAX_HEADER_BYTES):
            raise ValueError("its header does not fit")
        header: dict[str, Any] = json.loads(data[8 : 8 + length].tobytes())
        header.pop("__metadata__", None)
        return {name: _view(data[8 + length :], entry) for name, entry in header.items()}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise VerificationError(f"{path} is truncated or not safetensors: {error}") from error


def source_weights(source: Checkpoint) -> dict[str, Array]:
    """Name → array of every tensor of *source*."""
    files = {file: read_tensors(file) for file in {stored.file for stored in source.tensors.values()}}
    return {name: files[stored.file][name] for name, stored in source.tensors.items()}


def is_scale(name: str) -> bool:
    """Whether a tensor of this name holds scales."""
    return _SCALE.search(name) is not None


def wrong_tensors(tensors: Mapping[str, Array], expected: Mapping[str, Form]) -> Iterator[str]:
    """What of *expected* is missing, has another type or shape or a scale of 0 or infinity, and what else is there."""
    for name, (dtype, shape) in expected.items():
        if name not in tensors:
            yield f"{name} is missing"
            continue
        tensor = tensors[name]
        if dtype != UNKNOWN and (tensor.dtype.name, tensor.shape) != (dtype, shape):
            yield f"{name} is {tensor.dtype.name} {list(tensor.shape)} instead of {dtype} {list(shape)}"
        elif is_scale(name):
            values = tensor.astype(np.float32)
            valid = np.isfinite(values) & (values > 0)
            if not valid.all():
                yield f"{name} holds {values[~valid].flat[0]}, and a scale is finite and positive"
    yield from (f"{name} does not belong there" for name in sorted(tensors.keys() - expected.keys()))


def sampled_rows(count: int) -> Array:
    """Indices of up to 64 of *count* rows, evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, _SAMPLED_ROWS)).round().astype(np.int64))


def relative_distance(values: Array, source: Array) -> float:
    """The Frobenius norm of the difference, as a share of that of *source*."""
    source = source.astype(np.float32)
    return float(np.linalg.norm(values - source)) / max(float(np.linalg.norm(source)), 1e-12)


def _view(data: Array, entry: Mapping[str, Any]) -> Array:
    start, end = entry["data_offsets"]
    return data[start:end].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])

"""The tensors of a safetensors file as arrays on the file, 8-bit floats included. Loads nothing until it is read.

The safetensors package has no numpy type for FP8, hence the reading here; the format is its header of JSON and then
the bytes (little-endian, row-major).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from nemotron_build.errors import VerificationError

Array = npt.NDArray[Any]
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


def sampled_rows(count: int) -> Array:
    """Indices of up to 64 of *count* rows, evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, _SAMPLED_ROWS)).round().astype(np.int64))


def relative_distance(found: Array, wanted: Array) -> float:
    """The Frobenius norm of the difference, as a share of that of *wanted*."""
    norm = float(np.linalg.norm(wanted.astype(np.float32)))
    return float(np.linalg.norm(found - wanted.astype(np.float32))) / max(norm, 1e-12)


def _view(data: Array, entry: Mapping[str, Any]) -> Array:
    start, end = entry["data_offsets"]
    return data[start:end].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])

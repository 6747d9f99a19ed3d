"""Triton's text tensors read with a bound: ten million empty strings would keep a model from everybody for a minute.

The Python backend has a text tensor taken apart by a function of its `triton_python_backend_utils`, before a model sees
it, an object for each entry, and then gives the array the tensor's shape (`src/pb_tensor.cc`). What the function here
gives waits for that shape, which says how many entries there are before any of them is read.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nemotron_client import wire

_LENGTH = struct.Struct("<I")


def bound_text_tensors(pb_utils: Any) -> None:
    """Have *pb_utils* read text tensors in this way."""
    pb_utils.deserialize_bytes_tensor = TextTensor


@dataclass(frozen=True)
class TextTensor:
    """The bytes of a text tensor: its entries, each behind its length in 4 bytes."""

    encoded: Any

    def reshape(self, shape: Sequence[int]) -> Any:
        """The entries as an array of bytes objects.

        More than `wire.MAX_VALUES`, which `wire.read` refuses, are not read: they are all empty, and take no memory.
        """
        count = math.prod(shape)
        if count > wire.MAX_VALUES:
            return np.broadcast_to(np.array(b"", dtype=np.object_), shape)
        array = np.empty(count, dtype=np.object_)
        view, offset = memoryview(self.encoded), 0
        for place in range(count):
            (length,) = _LENGTH.unpack_from(view, offset)
            offset += _LENGTH.size + length
            array[place] = bytes(view[offset - length : offset])
        if offset != len(view):
            raise ValueError(f"a text tensor of {count} entries has {len(view)} bytes; they take {offset}")
        return array.reshape(shape)

"""Triton's text tensors read with a bound: ten million empty strings would keep a model from everybody for a minute.

The Python backend takes a text tensor apart with a function of its `triton_python_backend_utils`, before a model sees
it, a format string and an object for each entry. This one looks at most entries' lengths only.
"""

from __future__ import annotations

import struct
import time
from typing import Any

import numpy as np

from nemotron_client import wire

_LENGTH = struct.Struct("<I")
# Other threads get their turn after so many entries.
_TURN = 1 << 16


def bound_text_tensors(pb_utils: Any) -> None:
    """Have *pb_utils* read text tensors with `read_texts`."""
    pb_utils.deserialize_bytes_tensor = read_texts


def read_texts(encoded: Any) -> Any:
    """The entries of a text tensor (each behind its length in 4 bytes) as a 1-D array of bytes objects.

    With more than `wire.MAX_VALUES` entries, which `wire.read` refuses, they are all empty. The number is always right,
    because the backend shapes the array by it.
    """
    view = memoryview(encoded)
    texts: list[bytes] = []
    offset = count = 0
    while offset < len(view):
        (length,) = _LENGTH.unpack_from(view, offset)
        offset += _LENGTH.size
        if count < wire.MAX_VALUES:
            texts.append(bytes(view[offset : offset + length]))
        elif not count % _TURN:
            time.sleep(0)
        offset += length
        count += 1
    if count > wire.MAX_VALUES:
        return np.full(count, b"", dtype=np.object_)
    array = np.empty(count, dtype=np.object_)
    array[:] = texts
    return array

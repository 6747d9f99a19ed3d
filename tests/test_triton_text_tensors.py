"""Text tensors from the Python backend: read as Triton reads them, and bounded."""

from __future__ import annotations

import struct
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import serialize_byte_tensor

from nemotron_client import wire
from nemotron_triton.serving.stub import TextTensor


def encoded(texts: list[bytes]) -> Any:
    return serialize_byte_tensor(np.array(texts, dtype=np.object_)).item() if texts else b""


@given(st.lists(st.binary(max_size=20), max_size=40))
def test_texts_are_read_as_they_were_written(texts: list[bytes]) -> None:
    tensor = TextTensor(encoded(texts)).reshape([1, len(texts)])

    assert tensor.tolist() == [texts]


def test_the_bytes_may_be_an_array_as_the_backend_has_them() -> None:
    tensor = TextTensor(np.frombuffer(encoded([b"a", b"bc"]), dtype=np.uint8)).reshape([2, 1])

    assert tensor.tolist() == [[b"a"], [b"bc"]]


def test_more_than_a_tensor_may_hold_are_counted_and_not_read() -> None:
    begin_s = time.process_time()

    tensor = TextTensor(bytes(16_000_000)).reshape([1, 4_000_000])

    assert time.process_time() - begin_s < 0.1
    with pytest.raises(ValueError, match="stop_words holds 4000000 values; at most 1024 are accepted"):
        wire.read(wire.STOP_WORDS, tensor)


def test_a_shape_of_more_than_there_are_bytes_takes_no_memory() -> None:
    assert TextTensor(b"").reshape([1, 1 << 50]).size == 1 << 50


def test_a_tensor_of_as_many_as_it_may_hold_is_read() -> None:
    tensor = TextTensor(b"\1\0\0\0x" * wire.MAX_VALUES).reshape([wire.MAX_VALUES])

    assert tensor.tolist() == [b"x"] * wire.MAX_VALUES


@pytest.mark.parametrize("count", [1, 3])
def test_a_shape_that_its_bytes_do_not_fit_is_an_error(count: int) -> None:
    with pytest.raises((ValueError, struct.error)):
        TextTensor(encoded([b"a", b"b"])).reshape([1, count])

"""Text tensors as the Python backend hands them over: the same as Triton reads them, and bounded."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import serialize_byte_tensor

from nemotron_client import wire
from nemotron_triton.serving.text_tensors import read_texts


@given(st.lists(st.binary(max_size=20), max_size=40))
def test_texts_are_read_as_they_were_written(texts: list[bytes]) -> None:
    encoded = serialize_byte_tensor(np.array(texts, dtype=np.object_)).item() if texts else b""

    assert read_texts(encoded).tolist() == texts


def test_more_than_a_tensor_may_hold_are_counted_and_not_kept() -> None:
    count = wire.MAX_VALUES + 70_000

    found = read_texts(b"\1\0\0\0x" * count)

    assert found.shape == (count,)
    assert set(found) == {b""}


def test_a_tensor_of_as_many_as_it_may_hold_is_read() -> None:
    assert read_texts(b"\1\0\0\0x" * wire.MAX_VALUES).tolist() == [b"x"] * wire.MAX_VALUES

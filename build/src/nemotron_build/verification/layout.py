"""How quantised weights are stored, with their scales, and what values they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nemotron_build.verification.tensors import Array, Form

# The type of scales that are stored in the 16-bit type of the checkpoint.
PLAIN = "plain"
# The values of E2M1 by the four bits of a code, the upper one of which is the sign.
_FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a quantised matrix of (`out`, `in`) is stored.

    `packs` is what each dimension is divided by because two values share a byte: (2, 1) two 4-bit integers, (1, 2) two
    FP4 codes. `scales` are the type and shape of every scale beside the weight, in numbers and the words `out`, `in`
    and `blocks` (of a row). `factors` are the scales that the stored values are multiplied with (the second of W4A8 AWQ
    is in the first already), `smoothing` is the name of a factor for each input; where several matrices share an input,
    it may be in the norm before them instead. `error` is the largest relative Frobenius distance of the weights from
    the source's.
    """

    dtype: str
    error: float
    scales: Mapping[str, tuple[str, tuple[str | int, ...]]]
    packs: tuple[int, int] = (1, 1)
    smoothing: str | None = None
    factors: tuple[str, ...] = ()

    @property
    def is_int4(self) -> bool:
        """Whether it holds blocks of 4-bit integers."""
        return self.packs == (2, 1)

    def stored(self, name: str, shape: tuple[int, ...], block_size: int, plain: str) -> dict[str, Form]:
        """Type and shape of the weight called *name*, of *shape* in the source, and of its scales.

        *plain* is the 16-bit type of the checkpoint.
        """
        rows, columns = shape
        sizes: dict[str | int, int] = {"out": rows, "in": columns, "blocks": columns // block_size, 1: 1}
        scales: dict[str, Form] = {
            scale_name(name, scale): (plain if dtype == PLAIN else dtype, tuple(sizes[size] for size in sizes_of))
            for scale, (dtype, sizes_of) in self.scales.items()
        }
        return {name: (self.dtype, (rows // self.packs[0], columns // self.packs[1]))} | scales

    def values(self, tensors: Mapping[str, Array], name: str, rows: Array) -> Array:
        """What an input is multiplied with: *rows* of the weight called *name* times its scales, float32."""
        weight = self._unpacked(tensors[name], rows)
        for factor in self.factors:
            # One for the matrix, or one for each row, or for each block of a row.
            scale = tensors[scale_name(name, factor)].astype(np.float32)
            scale = scale[rows].reshape(len(rows), -1) if scale.size > 1 else scale.reshape(1, 1)
            weight = weight * np.repeat(scale, weight.shape[1] // scale.shape[1], 1)
        smoothing = tensors.get(scale_name(name, self.smoothing)) if self.smoothing else None
        return weight if smoothing is None else weight * smoothing.astype(np.float32)

    def _unpacked(self, stored: Array, rows: Array) -> Array:
        if self.is_int4:
            # Two output channels share a byte, the even one in the low nibble.
            nibbles = (stored[rows // 2].view(np.uint8) >> (4 * (rows % 2)[:, None]).astype(np.uint8)) & 15
            return np.where(nibbles > 7, nibbles.astype(np.float32) - 16, nibbles.astype(np.float32))
        if self.packs == (1, 2):
            # Two inputs share a byte, the even one in the low nibble.
            codes = np.stack([stored[rows] & 15, stored[rows] >> 4], axis=-1)
            return np.asarray(_FP4[codes].reshape(len(rows), -1))
        return stored[rows].astype(np.float32)


def scale_name(weight: str, scale: str) -> str:
    """The name of a scale of *weight*."""
    return f"{weight.removesuffix('weight')}{scale}"

"""How ModelOpt 0.47 stores quantised weights in a Hugging Face checkpoint, and the weights that come of it.

A precision names its layout (`hf_layout` of its row), which several may share. Read from ModelOpt's exports of both
families (NVFP4: from its packing alone, as it exports that on CUDA only).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nemotron_build.verification.tensors import Array, Form, scaled, unpacked_int4

# The values of E2M1 by the four bits of a code, the upper one of which is the sign.
_FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


@dataclass(frozen=True, kw_only=True)
class HfLayout:
    """How a quantised matrix of (`out`, `in`) is stored.

    `packs` is what each dimension is divided by because two values share a byte, `scales` the type and shape of every
    scale beside the weight, in the words `out`, `in` and `blocks` (of a row). A *smoothed* one may
    have a `pre_quant_scale`, a factor for each input; where several matrices share an input, it is in the norm before
    them. *factors* are the scales that the stored values are multiplied with (the second of W4A8 AWQ is in the first
    already). *error* is the largest relative Frobenius distance of the weights from the source's.
    """

    dtype: str
    error: float
    scales: Mapping[str, tuple[str, tuple[str, ...]]]
    packs: tuple[int, int] = (1, 1)
    smoothed: bool = False
    factors: tuple[str, ...] = ("weight_scale",)

    def stored(self, name: str, shape: tuple[int, ...], block_size: int) -> dict[str, Form]:
        """Type and shape of the weight called *name*, of *shape* in the source, and of its scales."""
        rows, columns = shape
        sizes = {"out": rows, "in": columns, "blocks": columns // block_size}
        packed = (rows // self.packs[0], columns // self.packs[1])
        scales: dict[str, Form] = {
            scale_name(name, scale): (dtype, tuple(sizes[word] for word in words))
            for scale, (dtype, words) in self.scales.items()
        }
        return {name: (self.dtype, packed)} | scales

    def values(self, tensors: Mapping[str, Array], name: str, rows: Array) -> Array:
        """What an input is multiplied with: *rows* of the weight called *name* times its scales, float32."""
        weight = self._unpacked(tensors[name], rows)
        for scale in self.factors:
            weight = scaled(weight, tensors[scale_name(name, scale)], rows)
        smoothing = tensors.get(scale_name(name, "pre_quant_scale"))
        return weight if smoothing is None else weight * smoothing.astype(np.float32)

    def _unpacked(self, stored: Array, rows: Array) -> Array:
        if self.packs == (2, 1):
            return unpacked_int4(stored, rows)
        if self.packs == (1, 2):
            # Two inputs share a byte, the even one in the low nibble.
            codes = np.stack([stored[rows] & 15, stored[rows] >> 4], axis=-1)
            return np.asarray(_FP4[codes].reshape(len(rows), -1))
        return stored[rows].astype(np.float32)


def scale_name(weight: str, scale: str) -> str:
    """The name of a scale of *weight*."""
    return f"{weight.removesuffix('weight')}{scale}"


_PER_TENSOR = ("float32", ())
_PER_ROW = ("float32", ("out",))
_INT4 = {"weight_scale": ("float32", ("out", "blocks"))}
# The bounds are far above what rounding costs (FP8 2.6 %, INT8 1 to 2 %, 4 bits 9 to 15 %), far below a lost scale.
HF_LAYOUTS: Mapping[str, HfLayout] = {
    "FP8": HfLayout(dtype="float8_e4m3fn", error=0.2, scales={"weight_scale": _PER_TENSOR, "input_scale": _PER_TENSOR}),
    "FP8_PER_CHANNEL_PER_TOKEN": HfLayout(dtype="float8_e4m3fn", error=0.2, scales={"weight_scale": _PER_ROW}),
    "W8A16": HfLayout(dtype="int8", error=0.2, scales={"weight_scale": _PER_ROW}),
    "W4A16_AWQ": HfLayout(dtype="uint8", error=0.5, scales=_INT4, packs=(2, 1), smoothed=True),
    "W4A8_AWQ": HfLayout(
        dtype="uint8",
        error=0.5,
        scales={**_INT4, "weight_scale_2": _PER_TENSOR, "input_scale": _PER_TENSOR},
        packs=(2, 1),
        smoothed=True,
    ),
    "NVFP4": HfLayout(
        dtype="uint8",
        error=0.5,
        scales={
            "weight_scale": ("float8_e4m3fn", ("out", "blocks")),
            "weight_scale_2": _PER_TENSOR,
            "input_scale": _PER_TENSOR,
        },
        packs=(1, 2),
        factors=("weight_scale", "weight_scale_2"),
    ),
}

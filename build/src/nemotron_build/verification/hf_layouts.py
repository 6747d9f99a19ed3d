"""How ModelOpt 0.47 stores quantised weights in a Hugging Face checkpoint.

A precision names its layout (`hf_layout` of its row), which several may share. Read from ModelOpt's exports of both
families (NVFP4: from its packing alone, as it exports that on CUDA only).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from nemotron_build.verification.layout import Layout

_PER_TENSOR = ("float32", ())
_PER_ROW = {"weight_scale": ("float32", ("out",))}
_INT4 = {"weight_scale": ("float32", ("out", "blocks"))}
_INPUT = {"input_scale": _PER_TENSOR}
_Fp8 = partial(Layout, dtype="float8_e4m3fn", error=0.2, factors=("weight_scale",))
_Awq = partial(Layout, dtype="uint8", error=0.5, packs=(2, 1), smoothing="pre_quant_scale", factors=("weight_scale",))
# The bounds are far above what rounding costs (FP8 2.6 %, INT8 1 to 2 %, 4 bits 9 to 15 %), far below a lost scale.
HF_LAYOUTS: Mapping[str, Layout] = {
    "FP8": _Fp8(scales={"weight_scale": _PER_TENSOR, **_INPUT}),
    "FP8_PER_CHANNEL_PER_TOKEN": _Fp8(scales=_PER_ROW),
    "W8A16": Layout(dtype="int8", error=0.2, scales=_PER_ROW, factors=("weight_scale",)),
    "W4A16_AWQ": _Awq(scales=_INT4),
    "W4A8_AWQ": _Awq(scales={**_INT4, "weight_scale_2": _PER_TENSOR, **_INPUT}),
    "NVFP4": Layout(
        dtype="uint8",
        error=0.5,
        scales={"weight_scale": ("float8_e4m3fn", ("out", "blocks")), "weight_scale_2": _PER_TENSOR, **_INPUT},
        packs=(1, 2),
        factors=("weight_scale", "weight_scale_2"),
    ),
}

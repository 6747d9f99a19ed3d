"""How ModelOpt 0.37 stores quantised weights in a TensorRT-LLM checkpoint, and what such checkpoints call dimensions.

A precision names its layout (`trtllm_layout` of its row), which several may share.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from nemotron_build.architecture import Dimensions
from nemotron_build.verification.layout import PLAIN, Layout
from nemotron_build.verification.tensors import UNKNOWN

_SCALE = "weights_scaling_factor"
_ACTIVATION = {"activation_scaling_factor": ("float32", (1,))}
_PREQUANT = {"prequant_scaling_factor": (PLAIN, ("in",))}
_BLOCKS = {_SCALE: ("float32", ("out", "blocks"))}
_Fp8 = partial(Layout, dtype="float8_e4m3fn", error=0.2)
_Int8 = partial(Layout, dtype="int8", smoothing="prequant_scaling_factor", factors=(_SCALE,))
# The bounds are far above what rounding costs normal weights (FP8 2.6 %, INT8 1 to 2 %, INT4 9 to 15 %) and far below
# what a lost scale or a wrong order of rows costs (100 % and more).
TRTLLM_LAYOUTS: Mapping[str, Layout] = {
    "FP8": _Fp8(scales={**_ACTIVATION, _SCALE: ("float32", (1,))}, factors=(_SCALE,)),
    "FP8_PER_CHANNEL_PER_TOKEN": _Fp8(
        scales={"per_channel_scale": ("float32", ("out",))}, factors=("per_channel_scale",)
    ),
    "W8A8_SQ_PER_CHANNEL": _Int8(error=0.2, scales={**_ACTIVATION, **_PREQUANT, _SCALE: ("float32", ("out",))}),
    "W4A16_AWQ": _Int8(error=0.5, packs=(2, 1), scales={**_PREQUANT, **_BLOCKS}),
    "W4A8_AWQ": _Int8(
        error=0.5, packs=(2, 1), scales={**_ACTIVATION, **_PREQUANT, **_BLOCKS, f"{_SCALE}_2": ("float32", (1,))}
    ),
    # ModelOpt makes it on an NVIDIA GPU only, which was never at hand: only names and scales are checked.
    "NVFP4": Layout(dtype=UNKNOWN, scales={}, error=0.0),
}


def trtllm_dimensions(architecture: Dimensions) -> dict[str, int]:
    """The dimensions that every `config.json` of TensorRT-LLM has, by its names."""
    return {
        "num_hidden_layers": architecture.num_hidden_layers,
        "num_attention_heads": architecture.num_attention_heads,
        "num_key_value_heads": architecture.num_key_value_heads,
        "hidden_size": architecture.hidden_size,
        "head_size": architecture.head_dim,
    }

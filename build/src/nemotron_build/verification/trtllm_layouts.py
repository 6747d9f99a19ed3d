"""How ModelOpt 0.37 stores quantised weights in a TensorRT-LLM checkpoint.

A precision names its layout (`trtllm_layout` of its row), which several may share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nemotron_build.architecture import Dimensions
from nemotron_build.verification.tensors import UNKNOWN


@dataclass(frozen=True, kw_only=True)
class TrtllmLayout:
    """How quantised weights are stored: their type, each scale's shape, and how far they may be off.

    Scale shapes are written with `out` and `in` (features of the matrix) and `blocks` (of a row).
    *error* is the largest relative Frobenius distance of the weights from the source's. A layout without *scales* whose
    `dtype` is unknown was never seen: of its quantised tensors only names and scales are checked.
    """

    dtype: str
    scales: Mapping[str, tuple[str | int, ...]]
    error: float


def trtllm_dimensions(architecture: Dimensions) -> dict[str, int]:
    """The dimensions that every `config.json` of TensorRT-LLM has, by its names."""
    return {
        "num_hidden_layers": architecture.num_hidden_layers,
        "num_attention_heads": architecture.num_attention_heads,
        "num_key_value_heads": architecture.num_key_value_heads,
        "hidden_size": architecture.hidden_size,
        "head_size": architecture.head_dim,
    }


_ACTIVATION = {"activation_scaling_factor": (1,)}
_PREQUANT = {"prequant_scaling_factor": ("in",)}
_BLOCKS = {"weights_scaling_factor": ("out", "blocks")}
# The bounds are far above what rounding costs normal weights (FP8 2.6 %, INT8 1 to 2 %, INT4 9 to 15 %) and far below
# what a lost scale or a wrong order of rows costs (100 % and more).
TRTLLM_LAYOUTS: Mapping[str, TrtllmLayout] = {
    "FP8": TrtllmLayout(dtype="float8_e4m3fn", scales={**_ACTIVATION, "weights_scaling_factor": (1,)}, error=0.2),
    "FP8_PER_CHANNEL_PER_TOKEN": TrtllmLayout(dtype="float8_e4m3fn", scales={"per_channel_scale": ("out",)}, error=0.2),
    "W8A8_SQ_PER_CHANNEL": TrtllmLayout(
        dtype="int8", scales={**_ACTIVATION, **_PREQUANT, "weights_scaling_factor": ("out",)}, error=0.2
    ),
    "W4A16_AWQ": TrtllmLayout(dtype="int4", scales={**_PREQUANT, **_BLOCKS}, error=0.5),
    "W4A8_AWQ": TrtllmLayout(
        dtype="int4", scales={**_ACTIVATION, **_PREQUANT, **_BLOCKS, "weights_scaling_factor_2": (1,)}, error=0.5
    ),
    # ModelOpt makes it on an NVIDIA GPU only, where nobody has looked yet.
    "NVFP4": TrtllmLayout(dtype=UNKNOWN, scales={}, error=0.0),
}

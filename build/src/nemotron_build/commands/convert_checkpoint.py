"""TensorRT-LLM's own conversion script for Llama, which makes the weight-only formats. In NVIDIA's container only.

Their weights are stored in the order the kernels read, which only TensorRT-LLM knows; ModelOpt does not write them.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Literal

from nemotron_build.precisions import KvPrecision

# Where the images 25.06 and later have it, as their users call it; not read in 26.07 itself.
CONTAINER_SCRIPT = PurePosixPath("/app/examples/models/core/llama/convert_checkpoint.py")


def convert_checkpoint_argv(
    *,
    script: str,
    model_dir: str,
    output_dir: str,
    dtype: Literal["bfloat16", "float16"],
    weight_only: str,
    kv: KvPrecision,
) -> list[str]:
    """The command that turns a Hugging Face checkpoint into a TensorRT-LLM one; *weight_only* is int8 or int4.

    A quantised *kv* makes the script calibrate the KV cache, on a data set that it downloads.
    """
    argv = ["python3", script, "--model_dir", model_dir, "--output_dir", output_dir, "--dtype", dtype]
    argv += ["--use_weight_only", "--weight_only_precision", weight_only]
    return [*argv, f"--{kv.name}_kv_cache"] if kv.quantized else argv

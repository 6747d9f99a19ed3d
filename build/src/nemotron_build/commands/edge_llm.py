"""Commands of TensorRT Edge-LLM 0.11.0, the engines of Jetson Thor.

For Llama and nemotron_h two steps make an engine: `quantize` on any host (not for 16 bit), then `build` on the device,
which takes the Hugging Face checkpoint itself. `export` writes ONNX for the C++ builder instead, which the wheel does
not hold. Both want a chat template in the checkpoint. At run time the engine wants that checkpoint beside it: most
weights stay there. Read from the wheel, with `quantize` and `export` run on a CPU; `build` was never run here.
"""

from __future__ import annotations

from typing import Literal

from nemotron_build.commands.limits import Limits
from nemotron_build.errors import BuildError, UnsupportedError
from nemotron_build.precisions import KvPrecision, Precision

# The wheels' native payloads, x86-64 and aarch64; Thor is 110. Ada (89) and Hopper (90) have none.
SMS = (80, 86, 87, 100, 110, 120, 121)
# A name the tool knows: calibration on a file of one's own goes by the environment, `calibration_environment`.
_DATASET = "cnn_dailymail"
_DATASET_VARIABLE = "EDGELLM_QUANT_DATASET_CNN_DAILYMAIL"
# A line of the file is an object with the text under this key.
DATASET_KEY = "article"


def calibration_environment(dataset: str) -> dict[str, str]:
    """What `quantize_argv` needs in its environment to calibrate on *dataset*, a JSONL file.

    Each line is an object with its text under `DATASET_KEY`, of which the tool reads 512 tokens. The command line knows
    datasets by name only, and downloads them, but each can be pointed at a local file.
    """
    return {_DATASET_VARIABLE: dataset, "HF_HUB_OFFLINE": "1"}


def quantize_argv(
    *,
    model_dir: str,
    output_dir: str,
    precision: Precision,
    kv: KvPrecision,
    num_samples: int,
    device: Literal["cuda", "cpu"] = "cuda",
) -> list[str]:
    """The command that turns a Hugging Face checkpoint into a quantised one, computed and kept in FP16.

    Whatever 16-bit type the checkpoint is in, 16 bit is FP16 here. *num_samples* texts are calibrated on. An FP8 KV
    cache is asked for here and nowhere else: its scales are what makes `build` use one. The output layer stays in 16
    bit.
    """
    if precision.quantized and precision.edge_llm is None:
        raise UnsupportedError(f"Edge-LLM has no {precision.name}")
    if kv.quantized and kv.edge_llm is None:
        raise UnsupportedError(f"Edge-LLM has no KV cache in {kv.name}; it has fp16 and fp8")
    if not precision.quantized and not kv.quantized:
        raise BuildError("16 bit needs no quantisation; Edge-LLM builds from the checkpoint as it is")
    if num_samples < 1:
        raise BuildError(f"num_samples is {num_samples}; calibration needs at least one text")
    argv = ["tensorrt-edgellm-quantize", "llm", "--model_dir", model_dir, "--output_dir", output_dir]
    if precision.edge_llm is not None:
        argv += ["--quantization", precision.edge_llm]
    if kv.edge_llm is not None:
        argv += ["--kv_cache_quantization", kv.edge_llm]
    argv += ["--dtype", "fp16", "--device", device]
    return [*argv, "--text_dataset", _DATASET, "--num_samples", str(num_samples)]


def build_argv(*, model_dir: str, engine_dir: str, sm: int, limits: Limits) -> list[str]:
    """The command that compiles a checkpoint, quantised or 16-bit, into `llm.engine` on the device it is for.

    The cache holds `max_seq_len` tokens of a sequence, rounded up to pages of 128 by the runtime. One prefill computes
    up to `max_batch_size` times `max_input_len` tokens. The tool's own defaults are 32 and 96 tokens.
    """
    if sm not in SMS:
        known = ", ".join(map(str, SMS))
        raise UnsupportedError(f"Edge-LLM has nothing for SM {sm}, only for {known}; TensorRT-LLM is for data centres")
    settings: dict[str, str | int] = {
        "--model-dir": model_dir,
        "--engine-dir": engine_dir,
        "--components": "llm",
        "--max-input-len": limits.max_input_len,
        "--max-kv-cache-capacity": limits.max_seq_len,
        "--max-batch-size": limits.max_batch_size,
        "--max-lora-rank": 0,
    }
    return ["tensorrt-edgellm-build", *(str(word) for setting in settings.items() for word in setting)]

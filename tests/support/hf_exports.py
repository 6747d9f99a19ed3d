"""Exports of a checkpoint to FP8 for tests, with the names and marks that ModelOpt 0.47 writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from nemotron_build.checkpoint import Checkpoint
from nemotron_build.verification.tensors import read_tensors

_NAMES = {"float32": "F32", "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "uint8": "U8"}
# What ModelOpt leaves behind the names of a nemotron_h.
_MARKER = ".\0backbone.pt_name_sentinel"


def write_fp8_export(folder: Path, source: Checkpoint) -> None:
    """Write *source* to *folder* in FP8 with an FP8 KV cache."""
    folder.mkdir()
    tensors: dict[str, npt.NDArray[Any]] = {}
    excluded = ["lm_head"]
    weights = {name: array for file in _files(source) for name, array in read_tensors(file).items()}
    for name, weight in source.architecture.weights().items():
        if weight.role == "linear":
            scale = np.abs(weights[name].astype(np.float32)).max() / 448
            tensors[name] = (weights[name].astype(np.float32) / scale).astype(ml_dtypes.float8_e4m3fn)
            tensors[f"{name}_scale"] = np.array(scale, np.float32)
            tensors[name.replace("weight", "input_scale")] = np.array(0.01, np.float32)
            for part in ("k", "v"):
                if name.endswith(f"{part}_proj.weight"):
                    tensors[name.replace("weight", f"{part}_scale")] = np.array(0.02, np.float32)
        else:
            tensors[name] = weights[name]
            if len(weight.shape) > 1 and name != "lm_head.weight":
                excluded.append(name.removesuffix(".weight"))
    write_tensors(folder / "model.safetensors", tensors)
    config = json.loads((source.path / "config.json").read_text())
    config["dtype"] = config.pop("torch_dtype")
    if config["model_type"] == "nemotron_h":
        layers = {"M": "linear_attention", "-": "mlp", "*": "full_attention"}
        config["layers_block_type"] = [layers[letter] for letter in config.pop("hybrid_override_pattern")]
        config["time_step_limit"] = [0.0, {"__float__": "Infinity"}]
        del config["num_hidden_layers"]
        excluded = [name + _MARKER for name in excluded]
    else:
        rope = config.pop("rope_scaling") or {"rope_type": "default"}
        config["rope_parameters"] = rope | {"rope_theta": config.pop("rope_theta")}
    config["quantization_config"] = {
        "quant_method": "modelopt",
        "quant_algo": "FP8",
        "kv_cache_scheme": {"dynamic": False, "num_bits": 8, "type": "float"},
        "ignore": excluded,
    }
    record = {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": excluded}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "hf_quant_config.json").write_text(json.dumps({"quantization": record}))


def write_tensors(file: Path, tensors: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write *tensors* in safetensors' format, 8-bit floats included, which its own package does not do for numpy."""
    header, data = {}, b""
    for name, values in tensors.items():
        end = len(data) + values.nbytes
        header[name] = {
            "dtype": _NAMES[values.dtype.name],
            "shape": values.shape,
            "data_offsets": [len(data), end],
        }
        data += values.tobytes()
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)


def _files(source: Checkpoint) -> set[Path]:
    return {tensor.file for tensor in source.tensors.values()}

"""A Hugging Face checkpoint that was exported, against the one it was made from; either family, quantised or not.

Compares the settings, the quantisation on record and what it excludes, the files beside the weights, every tensor's
shape and type, every scale, and on a sample of rows the weights themselves: times their scales they must be the
source's. Exporters have renamed settings and lost layers, and nothing later would notice.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nemotron_build.architecture import Dimensions, read_architecture
from nemotron_build.checkpoint import DTYPES, Checkpoint, read_json
from nemotron_build.errors import BuildError, CheckpointError, VerificationError
from nemotron_build.precisions import KvPrecision, Precision
from nemotron_build.verification.hf_layouts import HF_LAYOUTS
from nemotron_build.verification.layout import Layout, scale_name
from nemotron_build.verification.problems import differences, refuse
from nemotron_build.verification.tensors import (
    Array,
    Form,
    is_scale,
    read_tensors,
    relative_distance,
    sampled_rows,
    source_weights,
    wrong_tensors,
)

_INDEX = "model.safetensors.index.json"
# Computed in when quantised, and what all that is not quantised is stored in.
_DTYPE = "bfloat16"
_ADDED = ("dtype", "torch_dtype", "quantization_config")
_IN_LAYER = re.compile(r"(.+\.layers\.\d+\.)(.+)\.weight")
# What takes its input from a norm; smoothing that several of these share is moved into that norm.
_NORM_BEFORE = {
    **dict.fromkeys(("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "input_layernorm.weight"),
    **dict.fromkeys(("mlp.gate_proj", "mlp.up_proj"), "post_attention_layernorm.weight"),
    **dict.fromkeys((f"mixer.{name}_proj" for name in ("q", "k", "v", "in", "up")), "norm.weight"),
}


def check_hf_checkpoint(folder: Path, source: Checkpoint, precision: Precision, kv: KvPrecision) -> list[str]:
    """What was found right in *folder*, a line each; `VerificationError` lists what is wrong."""
    checks = check_hf_config(folder, source.architecture)
    layout = HF_LAYOUTS[str(precision.hf_layout)] if precision.quantized else None
    tensors: dict[str, Array] = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= read_tensors(file)
    problems = [
        *_wrong_settings(folder, source, quantized=layout is not None),
        *(_wrong_record(folder, source, precision, kv, layout) if layout else ()),
        *wrong_tensors(tensors, _expected_tensors(tensors, source, layout, precision, kv)),
    ]
    refuse(problems or list(_wrong_values(tensors, source, layout)), f"the exported checkpoint {folder} is wrong")
    if not layout:
        return [*checks, f"{len(tensors)} tensors are the source's"]
    linears, scales = _linears(source), sum(map(is_scale, tensors))
    return [
        *checks,
        f"{precision.quant_algo} is on record for {len(linears)} matrices and for nothing else",
        f"{len(tensors)} tensors have the shapes and types that follow, {scales} scales are finite and positive",
        f"times their scales the weights of {len(linears)} matrices are the source's, and all else is as it was",
    ]


def check_hf_config(folder: Path, architecture: Dimensions) -> list[str]:
    """Whether `config.json` in *folder* still describes *architecture*; exporters have dropped and renamed settings."""
    try:
        config = read_json(folder / "config.json")
        exported = read_architecture(config)
    except BuildError as error:
        raise VerificationError(f"{folder / 'config.json'} no longer describes the source: {error}") from error
    if exported != architecture:
        raise VerificationError(f"{folder / 'config.json'} describes {exported} instead of {architecture}")
    return [f"config.json has the source's dimensions (head size {architecture.head_dim})"]


def _wrong_settings(folder: Path, source: Checkpoint, *, quantized: bool) -> Iterator[str]:
    """config.json setting by setting, because what reads it next may know other names than we; and the other files."""
    config, original = read_json(folder / "config.json"), read_json(source.path / "config.json")
    for name in sorted((config.keys() | original.keys()) - (set(_ADDED) if quantized else set())):
        if name not in config:
            yield f"config.json lacks {name}"
        elif name not in original or config[name] != original[name]:
            yield f"config.json has {name} {config[name]!r} instead of {original.get(name)!r}"
    if quantized and (dtype := config.get("dtype", config.get("torch_dtype"))) != _DTYPE:
        yield f"config.json has dtype {dtype!r} instead of {_DTYPE!r}"
    for path in source.files_beside_weights:
        if path.name != _INDEX and not (folder / path.name).is_file():
            yield f"{path.name} is missing"


def _wrong_record(
    folder: Path, source: Checkpoint, precision: Precision, kv: KvPrecision, layout: Layout
) -> Iterator[str]:
    """The quantisation is on record twice; TensorRT-LLM reads hf_quant_config.json first."""
    try:
        recorded: Any = read_json(folder / "hf_quant_config.json").get("quantization")
    except CheckpointError as error:
        yield str(error)
        return
    embedded: Any = read_json(folder / "config.json").get("quantization_config")
    if not isinstance(recorded, dict) or not isinstance(embedded, dict):
        yield "the quantisation is not on record in both hf_quant_config.json and config.json"
        return
    expected: dict[str, Any] = {"quant_algo": precision.quant_algo, "kv_cache_quant_algo": kv.quant_algo}
    if layout.is_int4:
        expected["group_size"] = precision.storage.block_size
    yield from differences(recorded, expected, "hf_quant_config.json has ")
    embedded_words = {"quant_algo": precision.quant_algo, "quant_method": "modelopt"}
    yield from differences(embedded, embedded_words, "config.json has ")
    if (embedded.get("kv_cache_scheme") is not None) != kv.quantized:
        yield f"config.json has kv_cache_scheme {embedded.get('kv_cache_scheme')!r} for a KV cache in {kv.name}"
    yield from _wrong_exclusions("hf_quant_config.json", recorded.get("exclude_modules"), source)
    yield from _wrong_exclusions("config.json", embedded.get("ignore"), source)


def _wrong_exclusions(file: str, patterns: Any, source: Checkpoint) -> Iterator[str]:
    """Loaders compare names of modules with these patterns; what matches none is loaded as quantised."""
    listed = patterns if isinstance(patterns, list) else []
    linears = {name.removesuffix(".weight") for name in _linears(source)}
    matrices = {name for name, weight in source.architecture.weights().items() if len(weight.shape) > 1}
    for module in sorted({name.removesuffix(".weight") for name in matrices} | {"lm_head"}):
        excluded = any(fnmatch.fnmatchcase(module, str(pattern)) for pattern in listed)
        if excluded == (module in linears):
            yield f"{file} {'excludes' if excluded else 'does not exclude'} {module} from quantisation"


def _expected_tensors(
    tensors: Mapping[str, Array], source: Checkpoint, layout: Layout | None, precision: Precision, kv: KvPrecision
) -> dict[str, Form]:
    """Every tensor's type and shape, for a smoothed layout with those factors that are there."""
    expected: dict[str, Form] = {}
    linears = _linears(source) if layout else {}
    for name, shape in source.architecture.tensors().items():
        if layout and name in linears:
            expected |= layout.stored(name, shape, precision.storage.block_size, _DTYPE)
            if layout.smoothing and (smoothing := scale_name(name, layout.smoothing)) in tensors:
                expected[smoothing] = (_DTYPE, (shape[1],))
            for part in ("k", "v"):
                if kv.quantized and name.endswith(f"{part}_proj.weight"):
                    expected[scale_name(name, f"{part}_scale")] = ("float32", ())
        else:
            expected[name] = (_DTYPE if layout else DTYPES[source.tensors[name].dtype], shape)
    return expected


def _wrong_values(tensors: Mapping[str, Array], source: Checkpoint, layout: Layout | None) -> Iterator[str]:
    weights = source_weights(source)
    linears = _linears(source) if layout else {}
    smoothed: set[str] = set()
    for name in linears:
        assert layout is not None
        rows = sampled_rows(len(weights[name]))
        values = layout.values(tensors, name, rows)
        if layout.smoothing and (smoothing := scale_name(name, layout.smoothing)) not in tensors:
            norm = _norm_before(name)
            if norm is None:
                yield f"{smoothing} is missing"
                continue
            smoothed.add(norm)
            values = values * (tensors[norm].astype(np.float32) / weights[norm].astype(np.float32))
        if not (off := relative_distance(values, weights[name][rows])) <= layout.error:
            yield f"{name} is {off:.0%} off the source's"
    for name, weight in weights.items():
        if name not in linears and name not in smoothed:
            rows = sampled_rows(len(weight))
            if not np.array_equal(tensors[name][rows], weight[rows].astype(tensors[name].dtype)):
                yield f"{name} is not the source's"


def _linears(source: Checkpoint) -> dict[str, tuple[int, ...]]:
    return {name: weight.shape for name, weight in source.architecture.weights().items() if weight.role == "linear"}


def _norm_before(name: str) -> str | None:
    match = _IN_LAYER.fullmatch(name)
    norm = _NORM_BEFORE.get(match[2]) if match else None
    return f"{match[1]}{norm}" if match and norm else None

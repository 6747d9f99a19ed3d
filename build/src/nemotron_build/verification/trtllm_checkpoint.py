"""A TensorRT-LLM checkpoint of a Llama against the checkpoint it was made from.

Compares the dimensions, the quantisation, every tensor's shape and type, every scale, and on a sample of rows the
weights themselves: a scale times a quantised weight must give back the source's. Exporters have written wrong head
sizes (ModelOpt 0.47, INT4) and lost scales; nothing later would notice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nemotron_build.architecture import Architecture, Dimensions
from nemotron_build.checkpoint import Checkpoint, read_json
from nemotron_build.errors import CheckpointError, VerificationError
from nemotron_build.precisions import KvPrecision, Precision
from nemotron_build.verification.layout import Layout
from nemotron_build.verification.problems import differences, refuse
from nemotron_build.verification.tensors import (
    UNKNOWN,
    Array,
    Form,
    is_scale,
    read_tensors,
    relative_distance,
    sampled_rows,
    source_weights,
    wrong_tensors,
)
from nemotron_build.verification.trtllm_layouts import TRTLLM_LAYOUTS, trtllm_dimensions

# Projections of a layer: the name in a TensorRT-LLM checkpoint, and what is stacked in it, in Hugging Face's names.
_PROJECTIONS = {
    "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention.dense": ("self_attn.o_proj",),
    "mlp.fc": ("mlp.gate_proj",),
    "mlp.gate": ("mlp.up_proj",),
    "mlp.proj": ("mlp.down_proj",),
}
_KEPT = {
    "transformer.vocab_embedding.weight": "model.embed_tokens.weight",
    "transformer.ln_f.weight": "model.norm.weight",
}
_HEAD, _EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
_KEPT_IN_LAYER = {
    "input_layernorm.weight": "input_layernorm.weight",
    "post_layernorm.weight": "post_attention_layernorm.weight",
}


def check_trtllm_checkpoint(folder: Path, source: Checkpoint, precision: Precision, kv: KvPrecision) -> list[str]:
    """What was found right in *folder*, a line each; `VerificationError` lists what is wrong."""
    architecture = source.architecture
    assert isinstance(architecture, Architecture)
    layout = Layout(dtype=precision.torch_dtype, scales={}, error=0.01)
    if precision.quantized:
        layout = TRTLLM_LAYOUTS[str(precision.trtllm_layout)]
    config = _config(folder)
    tensors = read_tensors(folder / "rank0.safetensors")
    problems = [
        *_wrong_settings(config, architecture, layout, kv, precision, has_head=_HEAD in tensors),
        *wrong_tensors(tensors, _expected_tensors(tensors, architecture, layout, kv, precision)),
    ]
    refuse(problems or list(_wrong_values(tensors, source, layout)), f"the exported checkpoint {folder} is wrong")
    return [
        f"config.json has the source's dimensions (head size {architecture.head_dim}, {architecture.num_hidden_layers} "
        "layers), rotary embedding and the asked quantisation",
        f"{len(tensors)} tensors have the shapes and types that follow",
        f"{sum(map(is_scale, tensors))} scales are finite and positive",
        "embedding, norms and lm_head are the source's",
        f"the weights of {architecture.num_hidden_layers * len(_PROJECTIONS)} projections "
        + ("were not compared: this format was never seen" if layout.dtype == UNKNOWN else "give back the source's"),
    ]


def check_dimensions(folder: Path, source: Checkpoint, quant_algo: str | None) -> list[str]:
    """What was found right in a checkpoint of TensorRT-LLM's own script, whose order of weights is not public."""
    architecture = source.architecture
    config = _config(folder)
    problems = [
        *differences(config, trtllm_dimensions(architecture)),
        *differences(config.get("quantization") or {}, {"quant_algo": quant_algo}),
    ]
    if not (folder / "rank0.safetensors").is_file():
        problems.append("rank0.safetensors is missing")
    refuse(problems, f"the converted checkpoint {folder} is wrong")
    return [f"config.json has the source's dimensions (head size {architecture.head_dim}); weights were not compared"]


def _config(folder: Path) -> dict[str, Any]:
    try:
        return read_json(folder / "config.json")
    except CheckpointError as error:
        raise VerificationError(str(error)) from error


def _kept(architecture: Dimensions, tensors: Mapping[str, Array]) -> dict[str, str]:
    """What is not quantised: TensorRT-LLM's name → the source's; a tied head is the embedding, and may be absent."""
    kept = dict(_KEPT)
    if _HEAD in tensors or not architecture.tie_word_embeddings:
        kept[_HEAD] = _EMBEDDING if architecture.tie_word_embeddings else _HEAD
    for layer in range(architecture.num_hidden_layers):
        for name, origin in _KEPT_IN_LAYER.items():
            kept[f"transformer.layers.{layer}.{name}"] = f"model.layers.{layer}.{origin}"
    return kept


def _projections(architecture: Dimensions) -> dict[str, list[str]]:
    """What is quantised: TensorRT-LLM's name → those of the source's matrices that are stacked in it."""
    return {
        f"transformer.layers.{layer}.{name}.weight": [f"model.layers.{layer}.{part}.weight" for part in parts]
        for layer in range(architecture.num_hidden_layers)
        for name, parts in _PROJECTIONS.items()
    }


def _wrong_settings(
    config: Mapping[str, Any],
    architecture: Architecture,
    layout: Layout,
    kv: KvPrecision,
    precision: Precision,
    *,
    has_head: bool,
) -> Iterator[str]:
    quantization = config.get("quantization") or {}
    settings = {
        "architecture": "LlamaForCausalLM",
        "dtype": precision.torch_dtype,
        **trtllm_dimensions(architecture),
        "intermediate_size": architecture.intermediate_size,
        "vocab_size": architecture.vocab_size,
        "max_position_embeddings": architecture.max_position_embeddings,
        "norm_epsilon": architecture.rms_norm_eps,
        "rotary_base": architecture.rope_theta,
        # ModelOpt writes tied embeddings twice, which TensorRT-LLM takes as well.
        "share_embedding_table": not has_head,
    }
    algorithms: dict[str, Any] = {"quant_algo": precision.quant_algo, "kv_cache_quant_algo": kv.quant_algo}
    if layout.is_int4:
        algorithms["group_size"] = precision.storage.block_size
    yield from differences(config, settings, "config.json has ")
    if scaling := architecture.rope_scaling:
        names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
        factors = {name: getattr(scaling, name) for name in names}
        yield from differences(config.get("rotary_scaling") or {}, factors, "config.json has rotary_scaling.")
    yield from differences(quantization, algorithms, "config.json has quantization.")
    if precision.quant_algo and "lm_head" not in quantization.get("exclude_modules", []):
        yield "config.json does not exclude lm_head from quantisation"


def _expected_tensors(
    tensors: Mapping[str, Array], architecture: Architecture, layout: Layout, kv: KvPrecision, precision: Precision
) -> dict[str, Form]:
    """Every tensor's type and shape; of a layout that was never seen, whatever scales there are."""
    plain = precision.torch_dtype
    source = architecture.tensors()
    expected: dict[str, Form] = {}
    if layout.dtype == UNKNOWN:
        expected = {name: (UNKNOWN, ()) for name in tensors if is_scale(name)}
    expected |= {name: (plain, source[origin]) for name, origin in _kept(architecture, tensors).items()}
    for name, origins in _projections(architecture).items():
        shape = (sum(source[origin][0] for origin in origins), source[origins[0]][1])
        expected |= layout.stored(name, shape, precision.storage.block_size, plain)
    for layer in range(architecture.num_hidden_layers if kv.quantized else 0):
        for scale in ("k_cache", "v_cache", "kv_cache"):
            expected[f"transformer.layers.{layer}.attention.{scale}_scaling_factor"] = ("float32", (1,))
    return expected


def _wrong_values(tensors: Mapping[str, Array], source: Checkpoint, layout: Layout) -> Iterator[str]:
    weights = source_weights(source)
    for name, origin in _kept(source.architecture, tensors).items():
        rows = sampled_rows(len(weights[origin]))
        stored, original = (values[rows].astype(np.float32) for values in (tensors[name], weights[origin]))
        if not np.allclose(stored, original, rtol=2**-7, atol=1e-6):
            yield f"{name} is not the source's {origin}"
    if layout.dtype == UNKNOWN:
        return
    for name, origins in _projections(source.architecture).items():
        first = 0
        for origin in origins:
            rows = sampled_rows(len(weights[origin]))
            values = layout.values(tensors, name, rows + first)
            if not (off := relative_distance(values, weights[origin][rows])) <= layout.error:
                yield f"{name} is {off:.0%} off the source's {origin}"
            first += len(weights[origin])

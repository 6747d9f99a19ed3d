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
from nemotron_build.verification.tensors import Array, read_tensors, relative_distance, sampled_rows
from nemotron_build.verification.trtllm_layouts import TRTLLM_LAYOUTS, TrtllmLayout

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


_SCALES = ("_factor", "_factor_2", "_scale")


def check_trtllm_checkpoint(folder: Path, source: Checkpoint, precision: Precision, kv: KvPrecision) -> list[str]:
    """What was found right in *folder*, a line each; `VerificationError` lists what is wrong."""
    architecture = source.architecture
    assert isinstance(architecture, Architecture)
    form = (
        TRTLLM_LAYOUTS[str(precision.trtllm_layout)]
        if precision.quantized
        else TrtllmLayout(dtype=precision.torch_dtype, scales={}, error=0.01)
    )
    try:
        config = read_json(folder / "config.json")
    except CheckpointError as error:
        raise VerificationError(str(error)) from error
    tensors = read_tensors(folder / "rank0.safetensors")
    problems = [
        *_wrong_settings(config, architecture, form, kv, precision, has_head=_HEAD in tensors),
        *_wrong_tensors(tensors, architecture, form, kv, precision),
    ]
    if not problems:
        problems += _wrong_values(tensors, source, form)
    if problems:
        more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise VerificationError(f"the exported checkpoint {folder} is wrong: {'; '.join(problems[:5])}{more}")
    scales = sum(name.endswith(_SCALES) for name in tensors)
    return [
        f"config.json has the source's dimensions (head size {architecture.head_dim}, {architecture.num_hidden_layers} "
        "layers), rotary embedding and the asked quantisation",
        f"{len(tensors)} tensors have the shapes and types that follow",
        f"{scales} scales are finite and positive",
        "embedding, norms and lm_head are the source's",
        f"the weights of {architecture.num_hidden_layers * len(_PROJECTIONS)} projections "
        + ("were not compared: this format was never seen" if form.dtype == "unknown" else "give back the source's"),
    ]


def check_dimensions(folder: Path, source: Checkpoint, quant_algo: str | None) -> list[str]:
    """What was found right in a checkpoint of TensorRT-LLM's own script, whose weights nobody else can read."""
    architecture = source.architecture
    try:
        config = read_json(folder / "config.json")
    except CheckpointError as error:
        raise VerificationError(str(error)) from error
    expected = {
        "num_hidden_layers": architecture.num_hidden_layers,
        "num_attention_heads": architecture.num_attention_heads,
        "num_key_value_heads": architecture.num_key_value_heads,
        "hidden_size": architecture.hidden_size,
        "head_size": architecture.head_dim,
    }
    problems = [
        f"{name} {config.get(name)!r} instead of {value}"
        for name, value in expected.items()
        if config.get(name) != value
    ]
    found = (config.get("quantization") or {}).get("quant_algo")
    if found != quant_algo:
        problems.append(f"quant_algo {found!r} instead of {quant_algo!r}")
    if not (folder / "rank0.safetensors").is_file():
        problems.append("no rank0.safetensors")
    if problems:
        raise VerificationError(f"the converted checkpoint {folder} has {'; '.join(problems)}")
    return [f"config.json has the source's dimensions (head size {architecture.head_dim}); weights were not compared"]


def _kept(architecture: Dimensions) -> dict[str, str]:
    """What is not quantised, outside of the layers: our name → the source's; a tied head is the embedding."""
    return _KEPT | {_HEAD: _EMBEDDING if architecture.tie_word_embeddings else _HEAD}


def _wrong_settings(
    config: Mapping[str, Any],
    architecture: Architecture,
    form: TrtllmLayout,
    kv: KvPrecision,
    precision: Precision,
    *,
    has_head: bool,
) -> Iterator[str]:
    quantization = config.get("quantization") or {}
    scaling = architecture.rope_scaling
    expected: dict[str, Any] = {
        "architecture": "LlamaForCausalLM",
        "dtype": precision.torch_dtype,
        "num_hidden_layers": architecture.num_hidden_layers,
        "num_attention_heads": architecture.num_attention_heads,
        "num_key_value_heads": architecture.num_key_value_heads,
        "hidden_size": architecture.hidden_size,
        "head_size": architecture.head_dim,
        "intermediate_size": architecture.intermediate_size,
        "vocab_size": architecture.vocab_size,
        "max_position_embeddings": architecture.max_position_embeddings,
        "norm_epsilon": architecture.rms_norm_eps,
        "rotary_base": architecture.rope_theta,
        # ModelOpt writes tied embeddings twice, which TensorRT-LLM takes as well.
        "share_embedding_table": not has_head,
    }
    found = {name: config.get(name) for name in expected}
    if scaling:
        stored = config.get("rotary_scaling") or {}
        for name in ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"):
            expected[f"rotary_scaling.{name}"] = getattr(scaling, name)
            found[f"rotary_scaling.{name}"] = stored.get(name)
    expected["quantization.quant_algo"] = precision.quant_algo
    expected["quantization.kv_cache_quant_algo"] = kv.quant_algo
    if form.dtype == "int4":
        expected["quantization.group_size"] = precision.storage.block_size
    for name in [name for name in expected if name.startswith("quantization.")]:
        found[name] = quantization.get(name.removeprefix("quantization."))
    for name, value in expected.items():
        if found[name] != value:
            yield f"config.json has {name} {found[name]!r} instead of {value!r}"
    if precision.quant_algo and "lm_head" not in quantization.get("exclude_modules", []):
        yield "config.json does not exclude lm_head from quantisation"


def _expected_tensors(
    architecture: Architecture, form: TrtllmLayout, kv: KvPrecision, precision: Precision
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Every tensor's type and shape."""
    plain = precision.torch_dtype
    source = architecture.tensors()
    expected: dict[str, tuple[str, tuple[int, ...]]] = {
        name: (plain, source[origin]) for name, origin in _kept(architecture).items()
    }
    for layer in range(architecture.num_hidden_layers):
        ours, theirs = f"transformer.layers.{layer}.", f"model.layers.{layer}."
        for name, origin in _KEPT_IN_LAYER.items():
            expected[ours + name] = (plain, source[theirs + origin])
        for name, parts in _PROJECTIONS.items():
            rows = sum(source[f"{theirs}{part}.weight"][0] for part in parts)
            columns = source[f"{theirs}{parts[0]}.weight"][1]
            packed = (rows // 2, columns) if form.dtype == "int4" else (rows, columns)
            expected[f"{ours}{name}.weight"] = ("int8" if form.dtype == "int4" else form.dtype, packed)
            sizes: dict[str | int, int] = {
                "out": rows,
                "in": columns,
                "blocks": columns // precision.storage.block_size,
            }
            for scale, shape in form.scales.items():
                dtype = plain if scale == "prequant_scaling_factor" else "float32"
                expected[f"{ours}{name}.{scale}"] = (dtype, tuple(sizes.get(size, 1) for size in shape))
        if kv.quantized:
            for scale in ("k_cache", "v_cache", "kv_cache"):
                expected[f"{ours}attention.{scale}_scaling_factor"] = ("float32", (1,))
    return expected


def _wrong_tensors(
    tensors: Mapping[str, Array], architecture: Architecture, form: TrtllmLayout, kv: KvPrecision, precision: Precision
) -> Iterator[str]:
    expected = _expected_tensors(architecture, form, kv, precision)
    if architecture.tie_word_embeddings and _HEAD not in tensors:
        del expected[_HEAD]
    for name, (dtype, shape) in expected.items():
        if name not in tensors:
            yield f"{name} is missing"
            continue
        found = tensors[name]
        if dtype != "unknown" and (found.dtype.name, found.shape) != (dtype, shape):
            yield f"{name} is {found.dtype.name} {list(found.shape)} instead of {dtype} {list(shape)}"
    for name in (name for name in tensors if name.endswith(_SCALES)):
        values = tensors[name].astype(np.float32)
        if not np.isfinite(values).all() or not (values > 0).all():
            bad = values[~(np.isfinite(values) & (values > 0))]
            yield f"{name} holds {bad.flat[0]}, and a scale is finite and positive"
    foreign = sorted(tensors.keys() - expected.keys())
    for name in foreign:
        if form.dtype != "unknown" or not name.endswith(_SCALES):
            yield f"{name} does not belong there"


def _wrong_values(tensors: Mapping[str, Array], source: Checkpoint, form: TrtllmLayout) -> Iterator[str]:
    files = {stored.file: read_tensors(stored.file) for stored in source.tensors.values()}
    weights = {name: files[stored.file][name] for name, stored in source.tensors.items()}
    kept = {name: origin for name, origin in _kept(source.architecture).items() if name in tensors}
    for layer in range(source.architecture.num_hidden_layers):
        kept |= {
            f"transformer.layers.{layer}.{name}": f"model.layers.{layer}.{origin}"
            for name, origin in _KEPT_IN_LAYER.items()
        }
    for name, origin in kept.items():
        rows = sampled_rows(len(weights[origin]))
        found, wanted = tensors[name][rows].astype(np.float32), weights[origin][rows].astype(np.float32)
        if not np.allclose(found, wanted, rtol=2**-7, atol=1e-6):
            yield f"{name} is not the source's {origin}"
    if form.dtype == "unknown":
        return
    for layer in range(source.architecture.num_hidden_layers):
        for name, parts in _PROJECTIONS.items():
            ours = f"transformer.layers.{layer}.{name}"
            first = 0
            for part in parts:
                origin = f"model.layers.{layer}.{part}.weight"
                rows = sampled_rows(len(weights[origin]))
                found = _effective(tensors, ours, rows + first, form)
                if not (off := relative_distance(found, weights[origin][rows])) <= form.error:
                    yield f"{ours}.weight is {off:.0%} off the source's {origin}"
                first += len(weights[origin])


def _effective(tensors: Mapping[str, Array], name: str, rows: Array, form: TrtllmLayout) -> Array:
    """What an input is multiplied with: the stored weight times its scales, float32, shape (rows, in)."""
    stored = tensors[f"{name}.weight"]
    if form.dtype == "int4":
        # Two output channels share a byte, the even one in the low nibble.
        nibbles = (stored[rows // 2].view(np.uint8) >> (4 * (rows % 2)[:, None]).astype(np.uint8)) & 15
        weight = np.where(nibbles > 7, nibbles.astype(np.float32) - 16, nibbles.astype(np.float32))
    else:
        weight = stored[rows].astype(np.float32)
    for scale in ("weights_scaling_factor", "per_channel_scale"):
        if scale in form.scales:
            values = tensors[f"{name}.{scale}"]
            spread = values[rows] if len(values) > 1 else values[None]
            weight = weight * np.repeat(
                spread.reshape(len(spread), -1), weight.shape[1] // (spread.size // len(spread)), 1
            )
    if "prequant_scaling_factor" in form.scales:
        weight = weight * tensors[f"{name}.prequant_scaling_factor"].astype(np.float32)
    return weight

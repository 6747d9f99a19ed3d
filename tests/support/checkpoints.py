"""Checkpoints for tests: small random Llamas in Hugging Face layout, and a reference for their arithmetic."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from nemotron_build.architecture import Architecture, read_architecture

Floats = npt.NDArray[np.float64]


def write_checkpoint(folder: Path, demo: Path, *, seed: int = 0, **changes: Any) -> dict[str, npt.NDArray[Any]]:
    """Write a random checkpoint with the demo's tokenizer and *changes* in config.json, and return its weights."""
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copyfile(demo / name, folder / name)
    config = json.loads((demo / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    random = np.random.default_rng(seed)
    weights = {
        name: (random.normal(0, 0.3, shape) if len(shape) > 1 else random.uniform(0.5, 1.5, shape)).astype(
            ml_dtypes.bfloat16
        )
        for name, shape in architecture_of(config).tensors().items()
    }
    save_file(weights, folder / "model.safetensors")
    return weights


def architecture_of(config: dict[str, Any]) -> Architecture:
    """The Llama in *config*."""
    architecture = read_architecture(config)
    assert isinstance(architecture, Architecture)
    return architecture


def logits(architecture: Architecture, weights: dict[str, Any], ids: Sequence[int]) -> Floats:
    """The logits after *ids*, shape (vocab_size,), by the definition: float64, no cache, Hugging Face's rotation."""
    w = {name: values.astype(np.float64) for name, values in weights.items()}
    heads, groups, size = architecture.num_attention_heads, architecture.num_key_value_heads, architecture.head_dim
    cos, sin = _rotation(architecture, len(ids))
    x = w["model.embed_tokens.weight"][list(ids)]
    mask = np.triu(np.full((len(ids), len(ids)), -np.inf), 1)
    for layer in range(architecture.num_hidden_layers):
        p = f"model.layers.{layer}."
        h = _norm(x, w[p + "input_layernorm.weight"], architecture.rms_norm_eps)
        q = _rotate((h @ w[p + "self_attn.q_proj.weight"].T).reshape(-1, heads, size), cos, sin)
        k = _rotate((h @ w[p + "self_attn.k_proj.weight"].T).reshape(-1, groups, size), cos, sin)
        v = (h @ w[p + "self_attn.v_proj.weight"].T).reshape(-1, groups, size)
        k, v = np.repeat(k, heads // groups, axis=1), np.repeat(v, heads // groups, axis=1)
        scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(size) + mask
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = np.einsum("hij,jhd->ihd", scores / scores.sum(-1, keepdims=True), v)
        x = x + mixed.reshape(len(ids), -1) @ w[p + "self_attn.o_proj.weight"].T
        h = _norm(x, w[p + "post_attention_layernorm.weight"], architecture.rms_norm_eps)
        gate = h @ w[p + "mlp.gate_proj.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ w[p + "mlp.up_proj.weight"].T)) @ w[p + "mlp.down_proj.weight"].T
    x = _norm(x, w["model.norm.weight"], architecture.rms_norm_eps)
    head: Floats = w.get("lm_head.weight", w["model.embed_tokens.weight"])
    return np.asarray(head @ x[-1])


def _norm(x: Floats, weight: Floats, eps: float) -> Floats:
    return np.asarray(x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * weight)


def _rotation(architecture: Architecture, length: int) -> tuple[Floats, Floats]:
    frequencies = architecture.rope_theta ** -(np.arange(0, architecture.head_dim, 2) / architecture.head_dim)
    if scaling := architecture.rope_scaling:
        for i, frequency in enumerate(frequencies):
            turns = scaling.original_max_position_embeddings * frequency / (2 * np.pi)
            if turns < scaling.low_freq_factor:
                frequencies[i] = frequency / scaling.factor
            elif turns < scaling.high_freq_factor:
                share = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
                frequencies[i] = (1 - share) * frequency / scaling.factor + share * frequency
    angles = np.outer(np.arange(length), np.concatenate([frequencies, frequencies]))
    return np.cos(angles)[:, None], np.sin(angles)[:, None]


def _rotate(x: Floats, cos: Floats, sin: Floats) -> Floats:
    first, second = np.split(x, 2, axis=-1)
    return np.asarray(x * cos + np.concatenate([-second, first], axis=-1) * sin)


def write_sparse_checkpoint(folder: Path, demo: Path, config: dict[str, Any], shards: int = 2) -> None:
    """Write a checkpoint of *config*'s real size with weights that are all zeros and take no space on the disk."""
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copyfile(demo / name, folder / name)
    (folder / "config.json").write_text(json.dumps(config | {"torch_dtype": "bfloat16"}))
    tensors = sorted(read_architecture(config).tensors().items())
    weight_map = {}
    for shard in range(shards):
        file = folder / f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        offset = 0
        for name, shape in tensors[shard::shards]:
            end = offset + 2 * math.prod(shape)
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, end]}
            weight_map[name], offset = file.name, end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        file.write_bytes(len(text).to_bytes(8, "little") + text)
        os.truncate(file, 8 + len(text) + offset)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

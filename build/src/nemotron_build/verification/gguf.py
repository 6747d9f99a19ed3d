"""A GGUF file against the checkpoint it was made from: dimensions, and that every tensor is there with its shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf

from nemotron_build.architecture import Architecture
from nemotron_build.checkpoint import Checkpoint
from nemotron_build.errors import VerificationError


def check_gguf(path: Path, source: Checkpoint) -> list[str]:
    """What was found right, a line each; `VerificationError` lists what is wrong."""
    architecture = source.architecture
    assert isinstance(architecture, Architecture)
    reader = gguf.GGUFReader(path)
    expected = {
        "llama.block_count": architecture.num_hidden_layers,
        "llama.embedding_length": architecture.hidden_size,
        "llama.feed_forward_length": architecture.intermediate_size,
        "llama.attention.head_count": architecture.num_attention_heads,
        "llama.attention.head_count_kv": architecture.num_key_value_heads,
        "llama.attention.key_length": architecture.head_dim,
        "llama.attention.value_length": architecture.head_dim,
        "llama.context_length": architecture.max_position_embeddings,
        "llama.vocab_size": architecture.vocab_size,
    }
    problems = [
        f"{name} is {_value(reader, name)} instead of {value}"
        for name, value in expected.items()
        if _value(reader, name) != value
    ]
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, architecture.num_hidden_layers)
    stored = {tensor.name: tuple(int(size) for size in tensor.shape) for tensor in reader.tensors}
    for name, shape in architecture.tensors().items():
        found = stored.get(names.get_name(name, try_suffixes=(".weight",)) or "")
        if found != shape[::-1]:
            problems.append(f"{name} is {found} instead of {shape[::-1]}")
    if bool(architecture.rope_scaling) != ("rope_freqs.weight" in stored):
        problems.append("the factors of llama3 rope scaling are not what config.json asks for")
    if problems:
        raise VerificationError(f"{path} is wrong: {'; '.join(problems[:5])}; build it again")
    return [
        f"the file has the source's dimensions (head size {architecture.head_dim}) and rope scaling",
        f"{len(stored)} tensors have the source's shapes",
    ]


def _value(reader: gguf.GGUFReader, name: str) -> Any:
    field = reader.get_field(name)
    return field.contents() if field else None

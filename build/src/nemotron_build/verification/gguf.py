"""A GGUF file against the checkpoint it was made from: dimensions, and that every tensor is there with its shape."""

from __future__ import annotations

from pathlib import Path

import gguf

from nemotron_build.architecture import Architecture
from nemotron_build.checkpoint import Checkpoint
from nemotron_build.verification.problems import differences, refuse


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
    fields = {name: field.contents() for name in expected if (field := reader.get_field(name))}
    problems = list(differences(fields, expected))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, architecture.num_hidden_layers)
    stored = {tensor.name: tuple(int(size) for size in tensor.shape) for tensor in reader.tensors}
    for name, shape in architecture.tensors().items():
        stored_shape = stored.get(names.get_name(name, try_suffixes=(".weight",)) or "")
        if stored_shape != shape[::-1]:
            problems.append(f"{name} is {stored_shape} instead of {shape[::-1]}")
    if bool(architecture.rope_scaling) != ("rope_freqs.weight" in stored):
        problems.append("the factors of llama3 rope scaling are not what config.json asks for")
    refuse(problems, f"{path} is wrong; build it again")
    return [
        f"the file has the source's dimensions (head size {architecture.head_dim}) and rope scaling",
        f"{len(stored)} tensors have the source's shapes",
    ]

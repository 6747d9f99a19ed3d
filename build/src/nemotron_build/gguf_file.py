"""A Llama checkpoint as the GGUF file that llama.cpp runs, written tensor by tensor.

Peak memory is one tensor in float32. Knows Llama and byte-level BPE only; everything else is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import ml_dtypes  # noqa: F401 - teaches numpy the name bfloat16, which safetensors asks for
import numpy as np
import numpy.typing as npt
from gguf.quants import quant_shape_to_byte_shape, quantize
from safetensors import SafetensorError, safe_open

from nemotron_build.architecture import Architecture, RopeScaling
from nemotron_build.checkpoint import Checkpoint, read_json
from nemotron_build.errors import CheckpointError
from nemotron_build.precisions import Precision

Progress = Callable[[int, int], None]
_Q = gguf.GGMLQuantizationType


def write_gguf(checkpoint: Checkpoint, precision: Precision, path: Path, *, name: str, progress: Progress) -> None:
    """Write *checkpoint* to *path* at *precision*, calling *progress* with (tensors written, tensors in all)."""
    architecture = checkpoint.architecture
    assert isinstance(architecture, Architecture)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{precision.gguf}"])
    _write_dimensions(writer, architecture)
    _write_tokenizer(writer, checkpoint)
    _write_tensors(writer, checkpoint, architecture, gguf.GGMLQuantizationType[str(precision.gguf)], progress)
    writer.close()


def _write_dimensions(writer: gguf.GGUFWriter, architecture: Architecture) -> None:
    writer.add_context_length(architecture.max_position_embeddings)
    writer.add_embedding_length(architecture.hidden_size)
    writer.add_block_count(architecture.num_hidden_layers)
    writer.add_feed_forward_length(architecture.intermediate_size)
    writer.add_head_count(architecture.num_attention_heads)
    writer.add_head_count_kv(architecture.num_key_value_heads)
    # Without these llama.cpp divides hidden_size by the heads, which is wrong for the 4B.
    writer.add_key_length(architecture.head_dim)
    writer.add_value_length(architecture.head_dim)
    writer.add_rope_dimension_count(architecture.head_dim)
    writer.add_rope_freq_base(architecture.rope_theta)
    writer.add_layer_norm_rms_eps(architecture.rms_norm_eps)
    writer.add_vocab_size(architecture.vocab_size)


def _write_tokenizer(writer: gguf.GGUFWriter, checkpoint: Checkpoint) -> None:
    stored = read_json(checkpoint.path / "tokenizer.json")
    model: dict[str, Any] = stored.get("model", {})
    if model.get("type") != "BPE":
        raise CheckpointError(f"{checkpoint.path}/tokenizer.json is {model.get('type')}; Llama 3.1 has byte-level BPE")
    size = checkpoint.architecture.vocab_size
    texts = [f"[unused {i}]" for i in range(size)]
    types = [gguf.TokenType.UNUSED] * size
    for text, token_id in model["vocab"].items():
        texts[token_id], types[token_id] = text, gguf.TokenType.NORMAL
    for token in stored.get("added_tokens", []):
        texts[token["id"]] = token["content"]
        types[token["id"]] = gguf.TokenType.CONTROL if token["special"] else gguf.TokenType.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    # How llama.cpp would cut text. We send token ids, so it never does.
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(texts)
    writer.add_token_types(types)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]])
    writer.add_add_bos_token(False)
    if checkpoint.bos_id is not None:
        writer.add_bos_token_id(checkpoint.bos_id)
    if checkpoint.end_ids:
        writer.add_eos_token_id(checkpoint.end_ids[0])


def _write_tensors(
    writer: gguf.GGUFWriter, checkpoint: Checkpoint, architecture: Architecture, weight_type: _Q, progress: Progress
) -> None:
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, architecture.num_hidden_layers)
    rope = architecture.rope_scaling
    extra = {"rope_freqs.weight": _rope_factors(architecture.head_dim, architecture.rope_theta, rope)} if rope else {}
    types = {name: weight_type if len(stored.shape) > 1 else _Q.F32 for name, stored in checkpoint.tensors.items()}
    for name, stored in checkpoint.tensors.items():
        shape = quant_shape_to_byte_shape(stored.shape, types[name])
        writer.add_tensor_info(_gguf_name(names, name), shape, np.dtype(np.uint8), math.prod(shape), types[name])
    for name, values in extra.items():
        writer.add_tensor_info(name, values.shape, values.dtype, values.nbytes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for done, (name, stored) in enumerate(checkpoint.tensors.items(), start=1):
        try:
            with safe_open(stored.file, framework="np") as file:
                values = file.get_tensor(name).astype(np.float32)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{name} in {stored.file} cannot be read: {error}") from error
        if not np.isfinite(values).all():
            raise CheckpointError(f"{name} in {stored.file} holds values that are not finite; download it again")
        writer.write_tensor_data(quantize(_in_llama_cpp_order(name, values, architecture), types[name]))
        progress(done, len(types))
    for values in extra.values():
        writer.write_tensor_data(values)


def _gguf_name(names: gguf.TensorNameMap, name: str) -> str:
    if gguf_name := names.get_name(name, try_suffixes=(".weight",)):
        return gguf_name
    raise CheckpointError(f"{name} has no place in a GGUF of the Llama family")


def _in_llama_cpp_order(
    name: str, values: npt.NDArray[np.float32], architecture: Architecture
) -> npt.NDArray[np.float32]:
    """Reorder the rows of q and k: llama.cpp rotates neighbouring pairs, Hugging Face the two halves of a head."""
    if not name.endswith(("q_proj.weight", "k_proj.weight")):
        return values
    halves = values.reshape(-1, 2, architecture.head_dim // 2, architecture.hidden_size)
    return halves.swapaxes(1, 2).reshape(values.shape)


def _rope_factors(head_dim: int, theta: float, scaling: RopeScaling) -> npt.NDArray[np.float32]:
    """Llama 3.1's divisors of the rotary frequencies, shape (head_dim / 2,), float32.

    Wavelengths above `original / low_freq_factor` are stretched by `factor`, those below `original / high_freq_factor`
    left alone, those between interpolated (the Llama 3.1 reference formula, as in transformers' `rope_type` llama3).
    """
    wavelengths = 2 * math.pi * theta ** (np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    turns = scaling.original_max_position_embeddings / wavelengths
    smooth = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    smooth = np.clip(smooth, 0.0, 1.0)
    return (1.0 / ((1.0 - smooth) / scaling.factor + smooth)).astype(np.float32)

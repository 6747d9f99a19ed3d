"""Arguments of TensorRT-LLM 1.2.1's LLM API, as plain data that a manifest can keep. Imports no TensorRT-LLM.

`pytorch` is for `tensorrt_llm.LLM` on a Hugging Face checkpoint, `tensorrt` for `tensorrt_llm._tensorrt_engine.LLM` on
an engine directory. Both reject unknown names, so only those verified for 1.2 are used. One GPU, no LoRA, no
speculation.
"""

from __future__ import annotations

from typing import Any, Literal

from nemotron_build.commands.trtllm_build import TOKENS_PER_BLOCK
from nemotron_build.errors import BuildError, UnsupportedError

Kind = Literal["pytorch", "tensorrt"]
_PYTORCH_KV_PRECISIONS = ("auto", "bf16", "fp16", "fp8")


def llm_api_arguments(
    kind: Kind,
    *,
    model: str,
    tokenizer: str,
    max_batch_size: int,
    max_num_tokens: int,
    max_input_len: int,
    max_seq_len: int,
    free_gpu_memory_fraction: float,
    chunks_prompts: bool,
    hybrid: bool = False,
    kv_precision: str = "auto",
    dtype: Literal["auto", "bfloat16", "float16"] = "auto",
) -> dict[str, Any]:
    """What the LLM API is called with: *model* is the checkpoint, or for `tensorrt` the engine directory.

    Lengths are in tokens of one sequence, *max_num_tokens* of one step over all; *free_gpu_memory_fraction* is the
    share for the KV cache of what the weights leave free. *hybrid* is a model with Mamba layers (`nemotron_h`).
    *chunks_prompts* is whether a prompt can be read in several steps, and so start from cached blocks.
    """
    if kind == "tensorrt" and hybrid:
        raise UnsupportedError("a model with Mamba layers has no TensorRT engine; the pytorch kind runs it")
    if kind == "pytorch" and kv_precision not in _PYTORCH_KV_PRECISIONS:
        raise UnsupportedError(f"the pytorch kind has no KV cache in {kv_precision}; fp8 works from SM 89")
    if not 0 < free_gpu_memory_fraction < 1:
        raise BuildError(f"free_gpu_memory_fraction ({free_gpu_memory_fraction}) is no share between 0 and 1")
    if not chunks_prompts and max_input_len > max_num_tokens:
        raise BuildError(
            f"without chunked prefill no prompt is longer than max_num_tokens ({max_num_tokens}); "
            f"max_input_len is {max_input_len}"
        )

    kv_cache: dict[str, Any] = {
        "free_gpu_memory_fraction": free_gpu_memory_fraction,
        "enable_block_reuse": chunks_prompts,
        # An engine's KV precision is its checkpoint's, and its LLM API takes nothing but auto.
        "dtype": "fp8" if kind == "pytorch" and kv_precision == "fp8" else "auto",
    }
    scheduler: dict[str, Any] = {"capacity_scheduler_policy": "GUARANTEED_NO_EVICT"}
    if chunks_prompts:
        scheduler["context_chunking_policy"] = "FIRST_COME_FIRST_SERVED"
    arguments: dict[str, Any] = {
        "model": model,
        "tokenizer": tokenizer,
        "trust_remote_code": False,
        # An engine's own limits cap these two; its other lengths are taken from it.
        "max_batch_size": max_batch_size,
        "max_num_tokens": max_num_tokens,
        "kv_cache_config": kv_cache,
        "enable_chunked_prefill": chunks_prompts,
        "scheduler_config": scheduler,
    }
    # xgrammar reads the vocabulary from the tokenizer; guided decoding of nemotron_h is untested upstream.
    if not hybrid:
        arguments["guided_decoding_backend"] = "xgrammar"
    if kind == "pytorch":
        kv_cache["tokens_per_block"] = TOKENS_PER_BLOCK
        if hybrid:
            # 16 bit loses the state's small updates over long sequences, say NVIDIA's own launch settings.
            kv_cache["mamba_ssm_cache_dtype"] = "float32"
        arguments["dtype"] = dtype
        arguments["max_input_len"] = max_input_len
        arguments["max_seq_len"] = max_seq_len
        arguments["max_beam_width"] = 1
        # Graphs up to the whole batch, smaller ones padded to the next: the default stops at 128.
        arguments["cuda_graph_config"] = {"max_batch_size": max_batch_size, "enable_padding": True}
    return arguments

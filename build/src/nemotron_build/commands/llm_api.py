"""Arguments of TensorRT-LLM 1.2.1's LLM API, as plain data that a manifest can keep. Imports no TensorRT-LLM.

Its two classes reject unknown names, so only those verified for 1.2 are used. One GPU, no LoRA, no speculation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from nemotron_build.commands.limits import Limits
from nemotron_build.commands.trtllm_build import TOKENS_PER_BLOCK
from nemotron_build.errors import BuildError, UnsupportedError
from nemotron_build.precisions import KvPrecision


@dataclass(frozen=True, kw_only=True)
class LlmCall:
    """What the LLM API is called with: `model` is a Hugging Face checkpoint, or an engine directory.

    `free_gpu_memory_fraction` is the share for the KV cache of what the weights leave free. `hybrid` is a model with
    Mamba layers (`nemotron_h`). `chunks_prompts` is whether a prompt can be read in several steps, and so start from
    cached blocks.
    """

    model: str
    tokenizer: str
    limits: Limits
    free_gpu_memory_fraction: float
    chunks_prompts: bool
    kv: KvPrecision
    hybrid: bool = False
    dtype: Literal["auto", "bfloat16", "float16"] = "auto"

    def __post_init__(self) -> None:
        if not 0 < self.free_gpu_memory_fraction < 1:
            raise BuildError(f"free_gpu_memory_fraction ({self.free_gpu_memory_fraction}) is no share between 0 and 1")
        longest, step = self.limits.max_input_len, self.limits.max_num_tokens
        if not self.chunks_prompts and longest > step:
            raise BuildError(
                f"without chunked prefill no prompt is longer than max_num_tokens ({step}); max_input_len is {longest}"
            )

    def on_engine(self) -> dict[str, Any]:
        """The arguments of `tensorrt_llm._tensorrt_engine.LLM`, for an engine directory.

        The engine's own limits cap those of batch and step; its other lengths, and its KV precision, are taken from it.
        """
        if self.hybrid:
            raise UnsupportedError("a model with Mamba layers has no TensorRT engine; the pytorch kind runs it")
        # What it computes log probabilities from; the compiler's flag of the same name is deprecated.
        return self._arguments({"dtype": "auto"}) | {"gather_generation_logits": True}

    def on_checkpoint(self) -> dict[str, Any]:
        """The arguments of `tensorrt_llm.LLM`, for a Hugging Face checkpoint."""
        if self.kv.quantized and self.kv.llm_api is None:
            raise UnsupportedError(f"the pytorch kind has no KV cache in {self.kv.name}; fp8 works from SM 89")
        cache: dict[str, Any] = {"dtype": self.kv.llm_api or "auto", "tokens_per_block": TOKENS_PER_BLOCK}
        if self.hybrid:
            # 16 bit loses the state's small updates over long sequences, say NVIDIA's own launch settings.
            cache["mamba_ssm_cache_dtype"] = "float32"
        return self._arguments(cache) | {
            "dtype": self.dtype,
            "max_input_len": self.limits.max_input_len,
            "max_seq_len": self.limits.max_seq_len,
            "max_beam_width": 1,
            # Graphs up to the whole batch, smaller ones padded to the next: the default stops at 128.
            "cuda_graph_config": {"max_batch_size": self.limits.max_batch_size, "enable_padding": True},
        }

    def _arguments(self, cache: dict[str, Any]) -> dict[str, Any]:
        """What both take; *cache* is what one of them says of the KV cache besides."""
        scheduler: dict[str, Any] = {"capacity_scheduler_policy": "GUARANTEED_NO_EVICT"}
        if self.chunks_prompts:
            scheduler["context_chunking_policy"] = "FIRST_COME_FIRST_SERVED"
        arguments: dict[str, Any] = {
            "model": self.model,
            "tokenizer": self.tokenizer,
            "trust_remote_code": False,
            "max_batch_size": self.limits.max_batch_size,
            "max_num_tokens": self.limits.max_num_tokens,
            "kv_cache_config": {
                "free_gpu_memory_fraction": self.free_gpu_memory_fraction,
                "enable_block_reuse": self.chunks_prompts,
                **cache,
            },
            "enable_chunked_prefill": self.chunks_prompts,
            "scheduler_config": scheduler,
        }
        # xgrammar reads the vocabulary from the tokenizer; guided decoding of nemotron_h is untested upstream.
        if not self.hybrid:
            arguments["guided_decoding_backend"] = "xgrammar"
        return arguments

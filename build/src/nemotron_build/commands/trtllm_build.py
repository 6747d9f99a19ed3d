"""The `trtllm-build` command of TensorRT-LLM 1.2.1, every flag that matters given.

The defaults of the tool are not fit for a card of 24 GB (batch 2048, the model's full context), and it silently changes
some flags: what is written here is what the engine's `config.json` says afterwards. One GPU, no LoRA, no speculative
decoding.

Sources, as the comments call them, are files of NVIDIA/TensorRT-LLM: *flags*, tensorrt_llm/commands/build.py at 65f1d15
(flags and help texts); *plugin*, tensorrt_llm/plugin/plugin.py at c20322f; *builder*, tensorrt_llm/builder.py and
tensorrt_llm/quantization/mode.py of 1.1 to 1.2, which override flags.
"""

from __future__ import annotations

from nemotron_build.commands.limits import Limits
from nemotron_build.errors import UnsupportedError
from nemotron_build.precisions import KvPrecision, Precision, TrtllmBuild

# The KV cache is handed out in blocks of so many tokens.
TOKENS_PER_BLOCK = 32


def fp8_context_attention(precision: Precision, kv: KvPrecision) -> bool:
    """Whether the context phase's attention computes in FP8.

    builder: with paged context attention, as here, it goes with an FP8 KV cache: without one it is turned off, with one
    it is turned on whatever was asked. That includes Ada: kernels refused it up to 0.12 (TensorRT-LLM issue 1914), and
    take it since (issue 2855 quotes the check of early 2025: Ada, Hopper or Blackwell).
    """
    return kv.quant_algo == "FP8" and _words(precision).fp8_attention


def paged_context_attention(precision: Precision, kv: KvPrecision) -> bool:
    """Whether a prompt can start from cached blocks: what block reuse and chunked prefill need of an engine.

    builder: not with an INT8 KV cache, and with an FP8 one only where the attention computes in FP8 too.
    """
    return not kv.quantized or fp8_context_attention(precision, kv)


def trtllm_build_argv(
    *,
    checkpoint_dir: str,
    output_dir: str,
    timing_cache: str,
    precision: Precision,
    kv: KvPrecision,
    limits: Limits,
) -> list[str]:
    """The command that compiles *checkpoint_dir*, a TensorRT-LLM checkpoint, into *output_dir*.

    *timing_cache* is the file in which the compiler leaves its measurements. *kv* says what the checkpoint holds; it is
    not chosen here.
    """
    words = _words(precision)
    settings: dict[str, str | int] = {
        "--checkpoint_dir": checkpoint_dir,
        "--output_dir": output_dir,
        # flags: its default is `model.cache` in the working directory, which a container's user may not write.
        "--output_timing_cache": timing_cache,
        "--max_batch_size": limits.max_batch_size,
        # flags: without effect on the engine here, but clients see this limit, and the default is 1024.
        "--max_input_len": limits.max_input_len,
        # flags: deduced from the model's longest context when unset, without llama3 rope scaling's factor.
        "--max_seq_len": limits.max_seq_len,
        "--max_num_tokens": limits.max_num_tokens,
        "--max_beam_width": 1,
        # flags: what in-flight batching needs; the default is deduced.
        "--kv_cache_type": "paged",
        "--tokens_per_block": TOKENS_PER_BLOCK,
        # flags: kernels for steps of every size, 1564 to 1861 tokens/s on a 70B; an error with --opt_num_tokens.
        "--multiple_profiles": "enable",
        "--gpt_attention_plugin": "auto",
        "--gemm_plugin": words.gemm_plugin,
        # plugin: a NotImplementedError on SM 100.
        "--fp8_rowwise_gemm_plugin": words.fp8_rowwise_gemm_plugin,
        # plugin: Hopper only, or for one sequence at a time, and a NotImplementedError on SM 100.
        "--gemm_swiglu_plugin": "disable",
        "--low_latency_gemm_plugin": "disable",
        "--low_latency_gemm_swiglu_plugin": "disable",
        # flags: both are what in-flight batching needs.
        "--remove_input_padding": "enable",
        "--context_fmha": "enable",
        "--use_paged_context_fmha": _switch(paged_context_attention(precision, kv)),
        "--use_fp8_context_fmha": _switch(fp8_context_attention(precision, kv)),
        # builder: forced off for all but FP8.
        "--use_fused_mlp": _switch(words.fused_mlp),
        # builder: for several GPUs, and overridden on one.
        "--reduce_fusion": "disable",
        "--user_buffer": "disable",
        # flags: ModelOpt writes float16 for bfloat16 models; logprobs want float32, four bytes per vocabulary entry.
        "--logits_dtype": "float32",
        "--workers": 1,
        "--log_level": "info",
    }
    return ["trtllm-build", *(str(word) for setting in settings.items() for word in setting)]


def _words(precision: Precision) -> TrtllmBuild:
    if precision.trtllm_build is None:
        raise UnsupportedError(f"trtllm-build makes no engines in {precision.name}")
    return precision.trtllm_build


def _switch(on: bool) -> str:
    return "enable" if on else "disable"

"""The `trtllm-build` command of TensorRT-LLM 1.2.1, every flag that matters given.

The defaults of the tool are not fit for a card of 24 GB (batch 2048, the model's full context), and some flags it would
change behind one's back: what is written here is what the engine's `config.json` says afterwards. One GPU, no LoRA, no
speculative decoding.

Sources, named in the comments: *flags*, the tool's list of flags and their help texts; *builder*, TensorRT-LLM's
`builder.py` and `quantization/mode.py`, which override flags; *plugin*, its `plugin/plugin.py`.
"""

from __future__ import annotations

from nemotron_build.errors import BuildError, UnsupportedError

PRECISIONS = (
    "bf16",
    "fp16",
    "fp8",
    "fp8-rowwise",
    "int8-sq",
    "int8-wo",
    "int4-wo",
    "int4-awq",
    "w4a8-awq",
    "nvfp4",
)
# The first three are the 16 bit of the model.
KV_PRECISIONS = ("auto", "bf16", "fp16", "fp8", "int8")
# The KV cache is handed out in blocks of so many tokens.
TOKENS_PER_BLOCK = 32

# Compute capabilities, major and minor, that TensorRT-LLM 1.2.1 runs on and a build can be for.
SMS = (80, 86, 89, 90, 100, 103, 120, 121)
# Activations or KV in FP8: no FP8 tensor cores before Ada.
_FP8_PRECISIONS = ("fp8", "fp8-rowwise", "w4a8-awq")
_FIRST_FP8_SM = 89
_FIRST_NVFP4_SM = 100
# builder: on 100 <= SM < 120 every INT4 and INT8 weight, INT8 KV, and per-channel or per-token scale raises.
_DATACENTER_BLACKWELL = range(100, 120)
_NOT_ON_DATACENTER_BLACKWELL = ("fp8-rowwise", "int8-sq", "int8-wo", "int4-wo", "int4-awq", "w4a8-awq")
# builder: the only quantisations whose attention can compute the context phase in FP8.
_FP8_ATTENTION_PRECISIONS = ("fp8", "w4a8-awq", "nvfp4")


def check_precision(precision: str, kv_precision: str, sm: int) -> None:
    """Refuse what `trtllm-build` would refuse on this GPU, before anything is computed for it."""
    if precision not in PRECISIONS:
        raise UnsupportedError(f"{precision} is no precision of TensorRT-LLM engines: {', '.join(PRECISIONS)}")
    if kv_precision not in KV_PRECISIONS:
        raise UnsupportedError(f"{kv_precision} is no KV precision of TensorRT-LLM engines: {', '.join(KV_PRECISIONS)}")
    if sm not in SMS:
        known = ", ".join(str(known) for known in SMS)
        raise UnsupportedError(f"TensorRT-LLM has no engines for SM {sm}; it has for {known} (Jetson Thor: Edge-LLM)")
    if precision in _FP8_PRECISIONS and sm < _FIRST_FP8_SM:
        raise UnsupportedError(f"{precision} needs FP8 tensor cores, which SM {sm} lacks; int8-sq or int4-awq work")
    if precision == "nvfp4" and sm < _FIRST_NVFP4_SM:
        raise UnsupportedError(f"nvfp4 needs Blackwell, SM 100 or later; this is SM {sm}, where int4-awq works")
    if sm in _DATACENTER_BLACKWELL:
        if precision in _NOT_ON_DATACENTER_BLACKWELL:
            raise UnsupportedError(f"trtllm-build refuses {precision} on SM {sm}; fp8 and nvfp4 work")
        if kv_precision == "int8":
            raise UnsupportedError(f"trtllm-build refuses an INT8 KV cache on SM {sm}; fp8 works")


def fp8_context_attention(precision: str, kv_precision: str) -> bool:
    """Whether the context phase's attention computes in FP8.

    builder: with paged context attention, as here, it goes with an FP8 KV cache: without one it is turned off, with one
    it is turned on whatever was asked. That includes Ada: kernels refused it up to 0.12 (TensorRT-LLM issue 1914), and
    take it since (issue 2855 quotes the check of early 2025: Ada, Hopper or Blackwell).
    """
    return kv_precision == "fp8" and precision in _FP8_ATTENTION_PRECISIONS


def paged_context_attention(precision: str, kv_precision: str) -> bool:
    """Whether a prompt can start from cached blocks: what block reuse and chunked prefill need of an engine.

    builder: not with an INT8 KV cache, and with an FP8 one only where the attention computes in FP8 too.
    """
    return kv_precision not in ("fp8", "int8") or fp8_context_attention(precision, kv_precision)


def trtllm_build_argv(
    *,
    checkpoint_dir: str,
    output_dir: str,
    timing_cache: str,
    precision: str,
    sm: int,
    max_batch_size: int,
    max_input_len: int,
    max_seq_len: int,
    max_num_tokens: int,
    kv_precision: str = "auto",
) -> list[str]:
    """The command that compiles *checkpoint_dir*, a TensorRT-LLM checkpoint, into *output_dir*.

    Lengths are in tokens of one sequence, prompt and answer together for *max_seq_len*; *max_num_tokens* bounds one
    step over all sequences. *timing_cache* is the file in which the compiler leaves its measurements. *kv_precision*
    says what the checkpoint holds; it is not chosen here.
    """
    check_precision(precision, kv_precision, sm)
    _check_limits(max_batch_size, max_input_len, max_seq_len, max_num_tokens)
    settings: dict[str, str | int] = {
        "--checkpoint_dir": checkpoint_dir,
        "--output_dir": output_dir,
        # flags: its default is `model.cache` in the working directory, which a container's user may not write.
        "--output_timing_cache": timing_cache,
        "--max_batch_size": max_batch_size,
        # flags: without effect on the engine here, but clients are told this limit, and the default is 1024.
        "--max_input_len": max_input_len,
        # flags: deduced from the model's longest context when unset, without llama3 rope scaling's factor.
        "--max_seq_len": max_seq_len,
        "--max_num_tokens": max_num_tokens,
        "--max_beam_width": 1,
        # flags: what in-flight batching needs; the default is deduced.
        "--kv_cache_type": "paged",
        "--tokens_per_block": TOKENS_PER_BLOCK,
        # flags: kernels for steps of every size, 1564 to 1861 tokens/s on a 70B; an error with --opt_num_tokens.
        "--multiple_profiles": "enable",
        "--gpt_attention_plugin": "auto",
        "--gemm_plugin": _gemm_plugin(precision),
        # builder: set for this quantisation anyway; elsewhere off, and on SM 100 a NotImplementedError (plugin).
        "--fp8_rowwise_gemm_plugin": "auto" if precision == "fp8-rowwise" else "disable",
        # plugin: Hopper only, or for one sequence at a time, and a NotImplementedError on SM 100.
        "--gemm_swiglu_plugin": "disable",
        "--low_latency_gemm_plugin": "disable",
        "--low_latency_gemm_swiglu_plugin": "disable",
        # flags: both are what in-flight batching needs.
        "--remove_input_padding": "enable",
        "--context_fmha": "enable",
        "--use_paged_context_fmha": _switch(paged_context_attention(precision, kv_precision)),
        "--use_fp8_context_fmha": _switch(fp8_context_attention(precision, kv_precision)),
        # builder: forced off for all but FP8.
        "--use_fused_mlp": _switch(precision == "fp8"),
        # builder: for several GPUs, and overridden on one.
        "--reduce_fusion": "disable",
        "--user_buffer": "disable",
        # flags: ModelOpt writes float16 for bfloat16 models; logprobs want float32, four bytes per vocabulary entry.
        "--logits_dtype": "float32",
        "--workers": 1,
        "--log_level": "info",
    }
    return ["trtllm-build", *(str(word) for setting in settings.items() for word in setting)]


def _gemm_plugin(precision: str) -> str:
    if precision in ("fp8", "fp8-rowwise"):
        return "disable"  # flags: leave off for FP8, where the compiler's own kernels are faster
    if precision == "nvfp4":
        return "nvfp4"  # builder: what it turns on itself unless told `disable`
    return "auto"  # flags: recommended for 16 bit, which in a weight-only checkpoint the output layer is (plugin)


def _switch(on: bool) -> str:
    return "enable" if on else "disable"


def _check_limits(max_batch_size: int, max_input_len: int, max_seq_len: int, max_num_tokens: int) -> None:
    if min(max_batch_size, max_input_len, max_num_tokens) < 1:
        raise BuildError("every limit of an engine is at least 1")
    if max_input_len >= max_seq_len:
        raise BuildError(f"a prompt of max_input_len ({max_input_len}) leaves no token of max_seq_len ({max_seq_len})")
    if max_num_tokens < max_batch_size:
        raise BuildError(
            f"max_num_tokens ({max_num_tokens}) is below max_batch_size ({max_batch_size}): one token each"
        )

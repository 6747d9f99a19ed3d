"""The checker of commands and settings refuses what the tool would not accept."""

from __future__ import annotations

from typing import Any

import pytest

from contract import EDGE, BreachError, build_argv, check_argv, check_llm_arguments, check_trtllm_build, llm_arguments


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max_batch_sise", "8"], "has no --max_batch_sise"),
        (["--auto_parallel", "1"], "has no --auto_parallel"),
        (["--opt_num_tokens", "many"], "not a number"),
        (["--opt_num_tokens"], "has no value"),
        (["--speculative_decoding_mode", "eagle9"], "not one of"),
        (["--max_batch_size", "8"], "given twice"),
        (["--max_decoder_seq_len", "8"], "--max_seq_len is given twice"),
        (["--paged_kv_cache", "enable"], "deprecated"),
        (["stray"], "has no flag"),
        (["--opt_num_tokens", "64"], "exclude each other"),
        (["--streamingllm", "enable"], "is refused"),
        (["--bert_context_fmha_fp32_acc", "enable"], "NotImplementedError"),
    ],
)
def test_the_checker_catches_a_wrong_flag(words: list[str], message: str) -> None:
    argv = build_argv("bf16")
    check_trtllm_build(argv, "bf16", "auto", 100)

    with pytest.raises(BreachError, match=message):
        check_trtllm_build([*argv, *words], "bf16", "auto", 100)


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--use_fused_mlp", "enable", "use_fused_mlp would be turned off"),
        ("--use_fp8_context_fmha", "enable", "use_fp8_context_fmha would be turned off"),
        ("--gemm_swiglu_plugin", "fp8", "NotImplementedError"),
        ("--fp8_rowwise_gemm_plugin", "auto", "NotImplementedError"),
        ("--gemm_plugin", "fp4", "not one of"),
    ],
)
def test_the_checker_catches_a_wrong_value(flag: str, value: str, message: str) -> None:
    argv = build_argv("bf16")
    argv[argv.index(flag) + 1] = value

    with pytest.raises(BreachError, match=message):
        check_trtllm_build(argv, "bf16", "auto", 100)


@pytest.mark.parametrize(("kv_precision", "message"), [("int8", "INT8 KV"), ("fp8", "go together")])
def test_the_checker_catches_attention_that_does_not_go_with_the_cache(kv_precision: str, message: str) -> None:
    with pytest.raises(BreachError, match=message):
        check_trtllm_build(build_argv("bf16", "auto"), "bf16", kv_precision, 90)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["tensorrt-edgellm-export", "/quantized"], "needs output_dir"),
        (["tensorrt-edgellm-build", "/a", "/b"], "is not tensorrt-edgellm-export"),
        (["tensorrt-edgellm-export", "/a", "/b", "/c"], "has no flag"),
        (["tensorrt-edgellm-export", "/a", "/b", "--target-sm", "sm110"], "not a number"),
        (["tensorrt-edgellm-export", "/a", 3], "no string"),
    ],
)
def test_the_checker_catches_wrong_positionals(argv: list[str], message: str) -> None:
    with pytest.raises(BreachError, match=message):
        check_argv(argv, "tensorrt-edgellm-export", EDGE["tensorrt-edgellm-export"])


def test_the_checker_catches_a_missing_flag() -> None:
    argv = ["tensorrt-edgellm-build", "--model-dir", "/a"]

    with pytest.raises(BreachError, match="needs --engine-dir"):
        check_argv(argv, "tensorrt-edgellm-build", EDGE["tensorrt-edgellm-build"])
    with pytest.raises(BreachError, match="--checkpoint_dir is missing"):
        check_trtllm_build(["trtllm-build"], "bf16", "auto", 90)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("pytorch", {"max_batchsize": 8}, "pytorch has no max_batchsize"),
        ("pytorch", {"max_batch_size": "8"}, "max_batch_size is '8'"),
        ("pytorch", {"max_batch_size": True}, "max_batch_size is True"),
        ("pytorch", {"enable_chunked_prefill": 1}, "enable_chunked_prefill is 1"),
        ("pytorch", {"model_kwargs": {}}, "not verified"),
        ("pytorch", {"backend": "pytorch"}, "not verified"),
        ("pytorch", {"guided_decoding_backend": "outlines"}, "not one of"),
        ("tensorrt", {"guided_decoding_backend": "llguidance"}, "not one of"),
        ("tensorrt", {"cuda_graph_config": {}}, "tensorrt has no cuda_graph_config"),
        ("pytorch", {"kv_cache_config": {"fraction": 0.9}}, "kv_cache_config has no fraction"),
        ("pytorch", {"kv_cache_config": {"mamba_state_config": {}}}, "not verified"),
        ("pytorch", {"kv_cache_config": {"use_kv_cache_manager_v2": True}}, "not verified"),
        ("tensorrt", {"kv_cache_config": {"dtype": "fp8"}}, "must stay auto"),
        ("pytorch", {"scheduler_config": {"capacity_scheduler_policy": "FAST"}}, "not one of"),
        ("pytorch", {"cuda_graph_config": {"max_batch_size": 1.5}}, "max_batch_size is 1.5"),
    ],
)
def test_the_checker_catches_a_wrong_argument(kind: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BreachError, match=message):
        check_llm_arguments(kind, {**llm_arguments(kind), **changes})


def test_the_checker_catches_a_missing_argument() -> None:
    arguments = llm_arguments()
    del arguments["model"]

    with pytest.raises(BreachError, match="needs model"):
        check_llm_arguments("pytorch", arguments)

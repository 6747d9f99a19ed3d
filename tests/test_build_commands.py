"""Commands and settings of NVIDIA's tools, checked against their contract (`data/trtllm_contract.json`)."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import PurePosixPath
from typing import Any

import pytest

from contract import (
    BUILD,
    CONTRACT,
    EDGE,
    build_argv,
    check_argv,
    check_llm_arguments,
    check_trtllm_build,
    kv_row,
    limits,
    llm_arguments,
)
from grid import every
from nemotron_build.architecture import read_architecture
from nemotron_build.choice import Choice
from nemotron_build.commands import edge_llm, trtllm_build, versions
from nemotron_build.commands.container import Mount, container_argv
from nemotron_build.errors import BuildError, RefusedError, UnsupportedError
from nemotron_build.planning.gpus import Gpu, find_gpu
from nemotron_build.precisions import PRECISION_NAMES, PRECISIONS
from nemotron_triton.chat.profiles import profile

SMS = (80, 86, 89, 90, 100, 110, 120)
KV_PRECISIONS = ("auto", "fp8", "int8")

# The GPUs for which trtllm-build compiles each precision, written out by hand.
BEFORE_ADA = {"bf16", "fp16", "int8-sq", "int8-wo", "int4-wo", "int4-awq"}
HOPPER_AND_ADA = {*BEFORE_ADA, "fp8", "fp8-rowwise", "w4a8-awq"}
COMPILES: dict[int, set[str]] = {
    80: BEFORE_ADA,
    86: BEFORE_ADA,
    89: HOPPER_AND_ADA,
    90: HOPPER_AND_ADA,
    100: {"bf16", "fp16", "fp8", "nvfp4"},
    110: set(),
    120: {*HOPPER_AND_ADA, "nvfp4"},
}
CELLS = list(product(PRECISION_NAMES, KV_PRECISIONS, SMS))
ALLOWED = [cell for cell in CELLS if cell[0] in COMPILES[cell[2]] and not (cell[1] == "int8" and cell[2] == 100)]
REFUSED = [cell for cell in CELLS if cell not in ALLOWED]
LLAMA = read_architecture(profile("llama-nemotron-nano-4b-v1.1").architecture)


def gpu_of(sm: int) -> Gpu:
    """A GPU of any SM, in the catalogue or not."""
    return replace(find_gpu("h100"), name="any", title="a GPU", sm=sm)


@every(ALLOWED)
def test_trtllm_build_takes_every_command_it_is_given(precision: str, kv_precision: str, sm: int) -> None:
    Choice(gpu=gpu_of(sm), architecture=LLAMA, precision=precision, kv_precision=kv_precision, kind="tensorrt").decide()

    argv = build_argv(precision, kv_precision)

    flags = check_trtllm_build(argv, precision, kv_precision, sm)
    assert flags["--max_batch_size"] == "16"
    assert flags["--max_input_len"] == "8000"
    assert flags["--max_seq_len"] == "8192"
    assert flags["--max_num_tokens"] == "4096"
    assert flags["--output_timing_cache"] == "/data/timing.cache"
    assert (flags["--kv_cache_type"], flags["--tokens_per_block"]) == ("paged", "32")
    assert flags["--multiple_profiles"] == "enable"


@every(REFUSED)
def test_what_trtllm_build_would_refuse_is_refused_by_the_plan(precision: str, kv_precision: str, sm: int) -> None:
    with pytest.raises(RefusedError, match=rf"a GPU \(SM{sm}\)"):
        Choice(
            gpu=gpu_of(sm), architecture=LLAMA, precision=precision, kv_precision=kv_precision, kind="tensorrt"
        ).decide()


@pytest.mark.parametrize(
    ("precision", "plugin"),
    [("bf16", "auto"), ("int4-awq", "auto"), ("fp8", "disable"), ("fp8-rowwise", "disable"), ("nvfp4", "nvfp4")],
)
def test_matrices_go_where_they_are_fastest(precision: str, plugin: str) -> None:
    flags = check_argv(build_argv(precision), "trtllm-build", BUILD["flags"])

    assert flags["--gemm_plugin"] == plugin


@pytest.mark.parametrize(
    ("precision", "kv_precision", "paged", "fp8_attention"),
    [
        ("bf16", "auto", True, False),
        ("bf16", "bf16", True, False),
        ("bf16", "fp8", False, False),
        ("int4-awq", "int8", False, False),
        ("fp8", "auto", True, False),
        ("fp8", "fp8", True, True),
        ("w4a8-awq", "fp8", True, True),
        ("fp8-rowwise", "fp8", False, False),
    ],
)
def test_prompts_start_from_cached_blocks_where_the_attention_can(
    precision: str, kv_precision: str, paged: bool, fp8_attention: bool
) -> None:
    flags = check_argv(build_argv(precision, kv_precision), "trtllm-build", BUILD["flags"])

    assert flags["--use_paged_context_fmha"] == ("enable" if paged else "disable")
    assert flags["--use_fp8_context_fmha"] == ("enable" if fp8_attention else "disable")
    assert trtllm_build.paged_context_attention(PRECISIONS.weights[precision], kv_row(kv_precision)) is paged


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_batch_size": 0}, "at least 1"),
        ({"max_input_len": 8192}, "leaves no token"),
        ({"max_num_tokens": 8}, "below max_batch_size"),
    ],
)
def test_limits_that_cannot_work_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BuildError, match=message):
        build_argv(**changes)


def test_trtllm_build_makes_nothing_that_it_has_no_words_for() -> None:
    wordless = replace(PRECISIONS.weights["fp8"], name="fp8-block", trtllm_build=None)

    with pytest.raises(UnsupportedError, match="trtllm-build makes no engines in fp8-block"):
        trtllm_build.paged_context_attention(wordless, kv_row("fp8"))


def test_a_command_runs_in_the_container_without_network_as_the_caller() -> None:
    mounts = [
        Mount(host=PurePosixPath("/data/checkpoint"), container=PurePosixPath("/checkpoint")),
        Mount(host=PurePosixPath("/data/out"), container=PurePosixPath("/out"), read_only=False),
    ]

    argv = container_argv(["trtllm-build", "--output_dir", "/out"], mounts=mounts, user=(1000, 1001), name="nemotron-1")

    assert " ".join(argv) == (
        "docker run --rm --init --name nemotron-1 --gpus all --network none --ipc=host"
        " --ulimit memlock=-1 --ulimit stack=67108864"
        " --user 1000:1001 --env USER=nemotron --env HOME=/tmp"
        " -v /data/checkpoint:/checkpoint:ro -v /data/out:/out"
        " nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3 trtllm-build --output_dir /out"
    )


@pytest.mark.parametrize("host", ["checkpoint", "/data/a:b"])
def test_a_folder_docker_would_misread_is_no_mount(host: str) -> None:
    with pytest.raises(BuildError, match="docker"):
        Mount(host=PurePosixPath(host), container=PurePosixPath("/checkpoint"))


def test_no_command_is_no_container() -> None:
    with pytest.raises(BuildError, match="no command"):
        container_argv([], mounts=[], user=(0, 0), name="n")


@pytest.mark.parametrize("image", [versions.TRITON_IMAGE, "server@sha256:" + "0" * 64, "localhost:5000/triton:26.04"])
def test_an_image_is_named_by_tag_or_by_digest(image: str) -> None:
    assert container_argv(["true"], mounts=[], user=(0, 0), name="n", image=image)[-2:] == [image, "true"]


@pytest.mark.parametrize("image", ["--volume=/:/host", "-v", "", "a b", "server@sha256:abc", "a;b", "../x"])
def test_what_docker_would_take_for_an_option_is_no_image(image: str) -> None:
    with pytest.raises(BuildError, match="is no image"):
        container_argv(["true"], mounts=[], user=(0, 0), name="n", image=image)


def test_the_image_holds_the_versions_commands_are_written_for() -> None:
    images = CONTRACT["triton_images"]
    repository, _, tag = versions.TRITON_IMAGE.partition(":")
    holds = images["tags"][tag.removesuffix(images["suffix"])]

    assert repository == images["repository"]
    assert (holds["tensorrt_llm"], holds["tensorrt"]) == (versions.TENSORRT_LLM, versions.TENSORRT)
    assert holds["cuda"].startswith(versions.CUDA)
    assert CONTRACT["tensorrt_llm"]["version"] == versions.TENSORRT_LLM
    assert CONTRACT["edge_llm"]["version"] == versions.EDGE_LLM


@pytest.mark.parametrize(
    "version",
    [
        "0.21.0",
        "0.17.0.post1",
        "1.0.3.2510",
        "1.2.1",
        "1.2",
        "1.2.1+cu131",
        "1.3.0a1",
        "1.3.0rc",
        "1.3.0rc9",
        "v1.3.0-rc.20",
    ],
)
def test_releases_with_engines_are_known(version: str) -> None:
    assert versions.has_engines(version)


@pytest.mark.parametrize(
    "version", ["1.3.0rc21", "1.3.0rc21.dev20260701", "1.3.0rc100", "1.3.0", "1.3", "1.3.1rc1", "1.10.0rc1", "2.0"]
)
def test_releases_without_engines_are_known(version: str) -> None:
    assert not versions.has_engines(version)


def test_the_boundary_is_the_contract_s() -> None:
    assert versions.has_engines(CONTRACT["tensorrt_llm"]["last_version_with_engines"])
    assert not versions.has_engines(CONTRACT["tensorrt_llm"]["first_version_without_engines"])


@pytest.mark.parametrize("version", ["", "unknown", "1.2.1 or so"])
def test_a_version_that_cannot_be_read_is_an_error(version: str) -> None:
    with pytest.raises(BuildError, match="can be read"):
        versions.has_engines(version)


@pytest.mark.parametrize(("hybrid", "kv_precision"), list(product([False, True], ["auto", "bf16", "fp8"])))
def test_the_pytorch_llm_api_takes_what_it_is_given(hybrid: bool, kv_precision: str) -> None:
    arguments = llm_arguments(hybrid=hybrid, chunks_prompts=not hybrid, kv_precision=kv_precision)

    check_llm_arguments("pytorch", arguments)
    assert arguments["kv_cache_config"]["dtype"] == ("fp8" if kv_precision == "fp8" else "auto")
    assert arguments["enable_chunked_prefill"] is not hybrid
    assert arguments["trust_remote_code"] is False
    assert json.loads(json.dumps(arguments)) == arguments


@every(list(product(PRECISION_NAMES, KV_PRECISIONS)))
def test_the_engine_llm_api_takes_what_it_is_given(precision: str, kv_precision: str) -> None:
    paged = trtllm_build.paged_context_attention(PRECISIONS.weights[precision], kv_row(kv_precision))

    arguments = llm_arguments("tensorrt", kv_precision=kv_precision, chunks_prompts=paged)

    check_llm_arguments("tensorrt", arguments)
    assert arguments["kv_cache_config"]["dtype"] == "auto"
    assert arguments["kv_cache_config"]["enable_block_reuse"] is paged
    assert arguments["enable_chunked_prefill"] is paged
    # The engine's own: given twice they could differ.
    assert not {"max_seq_len", "max_input_len", "max_beam_width", "dtype"} & set(arguments)


def test_mamba_state_is_kept_in_float32_and_never_reused() -> None:
    arguments = llm_arguments(hybrid=True, chunks_prompts=False)

    assert arguments["kv_cache_config"]["mamba_ssm_cache_dtype"] == "float32"
    assert arguments["kv_cache_config"]["enable_block_reuse"] is False
    assert "guided_decoding_backend" not in arguments
    assert "mamba_ssm_cache_dtype" not in llm_arguments()["kv_cache_config"]


def test_answers_of_a_llama_can_be_constrained() -> None:
    assert llm_arguments()["guided_decoding_backend"] == "xgrammar"
    assert llm_arguments("tensorrt")["guided_decoding_backend"] == "xgrammar"


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("tensorrt", {"hybrid": True}, "no TensorRT engine"),
        ("pytorch", {"kv_precision": "int8"}, "no KV cache in int8"),
        ("tensorrt", {"chunks_prompts": False, "limits": limits(max_num_tokens=4096)}, "no prompt is longer"),
        ("pytorch", {"free_gpu_memory_fraction": 1.5}, "no share"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(kind: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BuildError, match=message):
        llm_arguments(kind, **changes)


EDGE_PRECISIONS = ("fp8", "nvfp4", "int4-awq", "int8-sq")


@every(
    [
        *product(EDGE_PRECISIONS, ["auto", "fp16", "fp8"], ["cuda", "cpu"]),
        ("fp16", "fp8", "cpu"),
        ("bf16", "fp8", "cuda"),
    ]
)
def test_edge_llm_quantizes_with_every_command_it_is_given(precision: str, kv_precision: str, device: Any) -> None:
    argv = edge_llm.quantize_argv(
        model_dir="/checkpoint",
        output_dir="/quantized",
        precision=PRECISIONS.weights[precision],
        kv=kv_row(kv_precision),
        num_samples=256,
        device=device,
    )

    flags = check_argv(argv, "tensorrt-edgellm-quantize llm", EDGE["tensorrt-edgellm-quantize llm"])
    assert ("--quantization" in flags) is (precision in EDGE_PRECISIONS)
    assert ("--kv_cache_quantization" in flags) is (kv_precision == "fp8")
    assert flags["--num_samples"] == "256"


@pytest.mark.parametrize("sm", CONTRACT["edge_llm"]["sms"])
def test_edge_llm_builds_with_every_length_given(sm: int) -> None:
    asked = limits(max_batch_size=4, max_input_len=4096, max_seq_len=8192)

    build = edge_llm.build_argv(model_dir="/quantized", engine_dir="/engine", sm=sm, limits=asked)

    built = check_argv(build, "tensorrt-edgellm-build", EDGE["tensorrt-edgellm-build"])
    lengths = built["--max-batch-size"], built["--max-input-len"], built["--max-kv-cache-capacity"]
    assert lengths == ("4", "4096", "8192")


@pytest.mark.parametrize("sm", [89, 90])
def test_edge_llm_has_nothing_for_ada_and_hopper(sm: int) -> None:
    with pytest.raises(UnsupportedError, match=f"SM {sm}"):
        edge_llm.build_argv(model_dir="/a", engine_dir="/b", sm=sm, limits=limits())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": PRECISIONS.weights["fp16"]}, "needs no quantisation"),
        ({"precision": PRECISIONS.weights["bf16"], "kv": kv_row("fp16")}, "needs no quantisation"),
        ({"precision": PRECISIONS.weights["w4a8-awq"]}, "no w4a8-awq"),
        ({"kv": kv_row("int8")}, "no KV cache in int8"),
        ({"num_samples": 0}, "at least one"),
    ],
)
def test_edge_llm_refuses_what_it_cannot_quantize(changes: dict[str, Any], message: str) -> None:
    fp8 = {"precision": PRECISIONS.weights["fp8"], "kv": kv_row("auto")}
    settings: dict[str, Any] = {**fp8, "num_samples": 16, **changes}

    with pytest.raises(BuildError, match=message):
        edge_llm.quantize_argv(model_dir="/a", output_dir="/b", **settings)


@pytest.mark.parametrize(
    ("changes", "message"), [({"max_batch_size": 0}, "at least 1"), ({"max_input_len": 64}, "leaves no token")]
)
def test_edge_llm_refuses_lengths_that_cannot_work(changes: dict[str, int], message: str) -> None:
    lengths = {"max_batch_size": 1, "max_input_len": 32, "max_seq_len": 64, **changes}

    with pytest.raises(BuildError, match=message):
        edge_llm.build_argv(model_dir="/a", engine_dir="/b", sm=110, limits=limits(**lengths))


def test_calibration_reads_a_file_and_no_network() -> None:
    assert edge_llm.calibration_environment("/data/calibration.jsonl") == {
        "EDGELLM_QUANT_DATASET_CNN_DAILYMAIL": "/data/calibration.jsonl",
        "HF_HUB_OFFLINE": "1",
    }

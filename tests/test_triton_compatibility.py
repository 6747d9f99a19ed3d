"""A bundle is loaded where it can run; elsewhere every reason is reported, with a remedy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import nemotron_triton
from nemotron_triton.bundle import Bundle
from nemotron_triton.compatibility import check, check_loadable, check_servable
from nemotron_triton.engine.registry import KINDS
from nemotron_triton.errors import BundleError
from nemotron_triton.findings import Finding
from nemotron_triton.nvml import LocalGpu, Nvml
from nemotron_triton.releases import same_release
from nemotron_triton.runtime import Runtime

SCHEMA_2 = Path(__file__).parent / "data" / "manifest-schema-2.json"
IMAGE = "nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3"
ENGINE: dict[str, Any] = {
    "kind": "tensorrt",
    "gpu": "h100",
    "sm": 90,
    "precision": "fp8",
    "engine_file": "engine",
    "container": IMAGE,
    "tool_versions": {"tensorrt_llm": "1.2.1", "tensorrt": "10.14.1.48"},
}
PYTORCH = ENGINE | {"kind": "pytorch", "container": None, "tool_versions": {}, "requires_sm": 89}
EDGE = ENGINE | {"kind": "edge", "gpu": "jetson-thor", "sm": 110, "tool_versions": {"tensorrt-edgellm": "0.11.0"}}
GPU_HOST = Runtime(
    nvml=Nvml(gpus=(LocalGpu("NVIDIA H100 80GB HBM3", 90),)),
    tensorrt_llm="1.2.1",
    tensorrt="10.14.1.48.post1",
    edge_llm="0.11.0",
    llama_cpp="2026.10",
)
NO_GPU = Nvml(problem="this machine has no NVIDIA driver (none)", remedy="install the driver")
REBUILD = (
    "nemotron build-engine CHECKPOINT --gpu auto{} --model llama-nemotron-nano-4b-v1.1 "
    "--max-seq-len 2048 --max-batch-size 8 --output OTHER"
)


def with_gpu(title: str, sm: int) -> Runtime:
    return replace(GPU_HOST, nvml=Nvml(gpus=(LocalGpu(title, sm),)))


@pytest.fixture
def engine(bundle: Bundle, tmp_path: Path) -> Bundle:
    """A `tensorrt` bundle that holds only the version of the TensorRT-LLM that made its engine."""
    write_config(tmp_path, '{"version": "1.2.1", "pretrained_config": {}}')
    return Bundle(tmp_path, replace(bundle.manifest, **ENGINE))


def write_config(path: Path, text: str) -> None:
    (path / "engine").mkdir(exist_ok=True)
    (path / "engine" / "config.json").write_text(text)


def problems(bundle: Bundle, runtime: Runtime | None) -> dict[str, tuple[str, str]]:
    return {finding.name: (finding.detail, finding.remedy) for finding in check(bundle, runtime) if finding.remedy}


def only_problem(bundle: Bundle, runtime: Runtime | None) -> tuple[str, str, str]:
    ((name, (detail, remedy)),) = problems(bundle, runtime).items()
    return name, detail, remedy


def test_an_engine_where_it_belongs_has_no_problem(engine: Bundle) -> None:
    findings = check(engine, GPU_HOST)

    assert [(finding.name, finding.ok) for finding in findings] == [
        (name, True) for name in ("state", "profile", "gpu", "tensorrt_llm", "tensorrt", "engine")
    ]
    assert "was built for SM 90, and this machine has NVIDIA H100 80GB HBM3 (SM 90)" in [f.detail for f in findings]


def test_a_cpu_bundle_asks_for_llama_cpp_and_no_gpu(bundle: Bundle) -> None:
    runtime = Runtime(nvml=NO_GPU, llama_cpp="2026.10")

    assert problems(bundle, runtime) == {}
    assert only_problem(bundle, replace(runtime, llama_cpp=None)) == (
        "xllamacpp",
        "runs in llama.cpp, and xllamacpp is not installed here",
        "pip install '.[cpu]' from a checkout of nemotron",
    )


def test_an_unfinished_bundle_says_how_it_is_finished(engine: Bundle) -> None:
    unfinished = Bundle(engine.path, replace(engine.manifest, state="unfinished", next_stage="compile"))

    name, detail, remedy = only_problem(unfinished, GPU_HOST)

    assert name == "state"
    assert detail == "is unfinished: compile was not done where it was built"
    assert remedy == (f"finish it with `nemotron build-engine --resume {engine.path}` on a machine with h100 (SM 90)")


def test_a_command_in_a_remedy_can_be_pasted(engine: Bundle) -> None:
    manifest = replace(engine.manifest, state="unfinished", next_stage="compile")

    _, _, remedy = only_problem(Bundle(Path("/two words"), manifest), GPU_HOST)

    assert "--resume '/two words'`" in remedy


def test_an_unknown_profile_is_a_problem_of_this_nemotron(engine: Bundle) -> None:
    name, detail, remedy = only_problem(Bundle(engine.path, replace(engine.manifest, profile="gpt-9")), GPU_HOST)

    assert (name, remedy) == ("profile", "install a newer nemotron")
    assert detail.startswith("is for a model this nemotron does not know: ")


def test_a_broken_profile_is_to_be_corrected_and_no_reason_for_another_nemotron(bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(Path(nemotron_triton.__file__).parent, tmp_path / "nemotron_triton")
    broken = tmp_path / "nemotron_triton/chat/models/broken.yaml"
    broken.write_text("repository: r\n", encoding="utf-8")
    code = """
import sys
from pathlib import Path
from nemotron_triton.bundle import Bundle
from nemotron_triton.compatibility import check_servable
check_servable(Bundle.open(Path(sys.argv[1])))
"""

    ran = subprocess.run(
        [sys.executable, "-c", code, str(bundle.path)],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    last = ran.stderr.splitlines()[-1]
    assert f"{bundle.path} cannot be matched to its model: {broken} is not a model profile: prompt_format is" in last
    assert last.endswith("; correct it, or remove it")


def test_another_gpu_means_moving_or_rebuilding(engine: Bundle) -> None:
    assert only_problem(engine, with_gpu("NVIDIA L40S", 89)) == (
        "gpu",
        "was built for h100 (SM 90), and this machine has NVIDIA L40S (SM 89)",
        f"move it to a machine with h100 (SM 90), or build it for this GPU: `{REBUILD.format('')}`",
    )


def test_without_a_gpu_the_reason_is_reported(engine: Bundle) -> None:
    assert only_problem(engine, replace(GPU_HOST, nvml=NO_GPU)) == (
        "gpu",
        "was built for h100 (SM 90), and this machine has no NVIDIA driver (none)",
        "install the driver; or move it to a machine with h100 (SM 90)",
    )


def test_one_of_several_gpus_is_enough(engine: Bundle) -> None:
    both = Nvml(gpus=(LocalGpu("NVIDIA L40S", 89), LocalGpu("NVIDIA H100 PCIe", 90)))

    assert problems(engine, replace(GPU_HOST, nvml=both)) == {}


def test_an_engine_for_no_gpu_is_a_problem(engine: Bundle) -> None:
    name, detail, remedy = only_problem(Bundle(engine.path, replace(engine.manifest, sm=None)), GPU_HOST)

    assert (name, detail) == ("gpu", "does not say for which GPU it was compiled")
    assert remedy == f"build it again: `{REBUILD.format('')}`"


def test_another_tensorrt_llm_is_named_with_both_ways_out(engine: Bundle) -> None:
    assert only_problem(engine, replace(GPU_HOST, tensorrt_llm="1.2.0")) == (
        "tensorrt_llm",
        "was built with TensorRT-LLM 1.2.1, and here is 1.2.0",
        f"serve it in {IMAGE}, or build it again here: `{REBUILD.format(' --precision fp8')}`",
    )


def test_a_tensorrt_llm_without_engines_is_reported(engine: Bundle) -> None:
    _, detail, remedy = only_problem(engine, replace(GPU_HOST, tensorrt_llm="1.3.0rc21"))

    assert detail == (
        "was built with TensorRT-LLM 1.2.1, and here is 1.3.0rc21, which has no compiled engines any more"
    )
    assert remedy.endswith(f"here: `{REBUILD.format(' --precision fp8 --engine-kind pytorch')}`")


def test_no_tensorrt_llm_and_no_container_on_record(engine: Bundle) -> None:
    local = Bundle(engine.path, replace(engine.manifest, container=None))

    _, detail, remedy = only_problem(local, replace(GPU_HOST, tensorrt_llm=None))

    assert detail == "was built with TensorRT-LLM 1.2.1, which is not installed here"
    assert remedy.startswith("serve it in a container with TensorRT-LLM 1.2.1, or build it again here: `nemotron")


def test_an_engine_of_unknown_make_is_a_problem(engine: Bundle) -> None:
    findings = problems(Bundle(engine.path, replace(engine.manifest, tool_versions={})), GPU_HOST)

    assert findings["tensorrt_llm"][0] == "does not say with which TensorRT-LLM it was built"
    assert findings["tensorrt_llm"][1].startswith("serve it in ")
    assert (
        findings["engine"][0]
        == "has an engine/config.json that says TensorRT-LLM 1.2.1, and a manifest that says nothing"
    )


@pytest.mark.parametrize(
    ("here", "same"),
    [("10.14.1.48", True), ("10.14.1.48.post1", True), (None, True), ("10.13.3.9", False), ("10.14.1.99", False)],
)
def test_another_tensorrt_is_a_problem_where_its_version_is_known(engine: Bundle, here: str | None, same: bool) -> None:
    findings = problems(engine, replace(GPU_HOST, tensorrt=here))

    assert list(findings) == ([] if same else ["tensorrt"])
    if not same:
        assert findings["tensorrt"][0] == f"was built with TensorRT 10.14.1.48, and here is {here}"
        assert findings["tensorrt"][1].startswith(f"serve it in {IMAGE}, or build it again here: `nemotron")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            '{"version": "1.1.0"}',
            "has an engine/config.json that says TensorRT-LLM 1.1.0, and a manifest that says 1.2.1",
        ),
        ("{}", "has an engine/config.json that names no version, and a manifest that says 1.2.1"),
        ('{"version": 3}', "has an engine/config.json that names no version, and a manifest that says 1.2.1"),
        ("[]", "has an engine/config.json that names no version, and a manifest that says 1.2.1"),
        ("{", "has an engine/config.json that cannot be read: "),
        ("[" * 100_000, "has an engine/config.json that cannot be read: "),
    ],
)
def test_an_engine_that_is_not_the_manifest_s_is_a_problem(engine: Bundle, text: str, complaint: str) -> None:
    write_config(engine.path, text)

    name, detail, remedy = only_problem(engine, None)

    assert (name, remedy) == ("engine", "build or copy the bundle again")
    assert detail.startswith(complaint)


def test_an_engine_that_says_nothing_of_itself_is_a_problem(engine: Bundle) -> None:
    (engine.path / "engine" / "config.json").unlink()

    assert only_problem(engine, None)[1] == "has no engine/config.json, which says what made the engine"


def test_a_huge_engine_config_is_not_read(engine: Bundle) -> None:
    with (engine.path / "engine" / "config.json").open("r+b") as file:
        file.truncate(1 << 30)

    assert only_problem(engine, None)[1] == "has an engine/config.json that cannot be read: it has more than 16 MiB"


@pytest.mark.parametrize(
    ("precision", "required", "sm"),
    [
        ("bf16", 80, 80),
        ("bf16", 80, 75),
        ("fp8", 89, 89),
        ("fp8", 89, 86),
        ("nvfp4", 100, 100),
        ("nvfp4", 100, 90),
    ],
)
def test_a_pytorch_bundle_needs_a_gpu_with_its_arithmetic(
    engine: Bundle, precision: str, required: int, sm: int
) -> None:
    manifest = replace(engine.manifest, **PYTORCH | {"precision": precision, "requires_sm": required})

    findings = problems(Bundle(engine.path, manifest), with_gpu("NVIDIA X", sm))

    assert list(findings) == ([] if sm >= required else ["gpu"])
    if findings:
        assert findings["gpu"][0] == (
            f"needs a GPU of SM {required} or later for {precision} weights, and this machine has NVIDIA X (SM {sm})"
        )
        assert findings["gpu"][1].endswith(f"or build it for this GPU: `{REBUILD.format('')}`")


def test_a_pytorch_bundle_of_schema_2_asks_for_a_gpu_of_no_sm_and_says_so(tmp_path: Path) -> None:
    shutil.copy(SCHEMA_2, tmp_path / "manifest.json")
    bundle = Bundle.open(tmp_path)

    details = {finding.name: finding.detail for finding in check(bundle, with_gpu("NVIDIA X", 70))}

    need = "needs a GPU (its manifest does not say from which SM on)"
    assert problems(bundle, with_gpu("NVIDIA X", 70)) == {}
    assert details["gpu"] == f"{need}, and this machine has NVIDIA X (SM 70)"
    assert only_problem(bundle, replace(GPU_HOST, nvml=NO_GPU)) == (
        "gpu",
        f"{need}, and this machine has no NVIDIA driver (none)",
        "install the driver; or move it to a machine with a10g (SM 86)",
    )


@pytest.mark.parametrize(("here", "fits"), [("1.2.1", True), ("1.3.0rc25", True), ("1.2.0", False), (None, False)])
def test_a_pytorch_bundle_needs_the_llm_api_it_is_for(engine: Bundle, here: str | None, fits: bool) -> None:
    bundle = Bundle(engine.path, replace(engine.manifest, **PYTORCH))

    findings = problems(bundle, replace(GPU_HOST, tensorrt_llm=here))

    assert findings == (
        {}
        if fits
        else {
            "tensorrt_llm": (
                f"runs in TensorRT-LLM 1.2.1 or later, and {here or 'none'} is here",
                "serve it in a container with TensorRT-LLM 1.2.1 or later",
            )
        }
    )


def test_an_edge_bundle_needs_its_device_and_its_edge_llm(engine: Bundle) -> None:
    bundle = Bundle(engine.path, replace(engine.manifest, **EDGE))
    thor = with_gpu("NVIDIA Thor", 110)

    assert problems(bundle, thor) == {}
    assert problems(bundle, GPU_HOST)["gpu"][1].startswith("move it to a machine with jetson-thor (SM 110), or build")
    assert only_problem(bundle, replace(thor, edge_llm="0.10.0")) == (
        "edge_llm",
        "was built with TensorRT Edge-LLM 0.11.0, and here is 0.10.0",
        "pip install --no-deps tensorrt-edgellm==0.11.0, or build it again here: "
        f"`{REBUILD.format(' --precision fp8')}`",
    )
    assert "which is not installed here" in only_problem(bundle, replace(thor, edge_llm=None))[1]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_engine_has_rules_for_its_machine_and_needs_none_of_its_packages_for_them(kind: str) -> None:
    code = f"""
import sys
for name in ("tensorrt_llm", "tensorrt", "tensorrt_edgellm", "torch", "transformers", "xllamacpp"):
    sys.modules[name] = None
from nemotron_triton.engine.interface import engine_class
print("machine_findings" in vars(engine_class({kind!r})))
"""

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (result.stdout, result.stderr) == ("True\n", "")


def test_a_problem_always_has_its_remedy() -> None:
    assert Finding("gpu", "is fine").ok
    assert not Finding("gpu", "is not", "change it").ok


@pytest.mark.parametrize(
    ("version", "other_version", "same"),
    [("1.2.1", "1.2.1+cu131", True), ("1.2.1", "1.2.1.post1", False), ("1.2.1", "1.2.10", False)],
)
def test_a_release_is_the_same_whatever_it_was_compiled_for(version: str, other_version: str, same: bool) -> None:
    assert same_release(version, other_version) is same


def test_the_server_refuses_with_the_words_of_verify(engine: Bundle) -> None:
    runtime = replace(with_gpu("NVIDIA L40S", 89), tensorrt_llm="1.2.0")

    with pytest.raises(BundleError) as caught:
        check_loadable(engine, runtime)

    assert str(caught.value) == (
        f"the bundle {engine.path} was built for h100 (SM 90), and this machine has NVIDIA L40S (SM 89); move it to a "
        f"machine with h100 (SM 90), or build it for this GPU: `{REBUILD.format('')}` "
        f"(1 more: `nemotron verify {engine.path}`)"
    )
    check_loadable(engine, GPU_HOST)


def test_a_repository_is_not_written_for_a_bundle_that_cannot_be_served(bundle: Bundle) -> None:
    unfinished = Bundle(bundle.path, replace(bundle.manifest, state="unfinished", next_stage="compile"))

    with pytest.raises(BundleError, match=r"is unfinished: .*; finish it with `nemotron build-engine --resume "):
        check_servable(unfinished)


def test_an_engine_config_outside_of_the_bundle_is_not_read(engine: Bundle) -> None:
    outside = engine.path.with_name("outside.json")
    outside.write_text(json.dumps({"version": "1.2.1"}))
    (engine.path / "engine" / "config.json").unlink()
    (engine.path / "engine" / "config.json").symlink_to(outside)

    assert only_problem(engine, None)[0] == "engine"
    with pytest.raises(BundleError, match="is a link to what lies outside of the bundle; do not serve it"):
        engine.file("engine/config.json")

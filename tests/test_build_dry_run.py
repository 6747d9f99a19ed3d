"""Every command of every allowed build is one that its tool accepts; so are the arguments of the LLM API."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest

from checkpoints import write_sparse_checkpoint
from contract import CONTRACT, EDGE, BreachError, check_argv, check_llm_arguments, check_trtllm_build
from nemotron_build.architecture import read_architecture
from nemotron_build.build_plan import make_plan
from nemotron_build.choice import Choice
from nemotron_build.commands.versions import TRITON_IMAGE
from nemotron_build.engine import EngineSpec, workspace_of
from nemotron_build.errors import RefusedError, UnsupportedError
from nemotron_build.host import Host
from nemotron_build.planning.gpus import find_gpu, gpu_names
from nemotron_build.precisions import PRECISION_NAMES
from nemotron_build.stages.kind import kind_of
from nemotron_triton.chat.profiles import profile, profile_names

_IN_CONTAINER = ["docker", "run", "--rm", "--init", "--name"]
# One GPU of each SM: commands depend on nothing else of it.
_GPUS = list({find_gpu(name).sm: name for name in gpu_names() if name != "cpu"}.values())
_KV_PRECISIONS = ("auto", "fp8", "int8")
_KINDS = ("tensorrt", "pytorch", "edge")


@pytest.fixture(scope="session")
def real_sizes(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> dict[str, Path]:
    """A checkpoint of every profile's real size, all zeros that take no space on the disk."""
    folder = tmp_path_factory.mktemp("real")
    for name in profile_names():
        write_sparse_checkpoint(folder / name, checkpoint, dict(profile(name).architecture))
    return {name: folder / name for name in profile_names()}


def check_command(argv: Sequence[str], precision: str, kv_precision: str, sm: int) -> str:
    """Check *argv* against the contract of its program, and return the name of that."""
    if list(argv[: len(_IN_CONTAINER)]) == _IN_CONTAINER:
        argv = argv[list(argv).index(TRITON_IMAGE) + 1 :]
    program = Path(argv[0]).name
    if program == "trtllm-build":
        check_trtllm_build(argv, precision, kv_precision, sm)
    elif program == "python3" and argv[1].endswith("/convert_checkpoint.py"):
        check_argv(argv, f"python3 {argv[1]}", CONTRACT["convert_checkpoint"]["flags"])
        program = "convert_checkpoint"
    elif program == "tensorrt-edgellm-quantize":
        check_argv(argv, "tensorrt-edgellm-quantize llm", EDGE["tensorrt-edgellm-quantize llm"])
    elif program == "tensorrt-edgellm-build":
        flags = check_argv(argv, "tensorrt-edgellm-build", EDGE["tensorrt-edgellm-build"])
        for length in ("--max-input-len", "--max-kv-cache-capacity", "--max-batch-size"):
            assert length in flags
    elif program == "python" and argv[2].endswith("/quantization/worker.py"):
        program = "worker"
    else:
        raise BreachError(f"nobody knows the program {program}")
    return program


@pytest.mark.parametrize("gpu", _GPUS)
@pytest.mark.parametrize("name", profile_names())
def test_every_command_of_every_allowed_build_is_one_its_tool_takes(
    real_sizes: dict[str, Path], tmp_path: Path, name: str, gpu: str
) -> None:
    checked: dict[str, set[str]] = {}
    architecture = read_architecture(profile(name).architecture)

    for precision, kv_precision, kind in itertools.product(PRECISION_NAMES, _KV_PRECISIONS, _KINDS):
        spec = EngineSpec(
            checkpoint=real_sizes[name], gpu=gpu, model=name, precision=precision, kv_precision=kv_precision,
            engine_kind=kind, max_seq_len=16384, max_batch_size=2,
        )  # fmt: skip
        try:
            # First what needs no checkpoint: most cells are refused.
            Choice(
                gpu=find_gpu(gpu), architecture=architecture, precision=precision, kv_precision=kv_precision, kind=kind
            ).decide()
            plan = make_plan(spec)
        except (RefusedError, UnsupportedError):
            continue
        assert plan.gpu.sm is not None
        for host in (Host(sms=(plan.gpu.sm,), docker=True), Host(sms=(plan.gpu.sm,), tensorrt_llm="1.2.1")):
            stages = kind_of(plan).stages(plan, {}, host, workspace_of(tmp_path / "bundle"))
            for argv in (argv for stage in stages for argv in stage.commands):
                program = check_command(argv, precision, plan.decision.kv_precision, plan.gpu.sm)
                checked.setdefault(kind, set()).add(program)
        if arguments := kind_of(plan).llm_arguments(plan):
            check_llm_arguments(kind, arguments)
            checked.setdefault(kind, set()).add("LLM")

    if gpu == "jetson-thor":
        assert checked == {"edge": {"tensorrt-edgellm-quantize", "tensorrt-edgellm-build"}}
    else:
        assert checked["pytorch"] >= {"worker", "LLM"}
        assert ("tensorrt" in checked) == (name != "nemotron-3-nano-4b")
    if "tensorrt" in checked:
        assert checked["tensorrt"] == {"worker", "convert_checkpoint", "trtllm-build", "LLM"}


@pytest.mark.parametrize(
    "argv",
    [
        ["rm", "-rf", "/"],
        [*_IN_CONTAINER, TRITON_IMAGE, "trtllm-build", "--surprise"],
        ["python3", "/app/convert_checkpoint.py", "--weight_only_precision", "int3"],
        ["tensorrt-edgellm-build", "--model-dir", "a"],
    ],
)
def test_a_wrong_command_would_be_found(argv: list[str]) -> None:
    with pytest.raises(BreachError):
        check_command(argv, "bf16", "bf16", 90)

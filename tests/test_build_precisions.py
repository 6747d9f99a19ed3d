"""The table of precisions: what a row must hold, what follows from it, and what is refused without a word."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import pytest
import yaml

import nemotron_build
from checkpoints import write_sparse_checkpoint
from contract import CONTRACT
from hf_exports import write_fp8_export
from nemotron_build.architecture import Dimensions, read_architecture
from nemotron_build.build_plan import make_plan
from nemotron_build.checkpoint import inspect
from nemotron_build.choice import Choice
from nemotron_build.engine import EngineSpec, workspace_of
from nemotron_build.errors import BuildError, RefusedError
from nemotron_build.host import Host
from nemotron_build.kinds import KIND_NAMES
from nemotron_build.planning.gpus import find_gpu
from nemotron_build.precisions import PRECISIONS, Precisions, read_precisions
from nemotron_build.request import PlanRequest
from nemotron_build.stages.hf_export import complete_export
from nemotron_build.stages.kind import kind_of
from nemotron_build.verification.hf_checkpoint import check_hf_checkpoint
from nemotron_build.verification.hf_layouts import HF_LAYOUTS
from nemotron_build.verification.trtllm_layouts import TRTLLM_LAYOUTS
from nemotron_triton.chat.profiles import profile

SOURCE = Path(nemotron_build.__file__).parent
TABLE = SOURCE / "precisions.yaml"
MODEL = "llama-nemotron-nano-4b-v1.1"
LLAMA: Dimensions = read_architecture(profile(MODEL).architecture)
# Blocks of 128 x 128 that share a scale: no tool here has a word for it yet.
BLOCK = {"storage": {"bits": 8, "scales_per": "tensor", "scale_bits": 32}, "kinds": {"pytorch": {"listed": [90]}}}


def table_with(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A copy of the table after *change*."""
    table = yaml.safe_load(TABLE.read_text())
    change(table)
    path = tmp_path / "precisions.yaml"
    path.write_text(yaml.safe_dump(table, sort_keys=False))
    return path


def without(name: str, word: str, kv: str | None = None) -> Precisions:
    """The table whose row *name*, or KV row *kv*, lacks *word*."""
    nothing: dict[str, Any] = {word: None}
    if kv:
        return replace(PRECISIONS, kv={**PRECISIONS.kv, kv: replace(PRECISIONS.kv[kv], **nothing)})
    return replace(PRECISIONS, weights={**PRECISIONS.weights, name: replace(PRECISIONS.weights[name], **nothing)})


def test_every_row_names_existing_kinds_and_layouts() -> None:
    for row in [*PRECISIONS.weights.values(), *PRECISIONS.kv.values()]:
        assert set(row.kinds) <= set(KIND_NAMES)
    for row in PRECISIONS.weights.values():
        assert row.hf_layout is None or row.hf_layout in HF_LAYOUTS
        assert row.trtllm_layout is None or row.trtllm_layout in TRTLLM_LAYOUTS
        assert row.gguf is None or row.gguf in gguf.GGMLQuantizationType.__members__
        assert row.convert_checkpoint in (
            None,
            *CONTRACT["convert_checkpoint"]["flags"]["--weight_only_precision"]["choices"],
        )
    assert set(PRECISIONS.recommended) == set(KIND_NAMES)


@pytest.mark.parametrize(
    ("precision", "kind", "sm"),
    [
        ("bf16", "pytorch", 80),
        ("fp8", "pytorch", 89),
        ("fp8-rowwise", "pytorch", 89),
        ("w4a8-awq", "pytorch", 89),
        ("nvfp4", "pytorch", 100),
        ("nvfp4", "edge", 110),
        ("int8-sq", "pytorch", None),
        ("int8-wo", "cpu", None),
    ],
)
def test_a_row_says_the_least_sm_that_an_engine_requires(precision: str, kind: str, sm: int | None) -> None:
    assert PRECISIONS.weights[precision].requires_sm(kind) == sm


def test_no_module_asks_for_a_precision_by_name() -> None:
    # Names that are also types, of a KV cache or of arithmetic, stand for those.
    names = set(PRECISIONS.weights) - {"bf16", "fp16", "fp8"}

    places = [
        f"{path.relative_to(SOURCE)}:{node.lineno}"
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in names
    ]

    assert places == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda t: t["weights"]["fp8"].update(quant_alg="FP8"), r"weights\.fp8\.quant_alg: Unexpected keyword"),
        (lambda t: t["weights"]["fp8"]["storage"].pop("bits"), r"weights\.fp8\.storage\.bits: Field required"),
        (lambda t: t["weights"]["fp8"].update(arithmetic="fp6"), r"weights\.fp8\.arithmetic: Input should be 'bf16'"),
        (lambda t: t["weights"]["fp8"].update(edge_llm=8), r"weights\.fp8\.edge_llm: Input should be a valid string"),
        (lambda t: t["weights"]["fp8"].update(dtype="bf16"), r"yaml: weights\.fp8: dtype is bf16 for 8 bits; 16"),
        (lambda t: t["weights"]["fp8"]["kinds"]["edge"].update(listed="110"), r"weights\.fp8\.kinds\.edge\.listed"),
        (lambda t: t["kv"]["int8"].update(modelopt="8"), r"kv\.int8\.modelopt"),
        (lambda t: t["recommended"].update(edge=["fp6"]), r"yaml: recommended\.edge: fp6 is no row of weights$"),
        (lambda t: t.update(extra={}), "extra: Unexpected keyword"),
        (lambda t: t["weights"].update(fp6=None), r"weights\.fp6: Input should be an object, got None$"),
        (lambda t: t.update(weights=[]), "no rows of weights and kv that can be read"),
        (lambda t: t.pop("kv"), "no rows of weights and kv that can be read: 'kv'"),
    ],
)
def test_a_wrong_row_is_one_line_with_its_place(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], complaint: str
) -> None:
    path = table_with(tmp_path, change)

    with pytest.raises(BuildError, match=complaint) as caught:
        read_precisions(path)

    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_copied_row_that_kept_its_name_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "precisions.yaml"
    path.write_text(TABLE.read_text().replace("\n  nvfp4:\n", "\n  fp8:\n"))

    with pytest.raises(BuildError, match=r"precisions\.yaml .*: fp8 is given twice"):
        read_precisions(path)


@pytest.mark.parametrize(
    ("gpu", "kind", "precision", "word", "tool"),
    [
        ("h100", "tensorrt", "bf16", "trtllm_build", "trtllm-build"),
        ("h100", "tensorrt", "fp8", "trtllm_build", "trtllm-build"),
        ("h100", "tensorrt", "fp8", "quant_algo", "TensorRT-LLM"),
        ("h100", "tensorrt", "fp8", "modelopt", "ModelOpt"),
        ("h100", "tensorrt", "fp8", "trtllm_layout", "the verifier of TensorRT-LLM checkpoints"),
        ("h100", "tensorrt", "int8-wo", "convert_checkpoint", "the verifier of TensorRT-LLM checkpoints"),
        ("h100", "pytorch", "fp8", "quant_algo", "TensorRT-LLM"),
        ("h100", "pytorch", "fp8", "modelopt", "ModelOpt"),
        ("h100", "pytorch", "fp8", "hf_layout", "the verifier of Hugging Face checkpoints"),
        ("thor", "edge", "nvfp4", "edge_llm", "TensorRT Edge-LLM"),
        ("cpu", "cpu", "bf16", "gguf", "llama.cpp"),
        ("cpu", "cpu", "int8-wo", "gguf", "llama.cpp"),
    ],
)
def test_a_precision_without_a_tool_s_word_is_refused_by_the_plan(
    gpu: str, kind: str, precision: str, word: str, tool: str
) -> None:
    table = without(precision, word)
    request = PlanRequest(
        gpu=find_gpu(gpu), architecture=LLAMA, kind=kind, precision=precision, kv_precision="bf16", precisions=table
    )

    with pytest.raises(RefusedError) as caught:
        request.answer()

    assert caught.value.reason == (
        f"{precision} cannot be built for the {kind} engine kind: the table of precisions has no word of {tool} for it"
    )
    assert caught.value.suggestion
    names = {"--precision": "precision", "--engine-kind": "kind", "--kv-precision": "kv_precision"}
    changes: dict[str, Any] = {names[option]: value for option, value in caught.value.suggestion.items()}
    assert replace(request, **changes).answer()


@pytest.mark.parametrize(
    ("gpu", "kind", "word", "tool"),
    [
        ("h100", "tensorrt", "quant_algo", "TensorRT-LLM"),
        ("h100", "tensorrt", "modelopt", "ModelOpt"),
        ("h100", "pytorch", "llm_api", "the LLM API of TensorRT-LLM"),
        ("h100", "pytorch", "modelopt", "ModelOpt"),
        ("thor", "edge", "edge_llm", "TensorRT Edge-LLM"),
    ],
)
def test_a_kv_cache_without_a_tool_s_word_is_refused_by_the_plan(gpu: str, kind: str, word: str, tool: str) -> None:
    table = without("fp8", word, kv="fp8")

    with pytest.raises(RefusedError, match=f"a KV cache in fp8 cannot be built for the {kind} .* no word of {tool}"):
        Choice(
            gpu=find_gpu(gpu), architecture=LLAMA, kind=kind, precision="fp8", kv_precision="fp8", precisions=table
        ).decide()


def test_auto_passes_over_what_has_no_word() -> None:
    decision = Choice(gpu=find_gpu("h100"), architecture=LLAMA, precisions=without("fp8", "modelopt")).decide()

    assert decision.precision.name == "int4-awq"
    assert any("no word of ModelOpt" in line for line in decision.why)


@pytest.fixture(scope="module")
def real_size(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """A checkpoint of the 4B's real size, all zeros that take no space on the disk."""
    folder = tmp_path_factory.mktemp("real") / "checkpoint"
    write_sparse_checkpoint(folder, checkpoint, dict(profile(MODEL).architecture))
    return folder


@pytest.fixture(scope="module")
def nemotron(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line of a copy of the builder, whose table has one more row, without a word for any tool."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(SOURCE, folder / "nemotron_build")
    path = table_with(folder / "nemotron_build", lambda table: table["weights"].update({"fp8-block": BLOCK}))
    assert path.name == TABLE.name

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "nemotron_cli", *arguments],
            env={"PYTHONPATH": str(folder)},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_the_commands_refuse_a_row_without_words_in_one_line(
    tmp_path: Path, real_size: Path, nemotron: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    wish = ["--gpu", "h100", "--precision", "fp8-block", "--engine-kind", "pytorch"]

    planned = nemotron("plan", *wish)
    built = nemotron("build-engine", str(real_size), *wish, "--output", str(tmp_path / "bundle"), "--dry-run")

    for result in (planned, built):
        assert (result.returncode, result.stdout) == (4, "")
        assert result.stderr == (
            "Error: fp8-block cannot be built for the pytorch engine kind: "
            "the table of precisions has no word of TensorRT-LLM for it; use --precision fp8\n"
        )


def test_a_new_row_of_a_known_layout_is_all_that_a_precision_needs(tmp_path: Path, real_size: Path) -> None:
    def add(table: dict[str, Any]) -> None:
        table["weights"]["int4-awq-64"] = table["weights"]["int4-awq"] | {
            "storage": {"bits": 4, "scales_per": "block", "scale_bits": 16, "block_size": 64},
        }

    table = read_precisions(table_with(tmp_path, add))
    for kind, programs in (
        ("tensorrt", ["worker.py", "worker.py", "trtllm-build"]),
        ("pytorch", ["worker.py", "worker.py"]),
    ):
        spec = EngineSpec(checkpoint=real_size, gpu="h100", precision="int4-awq-64", engine_kind=kind, model=MODEL)

        plan = make_plan(spec, precisions=table)

        stages = kind_of(plan).stages(plan, {}, Host(sms=(90,), tensorrt_llm="1.2.1"), workspace_of(tmp_path / "b"))
        commands = [argv for stage in stages for argv in stage.commands]
        assert stages[0].settings["quantization"]["block_size"] == 64
        assert [Path(argv[2] if argv[1] == "-I" else argv[0]).name for argv in commands] == programs
        assert plan.memory.memory.weights.scales == plan.memory.memory.weights.linear * 2 // 64 * 2


def test_an_export_of_a_new_row_is_held_against_the_layout_that_it_names(tmp_path: Path, checkpoint: Path) -> None:
    source = inspect(checkpoint)
    write_fp8_export(tmp_path / "export", source)
    complete_export(tmp_path / "export", source)
    row = replace(PRECISIONS.weights["fp8"], name="fp8-mine")

    checks = check_hf_checkpoint(tmp_path / "export", source, row, PRECISIONS.kv["fp8"])

    assert any(check.startswith("FP8 is on record") for check in checks)

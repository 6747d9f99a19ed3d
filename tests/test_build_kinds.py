"""Bundles for GPUs, without a GPU and ModelOpt: which files, commands and records they have, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from checkpoints import write_checkpoint
from contract import EDGE, check_argv, check_llm_arguments
from nemotron_build.engine import EngineSpec, build, dry_run, resume
from nemotron_build.errors import ToolError, VerificationError
from nemotron_build.host import Host
from nemotron_triton.bundle import Bundle, digest
from nemotron_triton.errors import BundleError

THOR = Host(sms=(110,), gpu_titles=("NVIDIA Thor (SM110)",), edge_llm=True)
LAPTOP = Host()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """A small Llama whose rows are multiples of 128."""
    folder = tmp_path_factory.mktemp("source") / "checkpoint"
    write_checkpoint(folder, checkpoint, hidden_size=128, num_attention_heads=2, head_dim=128, num_hidden_layers=1)
    (folder / "LICENSE").write_text("as the model's makers say")
    return folder


class EdgeTools:
    """Stands in for TensorRT Edge-LLM: takes what it takes and writes what it writes, but the file *lost*."""

    def __init__(self, *, lost: str = "") -> None:
        self.ran: list[str] = []
        self.texts: list[str] = []
        self._lost = lost

    def __call__(
        self,
        argv: Sequence[str],
        log: Path,  # noqa: ARG002 - nothing is printed
        *,
        env: Mapping[str, str] | None = None,
        **_: Any,
    ) -> None:
        self.ran.append(Path(argv[0]).name)
        if argv[0] == "tensorrt-edgellm-quantize":
            flags = check_argv(argv, "tensorrt-edgellm-quantize llm", EDGE["tensorrt-edgellm-quantize llm"])
            assert env is not None
            lines = Path(env["EDGELLM_QUANT_DATASET_CNN_DAILYMAIL"]).read_text().splitlines()
            self.texts = [json.loads(line)["article"] for line in lines]
            assert len(self.texts) == int(flags["--num_samples"])
            assert (Path(flags["--model_dir"]) / "chat_template.jinja").is_file()
            shutil.copytree(flags["--model_dir"], flags["--output_dir"])
            (Path(flags["--output_dir"]) / "hf_quant_config.json").write_text("{}")
        else:
            flags = check_argv(argv, "tensorrt-edgellm-build", EDGE["tensorrt-edgellm-build"])
            folder = Path(flags["--engine-dir"])
            folder.mkdir()
            for name in {"llm.engine", "config.json"} - {self._lost}:
                (folder / name).write_text("made from " + digest(Path(flags["--model-dir"]) / "model.safetensors"))


def thor(source: Path, precision: str, **settings: Any) -> EngineSpec:
    return EngineSpec(
        checkpoint=source, gpu="thor", precision=precision, max_seq_len=512, calibration_samples=3, **settings
    )


def test_thor_gets_an_engine_and_the_checkpoint_it_reads(tmp_path: Path, source: Path) -> None:
    tools = EdgeTools()

    built = build(thor(source, "fp8"), tmp_path / "bundle", host=THOR, runner=tools)

    assert tools.ran == ["tensorrt-edgellm-quantize", "tensorrt-edgellm-build"]
    assert all("<|start_header_id|>" in text for text in tools.texts)
    manifest = built.manifest
    assert (manifest.kind, manifest.sm, manifest.requires_sm, manifest.state) == ("edge", 110, 110, "complete")
    assert {"engine/llm.engine", "engine/config.json", "checkpoint/hf_quant_config.json", "licence/LICENSE"} <= set(
        manifest.outputs
    )
    assert not manifest.ran_on_this_hardware
    assert any("Edge-LLM registers the llama model type" in warning for warning in manifest.warnings)
    Bundle.open(tmp_path / "bundle").verify()


def test_fp16_on_thor_is_built_from_the_checkpoint_as_it_is(tmp_path: Path, source: Path) -> None:
    tools = EdgeTools()

    build(thor(source, "fp16"), tmp_path / "bundle", host=THOR, runner=tools)

    assert tools.ran == ["tensorrt-edgellm-build"]


def test_thor_s_engine_is_finished_where_edge_llm_is(tmp_path: Path, source: Path) -> None:
    calibration = tmp_path / "mine.jsonl"
    messages = [{"role": "user", "content": "Zu welcher Zeit?"}, {"role": "assistant", "content": "Um acht."}]
    calibration.write_text(json.dumps({"messages": messages}) + "\n")

    begun = build(thor(source, "fp8", calibration=calibration), tmp_path / "bundle", host=LAPTOP)
    calibration.unlink()
    moved = Path(shutil.copytree(tmp_path / "bundle", tmp_path / "elsewhere"))
    tools = EdgeTools()
    finished = resume(moved, host=THOR, runner=tools)

    assert begun.blocked is not None
    assert "pip install tensorrt-edgellm==" in begun.blocked
    assert begun.manifest.next_stage == "quantize"
    assert finished.manifest.state == "complete"
    assert "Zu welcher Zeit?" in tools.texts[0]
    assert len(tools.texts) == 1
    Bundle.open(moved).verify()


def test_what_was_quantised_elsewhere_is_built_on_the_device(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = build(thor(source, "fp8"), tmp_path / "bundle", host=Host(edge_llm=True), runner=EdgeTools())
    Path(shutil.copytree(tmp_path / "bundle", tmp_path / "elsewhere"))
    monkeypatch.chdir(tmp_path)
    tools = EdgeTools()

    finished = resume(Path("elsewhere"), host=THOR, runner=tools)

    assert begun.manifest.next_stage == "compile"
    assert tools.ran == ["tensorrt-edgellm-build"]
    assert "checkpoint/hf_quant_config.json" in finished.manifest.outputs
    Bundle.open(tmp_path / "elsewhere").verify()


def test_a_bundle_with_something_added_is_not_finished(tmp_path: Path, source: Path) -> None:
    build(thor(source, "fp8"), tmp_path / "bundle", host=Host(edge_llm=True), runner=EdgeTools())
    (tmp_path / "bundle" / "resume" / "quantize" / "checkpoint" / "extra.safetensors").write_text("whose?")

    with pytest.raises(BundleError, match=r"extra.safetensors is not of this bundle; remove it"):
        resume(tmp_path / "bundle", host=THOR, runner=EdgeTools())


@pytest.mark.parametrize("stage", ["convert", "../..", "package", None])
def test_a_bundle_that_names_another_stage_is_not_finished(tmp_path: Path, source: Path, stage: str | None) -> None:
    build(thor(source, "fp8"), tmp_path / "bundle", host=Host(edge_llm=True), runner=EdgeTools())
    file = tmp_path / "bundle" / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"next_stage": stage}))

    with pytest.raises(BundleError, match=r"is no stage of|does not carry the weights"):
        resume(tmp_path / "bundle", host=THOR, runner=EdgeTools())


def test_a_bundle_does_not_choose_the_container(tmp_path: Path, source: Path) -> None:
    build(thor(source, "fp8"), tmp_path / "bundle", host=Host(edge_llm=True), runner=EdgeTools())
    file = tmp_path / "bundle" / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["config"]["image"] = "evil/image:1"
    file.write_text(json.dumps(manifest))

    assert resume(tmp_path / "bundle", host=THOR, runner=EdgeTools()).manifest.container is None


def test_a_prompt_that_must_be_read_in_one_step_is_limited_and_said_to_be(tmp_path: Path, source: Path) -> None:
    folder = Path(shutil.copytree(source, tmp_path / "source"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 65536}))
    spec = EngineSpec(checkpoint=folder, gpu="a10g", precision="bf16", kv_precision="int8", max_seq_len=32768)

    plan = dry_run(spec, tmp_path / "bundle", host=LAPTOP)

    assert plan["plan"]["settings"]["max_input_len"] == 8192
    assert any("prompts are limited to 8192 tokens" in warning for warning in plan["warnings"])


def test_an_engine_that_is_not_whole_is_refused(tmp_path: Path, source: Path) -> None:
    with pytest.raises(VerificationError, match=r"lacks llm.engine$"):
        build(thor(source, "fp16"), tmp_path / "bundle", host=THOR, runner=EdgeTools(lost="llm.engine"))

    assert os.listdir(tmp_path) == ["bundle.build"]


def test_a_tool_that_fails_is_one_line_and_its_log_is_kept(tmp_path: Path, source: Path) -> None:
    def failing(argv: Sequence[str], log: Path, **_: Any) -> None:
        raise ToolError(f"{argv[0]} failed with status 7; the whole log is {log}")

    with pytest.raises(
        ToolError, match=r"tensorrt-edgellm-build failed with status 7; .*bundle.build/logs/compile.log"
    ):
        build(thor(source, "fp16"), tmp_path / "bundle", host=THOR, runner=failing)

    assert os.listdir(tmp_path) == ["bundle.build"]


@pytest.mark.parametrize("gpu", ["h100", "a10g"])
def test_a_16_bit_pytorch_bundle_is_the_checkpoint_and_the_llm_api_s_arguments(
    tmp_path: Path, source: Path, gpu: str
) -> None:
    spec = EngineSpec(checkpoint=source, gpu=gpu, precision="bf16", engine_kind="pytorch", max_seq_len=1024)

    manifest = build(spec, tmp_path / "bundle", host=LAPTOP).manifest

    assert (manifest.kind, manifest.state, manifest.requires_sm) == ("pytorch", "complete", 80)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert manifest.outputs[f"engine/{name}"] == digest(source / name)
    assert manifest.llm_args is not None
    check_llm_arguments("pytorch", manifest.llm_args)
    assert manifest.llm_args["max_seq_len"] == 1024
    assert manifest.llm_args["trust_remote_code"] is False


def test_weight_only_needs_the_container_and_says_so(tmp_path: Path, source: Path) -> None:
    spec = EngineSpec(checkpoint=source, gpu="a10g", precision="int4-wo", kv_precision="int8", max_seq_len=512)

    plan = dry_run(spec, tmp_path / "bundle", host=LAPTOP)
    with_docker = dry_run(spec, tmp_path / "bundle", host=Host(sms=(86,), docker=True))

    blocked = {stage["name"]: stage["blocked"] for stage in plan["stages"]}
    assert "is in NVIDIA's container, and there is no docker here" in blocked["convert"]
    (convert,) = (stage["commands"][0] for stage in with_docker["stages"] if stage["name"] == "convert")
    assert "--int8_kv_cache" in convert
    # The script downloads the data for calibrating a KV cache.
    assert "none" not in convert

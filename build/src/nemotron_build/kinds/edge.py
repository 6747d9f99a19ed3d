"""The `edge` kind: TensorRT Edge-LLM quantises anywhere, builds on the device. Not run on hardware.

The builder takes the Hugging Face checkpoint itself, and the engine wants that same checkpoint beside it at run time,
so the bundle carries both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from nemotron_build.commands.edge_llm import DATASET_KEY, build_argv, calibration_environment, quantize_argv
from nemotron_build.commands.versions import EDGE_LLM, EDGE_TENSORRT
from nemotron_build.host import Host
from nemotron_build.needs import Need, Verb
from nemotron_build.planning.kind import Finding
from nemotron_build.stages.hf_export import take_stage
from nemotron_build.stages.kind import EngineKind
from nemotron_build.stages.modelopt import quantizes
from nemotron_build.stages.pipeline import Stage, Work, key_of
from nemotron_build.stages.plan import BuildPlan
from nemotron_build.stages.workspace import Workspace, files_in
from nemotron_triton.chat.profiles import TEMPLATES

_ENGINE, _CHECKPOINT = EngineKind.engine_file, "checkpoint"
_TOOLS = {"tensorrt-edgellm": EDGE_LLM, "tensorrt": EDGE_TENSORRT}
_MISSING = f"TensorRT Edge-LLM is not installed here: pip install tensorrt-edgellm=={EDGE_LLM}"


class Edge(EngineKind):
    """TensorRT Edge-LLM, on Jetson Thor."""

    name = "edge"
    title = "TensorRT Edge-LLM 0.11"
    sms = (110,)
    elsewhere = "edge engines are made for Jetson Thor only, not for {gpu}"
    models: ClassVar[Mapping[str, Finding | None]] = {
        "llama": Finding(
            "warning", "unverified: Edge-LLM registers the llama model type, but does not list this checkpoint"
        ),
        "nemotron_h": None,
    }
    quantizers: ClassVar[Mapping[str, str]] = {"edge_llm": "TensorRT Edge-LLM"}
    kv_quantizers = quantizers
    sixteen_bit = "fp16"
    needs: ClassVar[Mapping[Verb, frozenset[Need]]] = {
        "build": frozenset({Need.GPU, Need.EDGE_LLM}),
        "serve": frozenset({Need.GPU, Need.EDGE_LLM}),
    }

    def chunks_prompts(self, *_: object) -> bool:
        return False

    def step_tokens(self, concurrency: int, seq_len: int) -> int:  # noqa: ARG002 - whatever runs beside it
        """A step is as long as the prompt that it reads."""
        return seq_len

    def stages(self, plan: BuildPlan, digests: Mapping[str, str], host: Host, workspace: Workspace, /) -> list[Stage]:
        quantized = [_quantize(plan, digests, host, workspace)] if quantizes(plan) else []
        return [take_stage(plan, digests, _template(plan)), *quantized, _compile(plan, host, workspace), _verify(plan)]

    def tool_versions(self, _: Host, /) -> dict[str, str]:
        """An engine works with no other version."""
        return dict(_TOOLS)

    def engine_files(self, folders: Mapping[str, Path], /) -> dict[str, Path]:
        checkpoint = folders["quantize" if "quantize" in folders else "convert"] / _CHECKPOINT
        files = {f"{_CHECKPOINT}/{name}": checkpoint / name for name in files_in(checkpoint)}
        return super().engine_files(folders) | files


def _template(plan: BuildPlan) -> str:
    """The chat template for a checkpoint that has none, without which Edge-LLM exports nothing."""
    return plan.chat_template or (TEMPLATES / f"{plan.profile.prompt_format}.jinja").read_text(encoding="utf-8")


def _quantize(plan: BuildPlan, digests: Mapping[str, str], host: Host, workspace: Workspace) -> Stage:
    def argv(source: Path, output: Path) -> list[str]:
        return quantize_argv(
            model_dir=str(source),
            output_dir=str(output),
            precision=plan.decision.precision,
            kv=plan.decision.kv,
            num_samples=plan.calibration_count,
            device="cpu" if plan.spec.device == "cpu" or not host.sms else "cuda",
        )

    def make(work: Work) -> None:
        texts = work.log.with_suffix(".calibration.jsonl")
        bytes_of = plan.checkpoint.tokenizer.bytes_of
        lines = (b"".join(map(bytes_of, ids)).decode(errors="replace") for ids in plan.calibration)
        texts.write_text("".join(json.dumps({DATASET_KEY: line}) + "\n" for line in lines), encoding="utf-8")
        source, output = work.inputs["convert"] / _CHECKPOINT, work.folder / _CHECKPOINT
        work.runner(argv(source, output), work.log, env=calibration_environment(str(texts)))

    return Stage(
        name="quantize",
        make=make,
        settings={
            "argv": argv(Path("SOURCE"), Path("OUTPUT")),
            "samples": key_of(plan.calibration) if digests else "",
            "tools": _TOOLS,
        },
        needs=("convert",),
        commands=(argv(workspace.output("convert") / _CHECKPOINT, workspace.output("quantize.partial") / _CHECKPOINT),),
        blocked=None if host.edge_llm else _MISSING,
    )


def _compile(plan: BuildPlan, host: Host, workspace: Workspace) -> Stage:
    sm = plan.gpu.sm
    assert sm is not None
    origin = _origin(plan)

    def argv(checkpoint: Path, output: Path) -> list[str]:
        return build_argv(model_dir=str(checkpoint), engine_dir=str(output), sm=sm, limits=plan.memory.settings)

    def make(work: Work) -> None:
        work.runner(argv(work.inputs[origin] / _CHECKPOINT, work.folder / _ENGINE), work.log)

    return Stage(
        name="compile",
        make=make,
        settings={"argv": argv(Path("CHECKPOINT"), Path("OUTPUT")), "tools": _TOOLS},
        needs=(origin,),
        commands=(argv(workspace.output(origin) / _CHECKPOINT, workspace.output("compile.partial") / _ENGINE),),
        blocked=host.lacks_gpu(sm, plan.gpu.title) or (None if host.edge_llm else _MISSING),
    )


def _verify(plan: BuildPlan) -> Stage:
    origin = _origin(plan)

    def make(work: Work) -> None:
        from nemotron_build.verification.hf_checkpoint import check_hf_config
        from nemotron_build.verification.trtllm_engine import check_edge_engine

        checks = check_hf_config(work.inputs[origin] / _CHECKPOINT, plan.checkpoint.architecture)
        work.record("checks", [*checks, *check_edge_engine(work.inputs["compile"] / _ENGINE)])

    return Stage(name="verify", make=make, settings={}, needs=(origin, "compile"))


def _origin(plan: BuildPlan) -> str:
    """The stage whose checkpoint is built."""
    return "quantize" if quantizes(plan) else "convert"

"""The `tensorrt` kind: ModelOpt → TensorRT-LLM checkpoint → `trtllm-build`. Not run on hardware.

Quantising and exporting run anywhere; the weight-only formats are converted by TensorRT-LLM's own script, and only
`trtllm-build` needs the GPU it builds for. What is compiled was compared with its source before.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any, ClassVar

from nemotron_build.architecture import Dimensions
from nemotron_build.commands.convert_checkpoint import CONTAINER_SCRIPT, convert_checkpoint_argv
from nemotron_build.commands.trtllm_build import paged_context_attention, trtllm_build_argv
from nemotron_build.commands.versions import TENSORRT, TENSORRT_LLM
from nemotron_build.host import Host
from nemotron_build.needs import Need, Verb
from nemotron_build.planning.kind import Finding
from nemotron_build.precisions import KvPrecision, Precision
from nemotron_build.quantization.environment import MODELOPT_TRTLLM
from nemotron_build.stages.container import image, run_tool, tool_command
from nemotron_build.stages.kind import EngineKind, kind_of
from nemotron_build.stages.llm_call import FREE_MEMORY_FRACTION, llm_call
from nemotron_build.stages.modelopt import export_stage, quantize_stage, quantizes
from nemotron_build.stages.pipeline import Stage, Work
from nemotron_build.stages.plan import BuildPlan
from nemotron_build.stages.workspace import Workspace
from nemotron_triton.runtime import installed_version

_ENGINE = EngineKind.engine_file


class Tensorrt(EngineKind):
    """TensorRT-LLM's compiled engines, up to 1.2.1."""

    name = "tensorrt"
    title = "TensorRT-LLM 1.2.1 engine"
    sms = (80, 86, 89, 90, 100, 120)
    elsewhere = "TensorRT-LLM does not support {gpu}"
    models: ClassVar[Mapping[str, Finding | None]] = {
        "llama": None,
        "nemotron_h": Finding(
            "refused", "nemotron_h never had a TensorRT engine path; TensorRT-LLM runs it on its PyTorch backend only"
        ),
    }
    tools: ClassVar[Mapping[str, str]] = {"trtllm_build": "trtllm-build"}
    kv_quantizers: ClassVar[Mapping[str, str]] = {"quant_algo": "TensorRT-LLM", "modelopt": "ModelOpt"}
    quantizers: ClassVar[Mapping[str, str]] = {
        **kv_quantizers,
        "trtllm_checkpoint": "the verifier of TensorRT-LLM checkpoints",
    }
    kv_fraction = FREE_MEMORY_FRACTION
    # A step's own, and those of 8 steps for log probabilities: `GenerationLogitsCache` of NVIDIA/TensorRT-LLM,
    # cpp/include/tensorrt_llm/batch_manager/runtimeBuffers.h.
    logit_rows = 9
    modelopt = MODELOPT_TRTLLM
    needs: ClassVar[Mapping[Verb, frozenset[Need]]] = {
        "build": frozenset({Need.GPU, Need.TRTLLM_BUILD}),
        "serve": frozenset({Need.GPU, Need.TRTLLM_ENGINES}),
    }

    def chunks_prompts(self, _: Dimensions, precision: Precision, kv: KvPrecision, /) -> bool:
        return paged_context_attention(precision, kv)

    def stages(self, plan: BuildPlan, digests: Mapping[str, str], host: Host, workspace: Workspace, /) -> list[Stage]:
        stages = [quantize_stage(plan, digests, host, workspace, MODELOPT_TRTLLM)] if quantizes(plan) else []
        if weight_only := plan.decision.precision.convert_checkpoint:
            stages.append(_convert_weight_only(plan, weight_only, digests, host, workspace))
        else:
            from nemotron_build.verification.trtllm_checkpoint import check_trtllm_checkpoint

            decision = plan.decision
            check = functools.partial(
                check_trtllm_checkpoint, source=plan.checkpoint, precision=decision.precision, kv=decision.kv
            )
            stages.append(export_stage(plan, digests, workspace, MODELOPT_TRTLLM, "export_tensorrt_llm", check))
        return [*stages, _compile(plan, host, workspace), _verify(plan, host)]

    def tool_versions(self, host: Host, /) -> dict[str, str]:
        local = host.tensorrt_llm if host.builds_engines else None
        tensorrt = installed_version("tensorrt") if local else None
        return {"tensorrt_llm": local or TENSORRT_LLM, "tensorrt": tensorrt or TENSORRT, **MODELOPT_TRTLLM.versions}

    def container(self, plan: BuildPlan, host: Host, /) -> str | None:
        return image(plan, host)

    def llm_arguments(self, plan: BuildPlan, /) -> dict[str, Any]:
        return llm_call(plan).on_engine()


def _convert_weight_only(
    plan: BuildPlan, weight_only: str, digests: Mapping[str, str], host: Host, workspace: Workspace
) -> Stage:
    # The script comes with the container, not with the package: it is here where we run inside of it.
    here = host.builds_engines and Path(CONTAINER_SCRIPT).is_file()

    def argv(source: PurePath, output: PurePath) -> list[str]:
        return convert_checkpoint_argv(
            script=str(CONTAINER_SCRIPT),
            model_dir=str(source),
            output_dir=str(output),
            dtype=plan.decision.precision.torch_dtype,
            weight_only=weight_only,
            kv=plan.decision.kv,
        )

    def command(output: Path) -> list[str]:
        source = plan.checkpoint.path.absolute()
        # The script calibrates a KV cache on a data set that it downloads, and on nothing else.
        network = plan.decision.kv.quantized
        return tool_command("convert", argv, source, output, plan, host, workspace, here=here, network=network)

    def make(work: Work) -> None:
        from nemotron_build.verification.trtllm_checkpoint import check_dimensions

        (work.folder / "checkpoint").mkdir()
        run_tool(work, command(work.folder / "checkpoint"), host, plan)
        checks = check_dimensions(work.folder / "checkpoint", plan.checkpoint, plan.decision.precision.quant_algo)
        work.record("checks", checks)

    settings = argv(PurePath("SOURCE"), PurePath("OUTPUT"))[2:]
    return Stage(
        name="convert",
        make=make,
        settings={
            "inputs": dict(digests),
            "argv": settings,
            "tools": kind_of(plan).tool_versions(host),
            "image": image(plan, host),
        },
        commands=(command(workspace.output("convert.partial") / "checkpoint"),),
        blocked=None if here else _lacks_script(host),
        reads_source=True,
    )


def _lacks_script(host: Host) -> str | None:
    if not host.docker:
        return "TensorRT-LLM's script for weight-only formats is in NVIDIA's container, and there is no docker here"
    return None if host.sms else "TensorRT-LLM's script for weight-only formats needs an NVIDIA GPU; there is none here"


def _compile(plan: BuildPlan, host: Host, workspace: Workspace) -> Stage:
    sm = plan.gpu.sm
    assert sm is not None

    def argv(checkpoint: PurePath, output: PurePath) -> list[str]:
        return trtllm_build_argv(
            checkpoint_dir=str(checkpoint),
            output_dir=str(output / _ENGINE),
            timing_cache=str(output / "timing.cache"),
            precision=plan.decision.precision,
            kv=plan.decision.kv,
            limits=plan.memory.settings,
        )

    def command(checkpoint: Path, output: Path) -> list[str]:
        return tool_command("compile", argv, checkpoint, output, plan, host, workspace, here=host.builds_engines)

    def make(work: Work) -> None:
        run_tool(work, command(work.inputs["convert"] / "checkpoint", work.folder), host, plan)

    return Stage(
        name="compile",
        make=make,
        settings={
            "argv": argv(PurePath("CHECKPOINT"), PurePath("OUTPUT")),
            "sm": sm,
            "tools": kind_of(plan).tool_versions(host),
            "image": image(plan, host),
        },
        needs=("convert",),
        commands=(command(workspace.output("convert") / "checkpoint", workspace.output("compile.partial")),),
        blocked=host.lacks_gpu(sm, plan.gpu.title) or host.lacks_tensorrt_llm(),
    )


def _verify(plan: BuildPlan, host: Host) -> Stage:
    def make(work: Work) -> None:
        from nemotron_build.verification.trtllm_engine import check_trtllm_engine

        checks = check_trtllm_engine(
            work.inputs["compile"] / _ENGINE,
            plan.checkpoint.architecture,
            precision=plan.decision.precision,
            kv=plan.decision.kv,
            limits=plan.memory.settings,
            version=None if plan.spec.image else kind_of(plan).tool_versions(host)["tensorrt_llm"],
        )
        work.record("checks", checks)

    return Stage(name="verify", make=make, settings={}, needs=("compile",))

"""The stages that ModelOpt does for `tensorrt` and `pytorch` bundles: quantise, and export what was quantised."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nemotron_build.host import Host
from nemotron_build.quantization.environment import MODELOPT_TRTLLM, Environment
from nemotron_build.quantization.jobs import WORKER, quantization, run_job, worker_argv
from nemotron_build.stages.pipeline import Stage, Work, key_of
from nemotron_build.stages.plan import BuildPlan
from nemotron_build.stages.workspace import Workspace
from nemotron_triton.bundle import digest


def quantizes(plan: BuildPlan) -> bool:
    """Whether anything is quantised: weights or KV cache."""
    return plan.decision.precision.quantized or plan.decision.kv.quantized


def quantize_stage(
    plan: BuildPlan, digests: Mapping[str, str], host: Host, workspace: Workspace, environment: Environment
) -> Stage:
    """Calibrate and quantise into `model/`, and measure on held-out text what it cost."""
    precision = plan.decision.precision
    words = quantization(precision, plan.decision.kv)
    computed = {"dtype": plan.dtype, "device": plan.spec.device}

    def make(work: Work) -> None:
        common: dict[str, Any] = computed | {
            "checkpoint": str(plan.checkpoint.path.absolute()),
            "calibration": plan.calibration,
            "held_out": plan.held_out,
        }
        if precision.convert_checkpoint and environment == MODELOPT_TRTLLM:
            # For a `tensorrt` engine ModelOpt only measures what it costs; TensorRT-LLM's own script makes it.
            measured = {"quantization": quantization(precision), "dtype": plan.dtype}
            settings = common | {"measured": [measured], "plot": None, "scratch": str(work.folder)}
            quality = _job(work, environment, "measure", settings)[precision.name]
            (work.folder / "logits").unlink()
        else:
            (work.folder / "model").mkdir()
            settings = common | {"output": str(work.folder / "model"), "quantization": words}
            quality = _job(work, environment, "quantize", settings)
        work.record("quality", quality)

    lacks_gpu = f"ModelOpt quantises to {precision.quant_algo} on an NVIDIA GPU only"
    return Stage(
        name="quantize",
        make=make,
        settings={
            "inputs": weights_only(plan, digests),
            "quantization": words,
            **computed,
            "samples": key_of(plan.calibration, plan.held_out) if digests else "",
            "tools": environment.versions | {"worker": digest(WORKER)},
        },
        commands=(_command(environment, workspace, "quantize"),),
        blocked=lacks_gpu if words["cuda_only"] and not host.sms else None,
        reads_source=True,
    )


def export_stage(
    plan: BuildPlan,
    digests: Mapping[str, str],
    workspace: Workspace,
    environment: Environment,
    job: str,
    check: Callable[[Path], list[str]],
    complete: Callable[[Path], None] | None = None,
) -> Stage:
    """Export into `checkpoint/` with *job*, and keep only what *check* finds to be the source's.

    *complete* puts more of the source's files into it, before it is checked.
    """
    needs = ("quantize",) if quantizes(plan) else ()

    def make(work: Work) -> None:
        (work.folder / "checkpoint").mkdir()
        source = work.inputs["quantize"] / "model" if needs else plan.checkpoint.path.absolute()
        settings = {
            "source": str(source),
            "quantized": bool(needs),
            "output": str(work.folder / "checkpoint"),
            "dtype": plan.dtype,
            "device": plan.spec.device,
        }
        _job(work, environment, job, settings)
        if complete:
            complete(work.folder / "checkpoint")
        work.record("checks", check(work.folder / "checkpoint"))

    return Stage(
        name="convert",
        make=make,
        settings={
            "inputs": dict(digests) if complete else weights_only(plan, digests),
            "job": job,
            "dtype": plan.dtype,
            "tools": environment.versions | {"worker": digest(WORKER)},
        },
        needs=needs,
        commands=(_command(environment, workspace, "convert"),),
        reads_source=not needs,
    )


def weights_only(plan: BuildPlan, digests: Mapping[str, str]) -> dict[str, str]:
    """The digests that decide the weights: a new tokenizer or licence quantises nothing anew."""
    names = {tensor.file.name for tensor in plan.checkpoint.tensors.values()} | {"config.json"}
    return {name: digest for name, digest in digests.items() if name in names}


def _job(work: Work, environment: Environment, job: str, settings: dict[str, Any]) -> Any:
    return run_job(environment, job, settings, log=work.log, reporter=work.reporter, runner=work.runner)


def _command(environment: Environment, workspace: Workspace, stage: str) -> list[str]:
    return worker_argv(environment.folder() / "bin" / "python", workspace.log(stage).with_suffix(".job.json"))

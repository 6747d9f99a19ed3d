"""The `pytorch` kind: a Hugging Face checkpoint, quantised by ModelOpt where asked. Not run on hardware.

TensorRT-LLM's PyTorch backend compiles nothing; the engine is the checkpoint and the LLM API's arguments.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, ClassVar

from nemotron_build.architecture import Dimensions
from nemotron_build.host import Host
from nemotron_build.needs import Need, Verb
from nemotron_build.planning.kind import Finding
from nemotron_build.quantization.environment import MODELOPT_HF
from nemotron_build.stages.hf_export import complete_export, take_stage
from nemotron_build.stages.kind import EngineKind
from nemotron_build.stages.llm_call import FREE_MEMORY_FRACTION, llm_call
from nemotron_build.stages.modelopt import export_stage, quantize_stage
from nemotron_build.stages.pipeline import Stage, Work
from nemotron_build.stages.plan import BuildPlan
from nemotron_build.stages.workspace import Workspace


class Pytorch(EngineKind):
    """TensorRT-LLM's PyTorch backend, 1.2.1 and later."""

    name = "pytorch"
    title = "PyTorch backend of TensorRT-LLM"
    sms = (80, 86, 89, 90, 100, 120)
    elsewhere = "TensorRT-LLM does not support {gpu}"
    models: ClassVar[Mapping[str, Finding | None]] = {
        "llama": None,
        "nemotron_h": Finding(
            "warning",
            "unverified: no source shows that TensorRT-LLM 1.2.1 loads the 4B nemotron_h; quantised Mamba layers came "
            "with 1.3.0rc8",
        ),
    }
    quantizers: ClassVar[Mapping[str, str]] = {
        "quant_algo": "TensorRT-LLM",
        "modelopt": "ModelOpt",
        "hf_layout": "the verifier of Hugging Face checkpoints",
    }
    kv_quantizers: ClassVar[Mapping[str, str]] = {
        "quant_algo": "TensorRT-LLM",
        "modelopt": "ModelOpt",
        "llm_api": "the LLM API of TensorRT-LLM",
    }
    compiled = False
    kv_fraction = FREE_MEMORY_FRACTION
    made_in = ("convert", "checkpoint")
    modelopt = MODELOPT_HF
    needs: ClassVar[Mapping[Verb, frozenset[Need]]] = {
        "build": frozenset(),
        "serve": frozenset({Need.GPU, Need.LLM_API}),
    }

    def chunks_prompts(self, architecture: Dimensions, *_: object) -> bool:
        """TensorRT-LLM 1.2.1 is not known to with Mamba layers."""
        return not architecture.state_bytes_per_sequence()

    def stages(self, plan: BuildPlan, digests: Mapping[str, str], host: Host, workspace: Workspace, /) -> list[Stage]:
        from nemotron_build.verification.hf_checkpoint import check_hf_checkpoint

        decision = plan.decision
        check = functools.partial(
            check_hf_checkpoint, source=plan.checkpoint, precision=decision.precision, kv=decision.kv
        )
        complete = functools.partial(complete_export, source=plan.checkpoint)
        # The LLM API quantises a KV cache by itself; FP8 needs scales only to be more exact.
        if decision.precision.quantized:
            stages = [
                quantize_stage(plan, digests, host, workspace, MODELOPT_HF),
                export_stage(plan, digests, workspace, MODELOPT_HF, "export_hf", check, complete),
            ]
        else:
            stages = [take_stage(plan, digests)]

        def verify(work: Work) -> None:
            work.record("checks", check(work.inputs["convert"] / "checkpoint"))

        return [*stages, Stage(name="verify", make=verify, settings={}, needs=("convert",))]

    def tool_versions(self, _: Host, /) -> dict[str, str]:
        """What quantised it; the LLM API that will load it is not part of the build."""
        return dict(MODELOPT_HF.versions)

    def llm_arguments(self, plan: BuildPlan, /) -> dict[str, Any]:
        return llm_call(plan).on_checkpoint()

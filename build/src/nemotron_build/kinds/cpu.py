"""The `cpu` kind: a GGUF file for llama.cpp, written in this process."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import ClassVar

from nemotron_build.host import Host
from nemotron_build.needs import Need, Verb
from nemotron_build.planning.kind import Finding
from nemotron_build.stages.kind import EngineKind
from nemotron_build.stages.pipeline import Stage, Work
from nemotron_build.stages.plan import BuildPlan
from nemotron_build.stages.workspace import Workspace


class Cpu(EngineKind):
    """llama.cpp."""

    name = "cpu"
    title = "llama.cpp"
    sms = (None,)
    elsewhere = "cpu engines run on the CPU, not on {gpu}"
    models: ClassVar[Mapping[str, Finding | None]] = {
        "llama": None,
        "nemotron_h": Finding("refused", "cpu engines are made from the Llama family only, not from nemotron_h"),
    }
    tools: ClassVar[Mapping[str, str]] = {"gguf": "llama.cpp"}
    sixteen_bit = "fp16"
    engine_file = "engine/model.gguf"
    made_in = ("convert", "engine")
    # It is what this project's own tests run; no GPU was ever at hand.
    ran_on_hardware = True
    needs: ClassVar[Mapping[Verb, frozenset[Need]]] = {
        "build": frozenset({Need.GGUF}),
        "serve": frozenset({Need.LLAMA_CPP}),
    }

    def chunks_prompts(self, *_: object) -> bool:
        return True

    def stages(self, plan: BuildPlan, digests: Mapping[str, str], host: Host, _: Workspace, /) -> list[Stage]:
        precision = plan.decision.precision

        def convert(work: Work) -> None:
            from nemotron_build.gguf_file import write_gguf

            (work.folder / self.engine_file).parent.mkdir()
            write_gguf(
                plan.checkpoint,
                precision,
                work.folder / self.engine_file,
                name=plan.profile.name,
                progress=work.reporter.progress,
            )

        def verify(work: Work) -> None:
            from nemotron_build.verification.gguf import check_gguf

            work.record("checks", check_gguf(work.inputs["convert"] / self.engine_file, plan.checkpoint))

        return [
            Stage(
                name="convert",
                make=convert,
                settings={
                    "inputs": dict(digests),
                    "precision": precision.name,
                    "type": precision.gguf,
                    "name": plan.profile.name,
                    "tools": self.tool_versions(host),
                },
                reads_source=True,
            ),
            Stage(name="verify", make=verify, settings={"tools": self.tool_versions(host)}, needs=("convert",)),
        ]

    def tool_versions(self, _: Host, /) -> dict[str, str]:
        return {name: importlib.metadata.version(name) for name in ("nemotron-triton", "gguf", "safetensors")}

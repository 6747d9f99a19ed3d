"""The stages of a `cpu` bundle: a GGUF file for llama.cpp, written in this process."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path

from nemotron_build.build_plan import BuildPlan
from nemotron_build.stages.pipeline import Stage, Work
from nemotron_build.stages.verified import write_checks

ENGINE_FILE = "engine/model.gguf"


def stages(plan: BuildPlan, digests: Mapping[str, str]) -> list[Stage]:
    """Convert and verify."""
    precision = plan.decision.precision.name

    def convert(work: Work) -> None:
        from nemotron_build.gguf_file import write_gguf

        (work.folder / ENGINE_FILE).parent.mkdir()
        write_gguf(
            plan.checkpoint,
            precision,
            work.folder / ENGINE_FILE,
            name=plan.profile.name,
            progress=work.reporter.progress,
        )

    def verify(work: Work) -> None:
        from nemotron_build.verification.gguf import check_gguf

        write_checks(work.folder, check_gguf(work.inputs["convert"] / ENGINE_FILE, plan.checkpoint))

    return [
        Stage(
            name="convert",
            make=convert,
            settings={
                "inputs": dict(digests),
                "precision": precision,
                "name": plan.profile.name,
                "tools": tool_versions(),
            },
            reads_source=True,
        ),
        Stage(name="verify", make=verify, settings={"tools": tool_versions()}, needs=("convert",)),
    ]


def tool_versions() -> dict[str, str]:
    """The versions of what writes the file."""
    return {name: importlib.metadata.version(name) for name in ("nemotron-triton", "gguf", "safetensors")}


def engine_files(folders: Mapping[str, Path]) -> dict[str, Path]:
    """The files of the engine by their place in the bundle."""
    return {ENGINE_FILE: folders["convert"] / ENGINE_FILE}
